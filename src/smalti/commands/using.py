"""`smalti generate`, `reconstruct` and `info`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from smalti import api, checkpoint, shell
from smalti.config import parse_size, paths, to_plain
from smalti.data import images as decoding
from smalti.data.pictures import side_by_side, write_png
from smalti.data.sources import IMAGE_EXTENSIONS
from smalti.errors import ConfigError, DataError
from smalti.evaluate.distortion import psnr_db, squared_error_uint8
from smalti.machine import Machine
from smalti.runfolder import RunFolder

COUNT_LIMIT = 10_000_000
GRID_LIMIT = 10_000  # images in one picture
CHUNK = 256  # images drawn before they are written


def run_generate(
    path: Path, out: Path, count: int, label: str | None, seed: int, columns: int | None, device: str, overwrite: bool
) -> int:
    """Draw images into one grid or one file each."""
    as_grid = out.suffix.lower() == ".png"
    limit = GRID_LIMIT if as_grid else COUNT_LIMIT
    if not 1 <= count <= limit:
        raise ConfigError(f"--count is {count}, but must be from 1 to {limit}" + (" in one grid" if as_grid else ""))
    if columns is not None and columns < 1:
        raise ConfigError(f"--columns is {columns}, but must be 1 or more")
    model = api.load(path, device=check_device(device))
    if as_grid:
        shell.free_to_write(out, overwrite)
        text = model.provenance(seed=seed, count=count, label=label)
        api.save_grid(model.generate(count, seed=seed, label=label), out, columns=columns, text=text)
        shell.note(f"{count} images, seed {seed}: {out}")
        return 0
    files = [out / f"{number:06d}.png" for number in range(count)]
    for file in files:
        shell.free_to_write(file, overwrite)
    for start in range(0, count, CHUNK):
        pictures = model.generate(min(CHUNK, count - start), seed=seed, label=label, first=start)
        for number, picture in enumerate(pictures, start):
            write_png(files[number], picture, model.provenance(seed=seed, image=number, label=label))
    shell.note(f"{count} images, seed {seed}: {out}/")
    return 0


def run_reconstruct(
    path: Path, images: Iterable[Path], out: Path, size: str | None, resize: str, device: str, overwrite: bool
) -> int:
    """Reconstruct each image; a bad one is reported and the rest goes on. Exit code 1 when any was bad."""
    wanted = parse_size(size) if size is not None else None
    model = api.load(path, device=check_device(device))
    channels = model.card.image[0]
    if out.is_file():
        raise ConfigError(f"{out} is a file; give --out a folder")
    total, values, rows, failed = 0.0, 0, [], 0
    taken: set[str] = set()
    for file in _files(images):
        try:
            before = decoding.decode(file, channels=channels, size=wanted, resize=resize)
            name = _free_name(file, taken)
            targets = (out / f"{name}.png", out / f"{name}.pair.png")
            for target in targets:
                shell.free_to_write(target, overwrite)
            after = model.reconstruct(before[None])[0]
            write_png(targets[0], after, model.provenance(source=file.name))
            write_png(targets[1], side_by_side(before[None], after[None]), model.provenance(source=file.name))
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
    print(f"{len(rows)} images, pooled PSNR {_decibels(psnr_db(total, values))} dB ([0, 1] range); pictures in {out}")
    return 1 if failed else 0


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
    if as_json:
        print(json.dumps(about | {"config": to_plain(card.config)}, indent=2))
        return 0
    shell.facts({name: _plain(value) for name, value in about.items()})
    print()
    shell.facts(paths(card.config))
    if path.is_dir():
        saved = [record for record in RunFolder(path).records() if "event" in record]
        print(f"\nlog: {len(saved)} events, the last one {json.dumps(saved[-1])}" if saved else "\nlog: empty")
    return 0


def check_device(name: str) -> str:
    """The device's name, once something could be put on it.

    Raises:
        ConfigError: it is not there.
    """
    return str(Machine(device=name).resolve()[0])


def _files(places: Iterable[Path]) -> Iterator[Path]:
    """Each file named, and each image file in each folder named, in order."""
    places = tuple(places)
    if not places:
        raise ConfigError("no images were named; give image files or folders after the model")
    for place in places:
        if place.is_dir():
            found = sorted(p for p in place.rglob("*") if p.is_file() and p.suffix[1:].lower() in IMAGE_EXTENSIONS)
            if not found:
                shell.complain(f"{place} holds no image files")
            yield from found
        else:
            yield place


def _free_name(file: Path, taken: set[str]) -> str:
    """The file's stem, with a number when another folder's file had it already."""
    name, number = file.stem, 2
    while name in taken:
        name, number = f"{file.stem}-{number}", number + 1
    taken.add(name)
    return name


def _decibels(value: float) -> str:
    return "exact" if math.isinf(value) else f"{value:.2f}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
