"""Contact sheets, before/after pairs, and PNG files with metadata.

Layout: uint8, height x width x channels; 1 channel is grey, 3 are RGB, 4 are RGB and straight alpha.
Sheets enlarge images by repeating pixels, never by smoothing, to show the exact output of a model.
"""

from __future__ import annotations

import errno
import io
import math
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from smalti.errors import DataError
from smalti.files import output_errors, write_atomically

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT_LIMIT_BYTES = 16 * 2**20  # a few compressed bytes can decompress to gigabytes


def grid(
    images: np.ndarray,
    *,
    columns: int | None = None,
    padding: int = 2,
    scale: int = 1,
    background: int | Sequence[int] | None = None,
) -> np.ndarray:
    """A contact sheet, filled row by row.

    Args:
        images: (N, H, W, C) uint8 with C in 1, 3, 4.
        columns: images per row; default: chosen to make the sheet about square.
        padding: pixels of the sheet between and around the images.
        scale: integer enlargement; each pixel becomes scale x scale pixels.
        background: C values, or one for all channels; default: white, or fully transparent if C is 4.

    Returns:
        (h, w, C) uint8 with w = padding + columns * (W * scale + padding), and h likewise.

    Raises:
        DataError: no images, wrong shape or dtype, or a number out of range.
    """
    _check_images(images)
    _check_numbers(columns=columns, padding=padding, scale=scale)
    tiles = enlarge(images, scale)
    fill = _fill(background, images.shape[-1])
    return _arrange(tiles, columns, gap_rows=padding, gap_columns=padding, fill=fill)


def save_grid(
    images: np.ndarray,
    path: str | os.PathLike[str],
    *,
    columns: int | None = None,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write (N, H, W, C) uint8 images as one PNG, in rows.

    Raises:
        OutputError: it cannot be written.
    """
    write_png(Path(path), grid(images, columns=columns), text)


def side_by_side(
    before: np.ndarray,
    after: np.ndarray,
    *,
    columns: int | None = None,
    padding: int = 2,
    scale: int = 1,
    background: int | Sequence[int] | None = None,
) -> np.ndarray:
    """A contact sheet of pairs: a row of `before` above the corresponding row of `after`, and so on.

    Args:
        before: (N, H, W, C) uint8.
        after: the same shape.
        columns: pairs per row; default: chosen to make the sheet about square.
        padding: pixels around the pairs and between the images of a pair; rows of pairs are four times as far apart.
        scale: integer enlargement; each pixel becomes scale x scale pixels.
        background: as in `grid`.

    Returns:
        (h, w, C) uint8.

    Raises:
        DataError: as in `grid`, or the shapes differ.
    """
    _check_images(before)
    _check_images(after)
    _check_numbers(columns=columns, padding=padding, scale=scale)
    if before.shape != after.shape:
        raise DataError(f"pairs need two arrays of one shape, but they are {before.shape} and {after.shape}")
    fill = _fill(background, before.shape[-1])
    upper, lower = enlarge(before, scale), enlarge(after, scale)
    strip = np.empty((len(upper), padding, *upper.shape[2:]), np.uint8)
    strip[:] = fill
    pairs = np.concatenate([upper, strip, lower], axis=1)
    return _arrange(pairs, columns, gap_rows=4 * padding, gap_columns=padding, fill=fill)


def enlarge(images: np.ndarray, scale: int) -> np.ndarray:
    """Repeat each pixel: (N, H, W, C) to (N, H * scale, W * scale, C)."""
    return images.repeat(scale, axis=1).repeat(scale, axis=2)


def over_checker(images: np.ndarray, *, cell: int = 4, light: int = 255, dark: int = 230) -> np.ndarray:
    """Composite RGBA pictures over a light checkerboard to make transparency visible.

    Args:
        images: (..., H, W, 4) uint8, straight alpha.
        cell: side of a square in pixels.
        light: grey level of the first square, 0..255.
        dark: grey level of its neighbours.

    Returns:
        (..., H, W, 3) uint8.

    Raises:
        DataError: not uint8, not four channels, or `cell` is below 1.
    """
    if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] != 4:
        raise DataError(f"expected uint8 pictures with 4 channels, not {images.dtype} of shape {images.shape}")
    if cell < 1:
        raise DataError(f"a checkerboard needs cells of at least 1 pixel, not {cell}")
    height, width = images.shape[-3:-1]
    squares = (np.arange(height)[:, None] // cell + np.arange(width)[None] // cell) % 2
    board = np.where(squares == 0, light, dark).astype(np.uint32)[..., None]
    colour, alpha = images[..., :3].astype(np.uint32), images[..., 3:].astype(np.uint32)
    # out = (alpha * colour + (255 - alpha) * board) / 255, rounded
    return ((alpha * colour + (255 - alpha) * board + 127) // 255).astype(np.uint8)


def write_png(path: str | os.PathLike[str], image: np.ndarray, text: Mapping[str, str] | None = None) -> None:
    """Write a picture as a PNG file, atomically.

    Missing folders are created. Equal pictures and texts give equal bytes.

    Args:
        path: target; an existing file is replaced.
        image: (H, W, C) uint8 with C in 1, 3, 4, or (H, W).
        text: metadata, keyword to value; keywords are 1 to 79 printable ASCII characters.

    Raises:
        DataError: wrong type or shape, or a keyword or value that PNG cannot store.
        OutputError: no permission, the disk is full, or `path` is a folder.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise DataError(f"expected a uint8 picture (H, W, 1, 3 or 4), not {image.dtype} of shape {image.shape}")
    if image.size == 0:
        raise DataError(f"a picture of shape {image.shape} has no pixels to write")
    pixels = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, "PNG", pnginfo=_png_text(text or {}))
    target = Path(path)
    with output_errors(target):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda file: file.write(encoded.getvalue()))


def read_png_text(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the text metadata of a PNG file; the pixels are neither decoded nor checked.

    Args:
        path: a PNG file from any source.

    Returns:
        Keyword to value, from tEXt, zTXt and iTXt chunks; the last chunk of a keyword counts.

    Raises:
        DataError: the file is missing, no PNG, truncated, damaged, or has more than 16 MiB of text.
    """
    shown = repr(str(path))
    try:
        with open(path, "rb") as file:
            if file.read(8) != _PNG_SIGNATURE:
                raise DataError(f"{shown} is not a PNG file")
            found: dict[str, str] = {}
            room = _TEXT_LIMIT_BYTES
            while True:
                head = file.read(8)
                if len(head) < 8:
                    raise DataError(f"{shown} is cut short: it has no end marker")
                length, kind = struct.unpack(">I4s", head)
                if kind == b"IEND":
                    return found
                if kind not in (b"tEXt", b"zTXt", b"iTXt"):
                    file.seek(length + 4, os.SEEK_CUR)
                    continue
                if length > room:
                    raise DataError(f"{shown} holds more than 16 MiB of text")
                body, check = file.read(length), file.read(4)
                if len(check) < 4:
                    raise DataError(f"{shown} is cut short within its metadata")
                if zlib.crc32(kind + body) != int.from_bytes(check, "big"):
                    raise DataError(f"{shown} has damaged metadata: a checksum is wrong")
                keyword, value, size = _decode_text(kind, body, room, shown)
                room -= size
                found[keyword] = value
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {shown}: {getattr(error, 'strerror', None) or error}") from error


def _decode_text(kind: bytes, body: bytes, room: int, shown: str) -> tuple[str, str, int]:
    """Keyword, value and decompressed size in bytes of one text chunk."""
    keyword, _, rest = body.partition(b"\0")
    compressed, encoding = kind == b"zTXt", "latin-1"
    if kind == b"zTXt":
        rest = rest[1:]  # one byte for the compression method, always deflate
    elif kind == b"iTXt":
        compressed, encoding = rest[:1] == b"\x01", "utf-8"
        # flag, method, language NUL, translated keyword NUL, text
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    if compressed:
        decompressor = zlib.decompressobj()
        try:
            rest = decompressor.decompress(rest, room + 1)
        except zlib.error as error:
            raise DataError(f"{shown} has damaged metadata: {error}") from error
    if len(rest) > room:
        raise DataError(f"{shown} holds more than 16 MiB of text")
    return keyword.decode("latin-1"), rest.decode(encoding, errors="replace"), len(rest)


def _png_text(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for keyword, value in text.items():
        plain = keyword.isprintable() and keyword.isascii() and keyword == keyword.strip()
        if not (plain and 1 <= len(keyword) <= 79):
            raise DataError(
                f"PNG keyword {keyword[:80]!r} does not fit: 1 to 79 printable ASCII characters are allowed"
            )
        if "\0" in value:
            raise DataError(f"the text of PNG keyword {keyword!r} holds a NUL character, which PNG cannot store")
        try:
            info.add_text(keyword, value)  # tEXt if the value is Latin-1, otherwise iTXt, which is UTF-8
        except UnicodeEncodeError as error:
            raise DataError(f"the text of PNG keyword {keyword!r} is not valid Unicode: {error.reason}") from error
    return info


def _arrange(
    tiles: np.ndarray, columns: int | None, *, gap_rows: int, gap_columns: int, fill: np.ndarray
) -> np.ndarray:
    """Arrange (N, h, w, C) tiles in a grid; the border is as wide as the gap between columns."""
    count, height, width, channels = tiles.shape
    if columns is None:
        columns = min(count, math.ceil(math.sqrt(count * (height + gap_rows) / (width + gap_columns))))
    rows = -(-count // columns)
    rim = gap_columns
    sheet = np.empty(
        (
            2 * rim + rows * height + (rows - 1) * gap_rows,
            2 * rim + columns * width + (columns - 1) * gap_columns,
            channels,
        ),
        np.uint8,
    )
    sheet[:] = fill
    for i, tile in enumerate(tiles):
        top = rim + (i // columns) * (height + gap_rows)
        left = rim + (i % columns) * (width + gap_columns)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _fill(background: int | Sequence[int] | None, channels: int) -> np.ndarray:
    if background is None:
        background = 0 if channels == 4 else 255
    values = np.atleast_1d(np.asarray(background))
    if (
        values.shape not in ((1,), (channels,))
        or values.dtype.kind not in "iu"
        or values.min() < 0
        or values.max() > 255
    ):
        raise DataError(f"background {background!r} is not one value, or {channels}, in 0..255")
    return np.broadcast_to(values.astype(np.uint8), (channels,))


def _check_images(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise DataError(f"expected uint8 images (N, H, W, 1, 3 or 4), not {images.dtype} of shape {images.shape}")
    if images.size == 0:
        raise DataError(f"a sheet needs at least one image with pixels, but the array has shape {images.shape}")


def _check_numbers(*, columns: int | None, padding: int, scale: int) -> None:
    if columns is not None and columns < 1:
        raise DataError(f"a sheet needs at least 1 column, not {columns}")
    if padding < 0:
        raise DataError(f"padding is at least 0 pixels, not {padding}")
    if scale < 1:
        raise DataError(f"scale is a whole number of at least 1, not {scale}")
