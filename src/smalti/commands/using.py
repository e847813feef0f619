"""`smalti generate`, `reconstruct` and `info`."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smalti import api, checkpoint, shell
from smalti.config import paths, to_plain
from smalti.data import images as decoding
from smalti.data.pictures import side_by_side, write_png
from smalti.data.sources import IMAGE_EXTENSIONS
from smalti.errors import CheckpointError, ConfigError, DataError, OutputError
from smalti.evaluate.distortion import psnr_db, squared_error_uint8
from smalti.files import output_errors
from smalti.runfolder import RunFolder
from smalti.units import parse_size

COUNT_LIMIT = 10_000_000
GRID_LIMIT = 10_000  # images in one picture
CHUNK = 256  # images drawn before they are written
NUMBERED = re.compile(r"[0-9]{6,}\.png")


def run_generate(
    path: Path, out: Path, count: int, label: str | None, seed: int, columns: int | None, device: str, overwrite: bool
) -> int:
    """Draw images into one grid or one file each."""
    extension = out.suffix[1:].lower()
    as_grid = extension == "png"
    if extension in IMAGE_EXTENSIONS and not as_grid:
        raise ConfigError(
            f"--out is {out}, but pictures are written as PNG; give a name that ends in .png, or a folder"
        )
    limit = GRID_LIMIT if as_grid else COUNT_LIMIT
    if not 1 <= count <= limit:
        raise ConfigError(f"--count is {count}, but must be from 1 to {limit}" + (" in one grid" if as_grid else ""))
    if columns is not None and columns < 1:
        raise ConfigError(f"--columns is {columns}, but must be 1 or more")
    model = api.load(path, device=device)
    if as_grid:
        shell.free_to_write(out, overwrite)
        text = model.provenance(seed=seed, count=count, label=label)
        api.save_grid(model.generate(count, seed=seed, label=label), out, columns=columns, text=text)
        shell.note(f"{count} images, seed {seed}: {out}")
        return 0
    if not overwrite:
        _refuse_numbered(out)
    for start in range(0, count, CHUNK):
        pictures = model.generate(min(CHUNK, count - start), seed=seed, label=label, first=start)
        for number, picture in enumerate(pictures, start):
            text = model.provenance(seed=seed, image=number, label=label)
            write_png(out / f"{number:06d}.png", picture, text)
    shell.note(f"{count} images, seed {seed}: {out}/")
    return 0


def _refuse_numbered(folder: Path) -> None:
    with output_errors(folder):
        there = os.listdir(folder) if folder.exists() else []
    name = next(filter(NUMBERED.fullmatch, there), None)
    if name is not None:
        raise OutputError(
            f"{folder} holds numbered pictures already ({name}); give another --out, or --overwrite to replace them"
        )


def run_reconstruct(
    path: Path,
    images: Iterable[Path],
    out: Path,
    size: str | None,
    resize: str,
    effort: int,
    device: str,
    overwrite: bool,
) -> int:
    """Reconstruct each image; a bad one is reported and the rest goes on. Exit code 1 when any was bad."""
    wanted = parse_size(size) if size is not None else None
    api.check_effort(effort)
    model = api.load(path, device=device)
    channels = model.card.image[0]
    if os.path.isfile(out):
        raise ConfigError(f"{out} is a file; give --out a folder")
    total, values, rows, failed = 0.0, 0, [], 0
    for job in _plan(list(_files(images)), out, overwrite):
        file = job.image
        try:
            before = decoding.decode(file, channels=channels, size=wanted, resize=resize)
            after = model.reconstruct(before[None], effort=effort)[0]
            write_png(job.result, after, model.provenance(source=file.name))
            write_png(job.pair, side_by_side(before[None], after[None]), model.provenance(source=file.name))
        except (DataError, ConfigError) as error:
            failed += 1
            shell.complain(f"{file} was left out: {error}")
            continue
        error_sum, count = squared_error_uint8(before, after)
        total, values = total + error_sum, values + count
        height, width = before.shape[:2]
        rows.append((str(file), f"{height}x{width}", _decibels(psnr_db(error_sum, count))))
    if not rows:
        raise DataError("no image could be reconstructed; the lines above say why")
    shell.table(("image", "size", "PSNR dB"), rows)
    pooled = _decibels(psnr_db(total, values))
    shell.say(f"{len(rows)} images, pooled PSNR {pooled} dB ([0, 1] range); pictures in {out}")
    return 1 if failed else 0


@dataclass(frozen=True)
class _Job:
    """An image and the two files that come of it."""

    image: Path
    result: Path
    pair: Path


def _plan(images: Sequence[Path], out: Path, overwrite: bool) -> list[_Job]:
    """Two names for each image, all of them checked before the first image is read.

    A name that another image has taken gets a number: x.png, x-2.png.

    Raises:
        OutputError: a file is there already, or is one of the images themselves.
    """
    inputs = {identity: image for image in images if (identity := _identity(image)) is not None}
    taken: set[str] = set()
    jobs = []
    for image in images:
        name, number = image.stem, 2
        while taken & _outputs(name):
            name, number = f"{image.stem}-{number}", number + 1
        taken |= _outputs(name)
        job = _Job(image, out / f"{name}.png", out / f"{name}.pair.png")
        for target in (job.result, job.pair):
            there = _identity(target)
            if there is not None and there in inputs:
                raise OutputError(f"{target} would replace {inputs[there]}, one of the images; give another --out")
            shell.free_to_write(target, overwrite)
        jobs.append(job)
    return jobs


def _outputs(name: str) -> set[str]:
    """The files of a name, as a file system compares names that does not know capitals."""
    return {f"{name}.png".casefold(), f"{name}.pair.png".casefold()}


def _identity(path: Path) -> tuple[int, int] | None:
    """The file behind a name, whatever links lead there; None for a file that is not there or cannot be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def run_info(path: Path, as_json: bool) -> int:
    """Print a checkpoint's card, its settings and its tensors' totals."""
    file = api.find_checkpoint(path)
    module, card = checkpoint.read(file)
    parameters = sum(p.numel() for p in module.parameters())
    about: dict[str, Any] = {
        "file": str(file),
        "kind": card.kind,
        "preset": card.config.preset,
        "image": "x".join(map(str, card.image)) + " (channels x height x width)",
        "images_seen": card.images_seen,
        "parameters": parameters,
        "size_bytes": file.stat().st_size,
        "data": dict(card.data),
        "classes": list(card.classes),
        "score": dict(card.score),
        "license": card.license,
        "smalti": card.version,
        "digest": card.digest,
    }
    try:
        if as_json:
            print(_json(about | {"config": to_plain(card.config)}, indent=2))
            return 0
        shell.facts({name: _plain(value) for name, value in about.items()})
    except RecursionError:
        raise CheckpointError(f"{file}: its card is nested too deeply to print; it was changed or damaged") from None
    shell.say()
    shell.facts(paths(card.config))
    if path.is_dir():
        saved = [record for record in RunFolder(path).records() if isinstance(record, dict) and "event" in record]
        shell.say()
        shell.say(f"log: {len(saved)} events, the last one {_json(saved[-1])}" if saved else "log: empty")
    return 0


def _json(value: Any, *, indent: int | None = None) -> str:
    """JSON for any reader: NaN and infinity, which JSON has no words for, become null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=indent, allow_nan=False)


def _files(places: Iterable[Path]) -> Iterator[Path]:
    """Each file named, and each image file in each folder named, in order."""
    places = tuple(places)
    if not places:
        raise ConfigError("no images were named; give image files or folders after the model")
    for place in places:
        if os.path.isdir(place):
            found = sorted(
                p for p in place.rglob("*") if p.suffix[1:].lower() in IMAGE_EXTENSIONS and os.path.isfile(p)
            )
            if not found:
                shell.complain(f"{place} holds no image files")
            yield from found
        else:
            yield place


def _decibels(value: float) -> str:
    return "exact" if math.isinf(value) else f"{value:.2f}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
