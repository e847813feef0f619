"""`smalti reconstruct`: images through a trained VQ-VAE and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.batch_images import Job, process_images
from smalti.cli.options import Device, ModelPath, OutPath, Overwrite, Resize, SizeFirst

_RESIZE = "With --size: cover fills and crops the middle, contain fits and pads, stretch distorts."


@app.command(
    help_epilogue=examples(
        "smalti reconstruct runs/photos cat.jpg dog.png --out seen/",
        "smalti reconstruct runs/photos holiday/ --size 64 --out seen/ --effort 16",
    )
)
def reconstruct(
    model: ModelPath,
    images: Annotated[tuple[Path, ...], Parameter(negative=())],
    /,
    *,
    out: OutPath,
    size: SizeFirst = None,
    resize: Annotated[Resize, Parameter(help=_RESIZE)] = "cover",
    effort: int = 0,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> int:
    """Send images through a trained VQ-VAE: the result, a before-and-after pair, and the PSNR of each.

    Parameters
    ----------
    images:
        Image files, or folders of them (searched to any depth).
    out:
        Folder for NAME.png (the reconstruction) and NAME.pair.png (before above, after below).
    effort:
        Rounds of searching for better codes after encoding: 16 gain some tenths of a dB, at the cost of time.
    """
    from smalti.config.units import parse_size
    from smalti.data import images as decoding
    from smalti.metrics.distortion import psnr_db, squared_error_uint8
    from smalti.pipelines.autoencoder import Autoencoder, check_effort
    from smalti.pipelines.base import load_as
    from smalti.report.pictures import side_by_side, write_png

    wanted = parse_size(size) if size is not None else None
    check_effort(effort)
    autoencoder = load_as(model, Autoencoder, device=device)

    def work(job: Job) -> tuple[tuple[str, str, str], float, int]:
        before = decoding.decode(job.image, channels=autoencoder.card.image.channels, size=wanted, resize=resize)
        after = autoencoder.reconstruct(before[None], effort=effort)[0]
        text, (result, pair) = autoencoder.provenance(source=job.image.name), job.outputs
        write_png(result, after, text)
        write_png(pair, side_by_side(before[None], after[None]), text)
        error, values = squared_error_uint8(before, after)
        row = (str(job.image), f"{before.shape[0]}x{before.shape[1]}", _decibels(psnr_db(error, values)))
        return row, error, values

    # A bad image is reported and the rest goes on.
    results, failed = process_images(images, out, overwrite, (".png", ".pair.png"), "reconstructed", work)
    rows, errors, counts = zip(*results, strict=True)
    console.table(("image", "size", "PSNR dB"), rows)
    pooled = _decibels(psnr_db(sum(errors), sum(counts)))
    console.say(f"{len(rows)} images, pooled PSNR {pooled} dB ([0, 1] range); pictures in {out}")
    return 1 if failed else 0


def _decibels(value: float) -> str:
    return "exact" if math.isinf(value) else f"{value:.2f}"
