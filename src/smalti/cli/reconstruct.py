"""`smalti reconstruct` and `info`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.cli import console
from smalti.cli.batch_images import Job, process_images
from smalti.config.parse import paths, to_plain
from smalti.config.units import parse_size
from smalti.data import images as decoding
from smalti.errors import CheckpointError
from smalti.metrics.distortion import psnr_db, squared_error_uint8
from smalti.pipelines import base as api
from smalti.report.pictures import side_by_side, write_png

LISTED = 20  # classes that `info` names


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

    def work(job: Job) -> tuple[tuple[str, str, str], float, int]:
        file, (result, pair) = job.image, job.outputs
        before = decoding.decode(file, channels=channels, size=wanted, resize=resize)
        after = model.reconstruct(before[None], effort=effort)[0]
        write_png(result, after, model.provenance(source=file.name))
        write_png(pair, side_by_side(before[None], after[None]), model.provenance(source=file.name))
        error, values = squared_error_uint8(before, after)
        height, width = before.shape[:2]
        return (str(file), f"{height}x{width}", _decibels(psnr_db(error, values))), error, values

    results, failed = process_images(images, out, overwrite, (".png", ".pair.png"), "reconstructed", work)
    rows, errors, counts = zip(*results, strict=True)
    console.table(("image", "size", "PSNR dB"), rows)
    pooled = _decibels(psnr_db(sum(errors), sum(counts)))
    console.say(f"{len(rows)} images, pooled PSNR {pooled} dB ([0, 1] range); pictures in {out}")
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
        **({} if card.tokenizer is None else {"tokenizer": card.tokenizer.digest}),
    }
    try:
        if as_json:
            print(_json(about | {"config": to_plain(card.config)}, indent=2))
            return 0
        console.facts({name: _plain(value) for name, value in about.items()})
    except RecursionError:
        raise CheckpointError(f"{file}: its card is nested too deeply to print; it was changed or damaged") from None
    console.say()
    console.facts(paths(card.config))
    if path.is_dir():
        saved = [record for record in RunFolder(path).records() if isinstance(record, dict) and "event" in record]
        console.say()
        console.say(f"log: {len(saved)} events, the last one {_json(saved[-1])}" if saved else "log: empty")
    return 0


def _json(value: Any, *, indent: int | None = None) -> str:
    """JSON for any reader: NaN and infinity, which JSON has no words for, become null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=indent, allow_nan=False)


def _decibels(value: float) -> str:
    return "exact" if math.isinf(value) else f"{value:.2f}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        more = f" and {len(value) - LISTED} more, which --json lists" if len(value) > LISTED else ""
        return ", ".join(map(str, value[:LISTED])) + more or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
