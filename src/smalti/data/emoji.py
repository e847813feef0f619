"""The built-in emoji: a data set of 3786 images that needs no download.

Google's Noto Emoji (Unicode 16) with all skin tones and genders, as 32x32 RGBA. The images are the tiles of one
lossless WebP mosaic (`emoji.webp`); their names, categories and splits are in a table (`emoji.tsv`). Both were made by
`tools/build_emoji.py` from the npm package emoji-datasource-google 16.0.0. Licences: `emoji.LICENSE.txt`.

The split is fixed and free of near-duplicates. It is decided by the hash of a *group*: a group contains all skin tones,
genders, ages, hair styles and directions of one emoji, and all emoji that look the same (territories that share a flag,
arrows that are rotated copies). No test image has a near-duplicate in the training split, rotations and mirror images
included (root mean square error of at least 10 out of 255). Both splits share one style, however, and many smileys
differ only in the mouth. 397 emoji, 10.5 %, are for testing.

Layout: uint8, (N, 32, 32, 4), straight (not premultiplied) alpha, colour 0 where alpha is 0.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from importlib import resources

import numpy as np
from PIL import Image

from smalti.errors import DataError, did_you_mean

SIDE = 32
COLUMNS = 12
SPLITS = ("train", "test")

PICTURE_SHA256 = "763ee66740d0b3028cdf86e242fa0ded8cace194a303f1e2f54db33cf41007cd"
TABLE_SHA256 = "f76183a2013f56f05efc38bc731d7fa161cac83f6932ebafe080e8b8282df5f8"


@dataclass(frozen=True)
class EmojiSet:
    """Emoji of one split, with labels, names and captions.

    Attributes:
        images: (N, 32, 32, 4) uint8, straight alpha.
        labels: (N,) int64, indices into `classes`.
        classes: the ten Unicode categories, the same for every split.
        names: N unique names: code points and name, e.g. "1f600 grinning face".
        captions: N captions, e.g. "grinning face, face-smiling, Smileys & Emotion"; a few emoji share one.
        subcategories: N Unicode subcategories, e.g. "face-smiling".
        groups: N group names; emoji of one group are variants of each other.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]
    captions: tuple[str, ...]
    subcategories: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def read(split: str | None = None) -> EmojiSet:
    """Read the built-in emoji, in Unicode order.

    Args:
        split: "train", "test", or None for both together.

    Returns:
        New arrays with the same contents on every call.

    Raises:
        DataError: there is no such split, or the installed files are missing or damaged.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"emoji have no split {split!r}; {did_you_mean(str(split), SPLITS)}")
    # Git may check out the table with \r\n on Windows; undo that before comparing digests.
    table = _file("emoji.tsv").replace(b"\r\n", b"\n")
    picture = _file("emoji.webp")
    for name, content, expected in (("tsv", table, TABLE_SHA256), ("webp", picture, PICTURE_SHA256)):
        if hashlib.sha256(content).hexdigest() != expected:
            raise DataError(f"smalti's own file emoji.{name} is damaged or of another version: reinstall smalti")

    rows = [line.split("\t") for line in table.decode().splitlines()[1:]]
    classes = tuple(dict.fromkeys(row[2] for row in rows))
    kept = [i for i, row in enumerate(rows) if split is None or row[5] == split]
    rows_kept = [rows[i] for i in kept]
    return EmojiSet(
        images=_tiles(picture, len(rows))[kept],
        labels=np.array([classes.index(row[2]) for row in rows_kept], dtype=np.int64),
        classes=classes,
        names=tuple(f"{row[0]} {row[1]}" for row in rows_kept),
        captions=tuple(f"{row[1]}, {row[3]}, {row[2]}" for row in rows_kept),
        subcategories=tuple(row[3] for row in rows_kept),
        groups=tuple(row[4] for row in rows_kept),
    )


def _file(name: str) -> bytes:
    try:
        return resources.files("smalti.data").joinpath(name).read_bytes()
    except OSError as error:
        raise DataError(f"smalti's own file {name} cannot be read: reinstall smalti ({error})") from error


def _tiles(picture: bytes, count: int) -> np.ndarray:
    """Cut the mosaic into its first `count` tiles, (count, 32, 32, 4) uint8."""
    with Image.open(io.BytesIO(picture), formats=("WEBP",)) as opened:
        mosaic = np.asarray(opened.convert("RGBA"))
    rows = mosaic.shape[0] // SIDE
    tiles = mosaic.reshape(rows, SIDE, COLUMNS, SIDE, 4).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 4)[:count].copy()
    # The encoder chose invisible colours freely, to make the file smaller; here they are 0 by definition.
    tiles[tiles[..., 3] == 0] = 0
    return tiles
