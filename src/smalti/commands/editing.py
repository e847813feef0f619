"""`smalti fill` and `vary`: parts of images drawn anew by a trained prior."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smalti import api, shell
from smalti.commands.drawing import how_to_draw
from smalti.commands.jobs import Job, work_through
from smalti.commands.request import Drawing
from smalti.data import images as decoding
from smalti.data.pictures import grid, write_png
from smalti.errors import ConfigError, DataError

VERSION_LIMIT = 1_000
SMALL_SIDE = 64  # pixels; sheets of pictures up to this size are enlarged
BOX = re.compile(r"(\d{1,5}),(\d{1,5}),(\d{1,5}),(\d{1,5})")

Versions = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def run_fill(
    path: Path,
    images: Sequence[Path],
    out: Path,
    mask: str,
    count: int,
    seed: int,
    drawing: Drawing,
    resize: str | None,
    device: str,
    overwrite: bool,
) -> int:
    """Fill a hole in each image; a bad image is reported and the rest goes on. Exit code 1 when any was bad."""
    model = api.load(path, device=device)
    chosen, about = how_to_draw(drawing)
    _check_drawing(model, drawing, chosen, seed)
    _, height, width = model.card.image
    hole = _hole(mask, height, width)

    def versions(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        emptied = picture.copy()
        emptied[hole] = 128
        return emptied, model.fill(picture, hole, count=count, seed=seed, **chosen)

    text = {"mask": Path(mask).name, "seed": seed, **about}
    return _each(model, images, out, "fill", count, resize, overwrite, versions, text)


def run_vary(
    path: Path,
    images: Sequence[Path],
    out: Path,
    strength: float,
    count: int,
    seed: int,
    drawing: Drawing,
    resize: str | None,
    device: str,
    overwrite: bool,
) -> int:
    """Draw images like each image; as `run_fill`."""
    model = api.load(path, device=device)
    chosen, about = how_to_draw(drawing)
    _check_drawing(model, drawing, chosen, seed)

    def versions(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return picture, model.vary(picture, strength=strength, count=count, seed=seed, **chosen)

    text = {"strength": strength, "seed": seed, **about}
    return _each(model, images, out, "vary", count, resize, overwrite, versions, text)


def _check_drawing(model: api.Model, drawing: Drawing, chosen: dict[str, Any], seed: int) -> None:
    """See, before any image is read, that parts of images can be drawn so."""
    if drawing.interpolate is not None or drawing.mix is not None or drawing.truncation != 1:
        raise ConfigError("--interpolate, --mix and --truncation are for smalti generate with a GAN; leave them out")
    model.check_prior()
    model.check_drawing(**chosen, seed=seed)


def _each(
    model: api.Model,
    images: Sequence[Path],
    out: Path,
    verb: str,
    count: int,
    resize: str | None,
    overwrite: bool,
    versions: Versions,
    about: dict[str, object],
) -> int:
    """Each image's versions, a file each and all on one sheet beside what they come from."""
    if not 1 <= count <= VERSION_LIMIT:
        raise ConfigError(f"--count is {count}, but must be from 1 to {VERSION_LIMIT}")
    channels, height, width = model.card.image
    scale = 2 if max(height, width) <= SMALL_SIDE else 1

    def work(job: Job) -> Path:
        size = None if resize is None else (height, width)
        picture = decoding.decode(job.image, channels=channels, size=size, resize=resize or "cover")
        if picture.shape != (height, width, channels):
            raise ConfigError(
                f"it is {picture.shape[0]}x{picture.shape[1]}, and the model makes {height}x{width}; "
                "give --resize cover, contain or stretch"
            )
        first, drawn = versions(picture)
        text = model.provenance(source=job.image.name, **about)
        sheet, *files = job.outputs
        for file, version in zip(files, drawn, strict=True):
            write_png(file, version, text)
        write_png(sheet, grid(np.concatenate([first[None], drawn]), scale=scale), text)
        return sheet

    suffixes = [f".{verb}.png", *(f".{verb}-{number}.png" for number in range(count))]
    done, failed = work_through(images, out, overwrite, suffixes, "read", work)
    shell.note(f"{count} versions of {len(done)} images: {done[0]}{' ...' if len(done) > 1 else ''}")
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
