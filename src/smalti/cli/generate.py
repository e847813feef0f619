"""`smalti generate`: images from a trained GAN or prior."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.options import Device, GenerationOptions, ModelPath, OutPath, Overwrite, SamplingOptions
from smalti.cli.outputs import free_to_write, refuse_numbered, write_numbered
from smalti.errors import ConfigError

if TYPE_CHECKING:
    from smalti.pipelines.gan import GAN

COUNT = 64  # where none is given
COUNT_LIMIT = 10_000_000
GRID_LIMIT = 10_000  # images in one picture
FRAME_LIMIT = 5_000  # of a walk; a GIF cannot show one picture for longer than it and its way back take
ANIMATED = ("webp", "gif")
GENERATION, SAMPLING = GenerationOptions(), SamplingOptions()


@app.command(
    help_epilogue=examples(
        "smalti generate runs/cifar --count 64 --out grid.png",
        "smalti generate runs/cifar/best.safetensors --count 1000 --seed 7 --out samples/",
        "smalti generate runs/cifar --interpolate 3,17 --count 48 --out walk.webp",
        'smalti generate runs/emoji-prior --prompt "red apple" --guidance 2 --out apples.png',
    )
)
def generate(
    model: ModelPath,
    /,
    *,
    out: OutPath,
    count: int | None = None,
    seed: int = 0,
    generation: GenerationOptions = GENERATION,
    sampling: SamplingOptions = SAMPLING,
    columns: int | None = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> int:
    """Generate new images with a trained GAN or a trained prior.

    Parameters
    ----------
    out:
        A .png for one grid, or a folder for one file per image; .webp or .gif for a walk.
    count:
        How many images, or frames of a walk. Default: 64.
    seed:
        Image i of a seed is the same however many are generated.
    columns:
        Images in a row of the grid.
    """
    from smalti.cli.generators import as_gan, load_generator

    place = _Place(out, columns, overwrite)
    count = _checked_count(place, count, generation)
    generator = load_generator(model, device=device)
    if generation.interpolate is None and generation.mix is None:
        return _sample(generator, place, count, seed, generation, sampling)
    if sampling != SAMPLING:
        raise ConfigError("--prompt, --temperature and what else is for a prior do not go with --interpolate or --mix")
    if generation.mix is not None:
        return _mix(as_gan(generator), place, seed, generation, generation.mix)
    assert generation.interpolate is not None
    return _interpolate(as_gan(generator), place, count, seed, generation, generation.interpolate)


@dataclass(frozen=True)
class _Place:
    """Where the pictures are written, and in which form."""

    path: Path
    columns: int | None
    overwrite: bool

    @property
    def extension(self) -> str:
        return self.path.suffix[1:].lower()


def _checked_count(place: _Place, count: int | None, generation: GenerationOptions) -> int:
    """How many images or frames are asked for; ConfigError for options that do not fit each other."""
    walking, mixing = generation.interpolate is not None, generation.mix is not None
    grid = place.extension == "png"
    _check_extension(place, walking, mixing)
    if mixing and count is not None:
        raise ConfigError("--count is not for --mix, whose table has a row and a column for each picture of the list")
    if place.columns is not None and (mixing or not grid):
        raise ConfigError("--columns is for a grid: an --out that ends in .png, without --mix")
    if place.columns is not None and not 1 <= place.columns <= GRID_LIMIT:
        raise ConfigError(f"--columns is {place.columns}, but must be from 1 to {GRID_LIMIT}")
    count = COUNT if count is None else count
    limit, where = (GRID_LIMIT, " in one grid") if grid else (COUNT_LIMIT, "")
    if walking:
        limit, where = FRAME_LIMIT, " frames of a walk"
    if not 1 <= count <= limit:
        raise ConfigError(f"--count is {count}, but must be from 1 to {limit}{where}")
    return count


def _check_extension(place: _Place, walking: bool, mixing: bool) -> None:
    """Check that a file of this name can be what is asked for."""
    from smalti.data.sources import IMAGE_EXTENSIONS

    out, extension = place.path, place.extension
    if walking and mixing:
        raise ConfigError("--interpolate and --mix are two different pictures; give one of them")
    if walking and extension not in ("png", *ANIMATED):
        raise ConfigError(f"--out is {out}, but a walk is one file; give a name that ends in .png, .webp or .gif")
    if mixing and extension != "png":
        raise ConfigError(f"--out is {out}, but a table of mixtures is one picture; give a name that ends in .png")
    if extension in IMAGE_EXTENSIONS and extension != "png" and not walking:
        raise ConfigError(
            f"--out is {out}, but pictures are written as PNG; give a name that ends in .png, or a folder; "
            ".webp and .gif are for --interpolate"
        )


def _sample(
    generator: Any, place: _Place, count: int, seed: int, generation: GenerationOptions, sampling: SamplingOptions
) -> int:
    """Images of a seed: one grid, or a file each."""
    from smalti.cli.generators import check_arguments, sampling_arguments
    from smalti.pipelines.limits import check_pixels, together
    from smalti.report.pictures import save_grid

    arguments, words = sampling_arguments(generation.label, sampling)
    given = {name: value for name, value in arguments.items() if value is not None}
    if generation.truncation != 1:
        given["truncation"] = generation.truncation
    check_arguments(generator, given)
    generator.check_generation(**given, seed=seed)
    about = functools.partial(generator.provenance, seed=seed, truncation=generation.truncation, **words)
    shape, out = generator.card.image.shape, place.path
    if place.extension == "png":
        check_pixels(shape, count)
        free_to_write(out, place.overwrite)
        save_grid(generator.generate(count, seed=seed, **given), out, columns=place.columns, text=about(count=count))
        console.note(f"{count} images, seed {seed}: {out}")
        return 0
    if not place.overwrite:
        refuse_numbered(out)
    for start in range(0, count, together(shape)):
        pictures = generator.generate(min(together(shape), count - start), seed=seed, first=start, **given)
        write_numbered(out, start, pictures, lambda number: about(image=number))
    console.note(f"{count} images, seed {seed}: {out}/")
    return 0


def _interpolate(gan: GAN, place: _Place, frames: int, seed: int, generation: GenerationOptions, listed: str) -> int:
    """A walk from one point to the next: a grid, or an animation that goes there and back."""
    import numpy as np

    from smalti.pipelines.exploring import check_frames, points, walk
    from smalti.pipelines.limits import check_pixels
    from smalti.report.animations import write_animation
    from smalti.report.pictures import save_grid

    animated = place.extension in ANIMATED
    found = points(gan, listed, seed=seed, label=generation.label, name="interpolate")
    check_frames(found, frames)
    check_pixels(gan.card.image.shape, (2 if animated else 1) * frames)
    free_to_write(place.path, place.overwrite)
    pictures = walk(gan, found, frames, truncation=generation.truncation)
    words = {"label": found.class_name, "truncation": generation.truncation}
    text = gan.provenance(seed=seed, interpolate=listed, count=frames, **words)
    if animated:
        write_animation(place.path, np.concatenate([pictures, pictures[-2:0:-1]]), text)
    else:
        save_grid(pictures, place.path, columns=place.columns, text=text)
    console.note(f"{frames} frames from {listed.replace(',', ' to ')}: {place.path}")
    return 0


def _mix(gan: GAN, place: _Place, seed: int, generation: GenerationOptions, listed: str) -> int:
    """A table: each pair of points has the picture in the middle between them; the diagonal has their own."""
    from smalti.pipelines.exploring import mix, points
    from smalti.pipelines.limits import check_pixels
    from smalti.report.pictures import save_grid

    found = points(gan, listed, seed=seed, label=generation.label, name="mix")
    side = len(found.values)
    check_pixels(gan.card.image.shape, side**2)
    free_to_write(place.path, place.overwrite)
    pictures = mix(gan, found, truncation=generation.truncation)
    text = gan.provenance(seed=seed, mix=listed, label=found.class_name, truncation=generation.truncation)
    save_grid(pictures, place.path, columns=side, text=text)
    console.note(f"{side} images mixed with each other: {place.path}")
    return 0
