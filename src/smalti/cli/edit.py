"""`smalti fill` and `vary`: parts of images drawn anew by a trained prior."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smalti.cli import console
from smalti.cli.batch_images import Job, process_images
from smalti.cli.generate import check_pixels, how_to_draw
from smalti.cli.options import Prompting, Versions
from smalti.data import images as decoding
from smalti.errors import ConfigError, DataError
from smalti.pipelines import base as api
from smalti.pipelines import inpainting
from smalti.report.pictures import grid, write_png

VERSION_LIMIT = 1_000
SMALL_SIDE = 64  # pixels; sheets of pictures up to this size are enlarged
BOX = re.compile(r"(\d{1,5}),(\d{1,5}),(\d{1,5}),(\d{1,5})")

Drawn = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def run_fill(path: Path, images: Sequence[Path], mask: str, versions: Versions, prompting: Prompting) -> int:
    """Fill a hole in each image; a bad image is reported and the rest goes on. Exit code 1 when any was bad."""
    model, chosen, about = _prepared(path, versions, prompting)
    hole = _hole(mask, *model.card.image[1:])
    model.masked_positions(hole)  # a hole that cannot be filled is so for all images

    def draw(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        filled_from_surroundings = picture.copy()
        filled_from_surroundings[hole] = 128
        return filled_from_surroundings, model.fill(picture, hole, **chosen)

    return _each(model, images, "fill", versions, draw, {"mask": Path(mask).name, **about})


def run_vary(path: Path, images: Sequence[Path], strength: float, versions: Versions, prompting: Prompting) -> int:
    """Draw images like each image; as `run_fill`."""
    inpainting.check_strength(strength)
    model, chosen, about = _prepared(path, versions, prompting)

    def draw(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return picture, model.vary(picture, strength=strength, **chosen)

    return _each(model, images, "vary", versions, draw, {"strength": strength, **about})


def _prepared(path: Path, versions: Versions, prompting: Prompting) -> tuple[api.Model, dict[str, Any], dict[str, Any]]:
    """The model, what its `fill` and `vary` take, and the words for that; checked before any image is read."""
    if not 1 <= versions.count <= VERSION_LIMIT:
        raise ConfigError(f"--count is {versions.count}, but must be from 1 to {VERSION_LIMIT}")
    model = api.load(path, device=versions.device)
    chosen, about = how_to_draw(versions.label, prompting)
    model.check_resampling(**chosen, seed=versions.seed)
    return model, {"count": versions.count, "seed": versions.seed, **chosen}, {"seed": versions.seed, **about}


def _each(
    model: api.Model,
    images: Sequence[Path],
    verb: str,
    versions: Versions,
    draw: Drawn,
    about: dict[str, Any],
) -> int:
    """Each image's versions, a file each and all on one sheet beside what they come from."""
    count, resize = versions.count, versions.resize
    channels, height, width = model.card.image
    scale = 2 if max(height, width) <= SMALL_SIDE else 1
    check_pixels(model.card.image, count + 1, "fewer at once, with another --seed each time")

    def work(job: Job) -> Path:
        size = None if resize is None else (height, width)
        picture = decoding.decode(job.image, channels=channels, size=size, resize=resize or "cover")
        if picture.shape != (height, width, channels):
            raise ConfigError(
                f"it is {picture.shape[0]}x{picture.shape[1]}, and the model makes {height}x{width}; "
                "give --resize cover, contain or stretch"
            )
        first, drawn = draw(picture)
        text = model.provenance(source=job.image.name, **about)
        sheet, *files = job.outputs
        for file, version in zip(files, drawn, strict=True):
            write_png(file, version, text)
        write_png(sheet, grid(np.concatenate([first[None], drawn]), scale=scale), text)
        return sheet

    suffixes = [f".{verb}.png", *(f".{verb}-{number}.png" for number in range(count))]
    done, failed = process_images(images, versions.out, versions.overwrite, suffixes, "read", work)
    console.note(f"{count} versions of {len(done)} images: {done[0]}{' ...' if len(done) > 1 else ''}")
    return 1 if failed else 0


def _hole(mask: str, height: int, width: int) -> np.ndarray:
    """(H, W) bool, of a picture, white where the hole is, or of a box: x,y,width,height.

    Raises:
        ConfigError, DataError: a box outside of the image, or a picture that cannot be read or of another size.
    """
    box = BOX.fullmatch(mask.replace(" ", ""))
    hole = np.zeros((height, width), bool)
    if box:
        left, top, wide, high = (int(number) for number in box.groups())
        if left + wide > width or top + high > height or not wide or not high:
            raise ConfigError(
                f"--mask is {mask}: a box of x,y,width,height, but it does not lie inside images of {height}x{width} "
                "(height x width)"
            )
        hole[top : top + high, left : left + wide] = True
        return hole
    if not Path(mask).exists():
        raise DataError(f"there is no mask {mask}; give a picture, white where the hole is, or x,y,width,height")
    picture = decoding.decode(Path(mask), channels=1)[..., 0]
    if picture.shape != hole.shape:
        raise ConfigError(
            f"the mask {mask} is {picture.shape[0]}x{picture.shape[1]}, and the model's images are {height}x{width}"
        )
    return picture >= 128
