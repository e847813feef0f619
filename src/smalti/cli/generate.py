"""`smalti generate` and `invert`: pictures from latents, and latents from pictures."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smalti.cli import console
from smalti.cli.batch_images import Job, process_images
from smalti.cli.options import Drawing, Prompting
from smalti.data import images as decoding
from smalti.data.sources import IMAGE_EXTENSIONS
from smalti.errors import ConfigError, OutputError
from smalti.files import output_errors
from smalti.metrics.distortion import psnr_db, squared_error_uint8
from smalti.models.prior.sampling import Sampling
from smalti.pipelines import base as api
from smalti.pipelines import latents
from smalti.pipelines.base import Model
from smalti.report.animations import ANIMATED, write_animation
from smalti.report.pictures import side_by_side, write_png

COUNT = 64  # where none is given
COUNT_LIMIT = 10_000_000
GRID_LIMIT = 10_000  # images in one picture
FRAME_LIMIT = 5_000  # of a walk; a GIF cannot show one picture for longer than it and its way back take
MIX_LIMIT = 100  # images that are mixed with each other
PIXEL_LIMIT = 2**28  # pixels in one file: a few times as many bytes are needed to write it
CHUNK, CHUNK_PIXELS = 256, 2**24  # images in memory at once where a file is written for each, and their pixels
SAMPLING = ("temperature", "top_k", "top_p", "guidance", "steps")
NUMBERED = re.compile(r"[0-9]{6,}\.png")


def run_generate(
    path: Path,
    out: Path,
    count: int | None,
    seed: int,
    drawing: Drawing,
    prompting: Prompting,
    columns: int | None,
    device: str,
    overwrite: bool,
) -> int:
    """Draw images into one grid, one animation, or one file each."""
    extension = out.suffix[1:].lower()
    walking, mixing = drawing.interpolate is not None, drawing.mix is not None
    _check_picture(out, extension, walking, mixing)
    if mixing and count is not None:
        raise ConfigError("--count is not for --mix, whose table has a row and a column for each picture of the list")
    if columns is not None and (mixing or extension != "png"):
        raise ConfigError("--columns is for a grid: an --out that ends in .png, without --mix")
    if columns is not None and not 1 <= columns <= GRID_LIMIT:
        raise ConfigError(f"--columns is {columns}, but must be from 1 to {GRID_LIMIT}")
    count = COUNT if count is None else count
    limit, where = (GRID_LIMIT, " in one grid") if extension == "png" else (COUNT_LIMIT, "")
    if walking:
        limit, where = FRAME_LIMIT, " frames of a walk"
    if not 1 <= count <= limit:
        raise ConfigError(f"--count is {count}, but must be from 1 to {limit}{where}")
    model = api.load(path, device=device)
    if (walking or mixing) and prompting != Prompting():
        raise ConfigError("--prompt, --temperature and what else is for a prior do not go with --interpolate or --mix")
    if mixing:
        return _mix(model, out, seed, drawing, overwrite)
    if walking:
        return _interpolate(model, out, count, seed, drawing, columns, overwrite)
    words, about_words = how_to_draw(drawing.label, prompting)
    how = {"truncation": drawing.truncation, **words}
    model.check_drawing(**how, seed=seed)

    def draw(count: int, first: int = 0) -> np.ndarray:
        return model.generate(count, seed=seed, first=first, **how)

    about = functools.partial(model.provenance, seed=seed, truncation=drawing.truncation, **about_words)
    if extension == "png":
        check_pixels(model.card.image, count)
        console.free_to_write(out, overwrite)
        api.save_grid(draw(count), out, columns=columns, text=about(count=count))
        console.note(f"{count} images, seed {seed}: {out}")
        return 0
    if not overwrite:
        refuse_numbered(out)
    chunk = together(model.card.image)
    for start in range(0, count, chunk):
        for number, picture in enumerate(draw(min(chunk, count - start), first=start), start):
            write_png(out / f"{number:06d}.png", picture, about(image=number))
    console.note(f"{count} images, seed {seed}: {out}/")
    return 0


def together(image: tuple[int, int, int]) -> int:
    """How many images of this shape are in memory at once where they come from files or go to them."""
    return max(1, min(CHUNK, CHUNK_PIXELS // (image[1] * image[2])))


def check_pixels(
    image: tuple[int, int, int], count: int, advice: str = "fewer, or generate a file for each: an --out without .png"
) -> None:
    """See that one file can hold so many pictures of this shape.

    Args:
        advice: what to draw instead.

    Raises:
        ConfigError: it would be too large.
    """
    _, height, width = image
    if count * height * width > PIXEL_LIMIT:
        raise ConfigError(
            f"{count:,} pictures of {height}x{width} are {count * height * width / 1e6:,.0f} million pixels, but one "
            f"file holds at most {PIXEL_LIMIT / 1e6:,.0f} million, {PIXEL_LIMIT // (height * width):,} pictures; draw "
            f"{advice}"
        )


def how_to_draw(label: str | None, prompting: Prompting) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `Model.generate` and those like it take, and the words for what was drawn."""
    chosen = {name: value for name in SAMPLING if (value := getattr(prompting, name)) is not None}
    words = {"label": label, "prompt": prompting.prompt}
    return words | {"sampling": Sampling(**chosen) if chosen else None}, words | chosen


def _check_picture(out: Path, extension: str, walking: bool, mixing: bool) -> None:
    """Whether a file of this name can be what is asked for."""
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


def _interpolate(
    model: Model, out: Path, frames: int, seed: int, drawing: Drawing, columns: int | None, overwrite: bool
) -> int:
    """A walk from one point to the next: a grid, or an animation that goes there and back."""
    assert drawing.interpolate is not None
    points, label = _points(model, drawing.interpolate, "--interpolate", seed, drawing.label)
    if frames < len(points):
        raise ConfigError(f"--count is {frames}, but a walk over {len(points)} pictures has at least as many frames")
    check_pixels(model.card.image, (2 if out.suffix[1:].lower() in ANIMATED else 1) * frames)
    console.free_to_write(out, overwrite)
    walked = latents.walk(points, frames)
    pictures = model.draw(walked, labels=_all(label, frames), truncation=drawing.truncation)
    text = model.provenance(
        seed=seed,
        interpolate=drawing.interpolate,
        count=frames,
        label=_class_name(model, label),
        truncation=drawing.truncation,
    )
    if out.suffix[1:].lower() in ANIMATED:
        write_animation(out, np.concatenate([pictures, pictures[-2:0:-1]]), text)
    else:
        api.save_grid(pictures, out, columns=columns, text=text)
    console.note(f"{frames} frames from {drawing.interpolate.replace(',', ' to ')}: {out}")
    return 0


def _mix(model: Model, out: Path, seed: int, drawing: Drawing, overwrite: bool) -> int:
    """A table: each pair of points has the picture in the middle between them; the diagonal has their own."""
    assert drawing.mix is not None
    points, label = _points(model, drawing.mix, "--mix", seed, drawing.label)
    check_pixels(model.card.image, len(points) ** 2)
    console.free_to_write(out, overwrite)
    table = latents.mixed(points).reshape(-1, points.shape[1])
    pictures = model.draw(table, labels=_all(label, len(table)), truncation=drawing.truncation)
    text = model.provenance(seed=seed, mix=drawing.mix, label=_class_name(model, label), truncation=drawing.truncation)
    api.save_grid(pictures, out, columns=len(points), text=text)
    console.note(f"{len(points)} images mixed with each other: {out}")
    return 0


def _points(model: Model, text: str, option: str, seed: int, label: str | None) -> tuple[np.ndarray, int | None]:
    """The latents that a list of image numbers and latent files names, and the one class that all are drawn as."""
    words = [word.strip() for word in text.split(",")]
    if not 2 <= len(words) <= MIX_LIMIT or not all(words):
        raise ConfigError(
            f"{option} is {text!r}, but must be from 2 to {MIX_LIMIT} image numbers or latent files, as in 3,17"
        )
    numbers = [int(word) if word.isascii() and word.isdigit() and len(word) < 19 else None for word in words]
    found, named = [], label
    for word, number in zip(words, numbers, strict=True):
        if number is not None:
            found.append(model.latents([number], seed=seed)[0])
            continue
        point = latents.read(Path(word), dimension=model.latents([]).shape[1], model=model.card.digest)
        named = point.label if named is None else named
        found.append(point.values)
    labels = model.labels([numbers[0] or 0], named)
    return np.stack(found), None if labels is None else labels[0]


def _all(label: int | None, count: int) -> list[int] | None:
    return None if label is None else [label] * count


def _class_name(model: Model, label: int | None) -> str | None:
    return None if label is None else model.card.classes[label]


def refuse_numbered(folder: Path) -> None:
    """See that no numbered picture would be written over."""
    with output_errors(folder):
        there = os.listdir(folder) if folder.exists() else []
    name = next(filter(NUMBERED.fullmatch, there), None)
    if name is not None:
        raise OutputError(
            f"{folder} holds numbered pictures already ({name}); give another --out, or --overwrite to replace them"
        )


def run_invert(
    path: Path,
    images: Sequence[Path],
    out: Path,
    label: str | None,
    steps: int,
    resize: str | None,
    device: str,
    overwrite: bool,
) -> int:
    """Find each image's latent; a bad image is reported and the rest goes on. Exit code 1 when any was bad."""
    model = api.load(path, device=device)
    model.check_inversion(label=label, steps=steps)
    channels, height, width = model.card.image

    def work(job: Job) -> tuple[str, str, str]:
        file, (found_at, pair_at, latent_at) = job.image, job.outputs
        size = None if resize is None else (height, width)
        # A picture without a clear pixel decodes as RGB, even one that a model of RGBA made: alpha is then 255.
        mode = channels if resize or channels == 4 else None
        picture = decoding.decode(file, channels=mode, size=size, resize=resize or "cover")
        if picture.shape != (height, width, channels):
            raise ConfigError(
                f"it is {picture.shape[0]}x{picture.shape[1]}x{picture.shape[2]}, and the model makes "
                f"{height}x{width}x{channels}; give --resize cover, contain or stretch"
            )
        z = model.invert(picture, label=label, steps=steps)
        found = model.draw(z[None], labels=model.labels([0], label))[0]
        decibels = psnr_db(*squared_error_uint8(picture, found))
        text = model.provenance(source=file.name, steps=steps, label=label)
        write_png(found_at, found, text)
        write_png(pair_at, side_by_side(picture[None], found[None]), text)
        point = latents.Latent(z, label, model.card.digest)
        latents.write(latent_at, point, source=file.name, steps=steps, psnr_db=round(min(decibels, 999.0), 2))
        return str(file), f"{decibels:.2f}", str(latent_at)

    rows, failed = process_images(images, out, overwrite, (".png", ".pair.png", ".latent.json"), "inverted", work)
    console.table(("image", "PSNR dB", "latent"), rows)
    console.suggest("generate", path, "--interpolate", f"{rows[0][2]},0", "--out", "walk.webp")
    return 1 if failed else 0
