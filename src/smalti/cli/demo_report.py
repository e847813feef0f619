"""The report of `smalti demo`: what both models do, measured and shown.

Everything in report.html was measured by this run: nothing is written that was not computed here.
"""

from __future__ import annotations

import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smalti._version import __version__
from smalti.checkpoint.file import Card
from smalti.checkpoint.run_dir import RunFolder
from smalti.config.autoencoder import TransformConfig
from smalti.config.gan import GANConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.data import PackedImages
from smalti.data.order import evenly_spread
from smalti.metrics.distortion import psnr_db, squared_error_uint8
from smalti.pipelines.autoencoder import Autoencoder
from smalti.pipelines.base import load_as
from smalti.pipelines.gan import GAN
from smalti.report.html import Report
from smalti.report.pictures import enlarge, grid, side_by_side, write_png
from smalti.training.loop import Result

SHOWN = 40  # held-out images


def write_report(
    out: Path, results: dict[str, Result], images: PackedImages, held_out: PackedImages, started: float
) -> None:
    """Measure both models and write pictures and the report.

    Args:
        out: folder of the demo, with the runs `vqvae` and `gan`.
        results: of the two trainings, by these names.
        started: when the demo was, by time.monotonic().
    """
    autoencoder, generator = load_as(out / "vqvae", Autoencoder), load_as(out / "gan", GAN)
    originals = held_out.pixels(range(len(held_out)))
    codes = autoencoder.encode(originals)
    after = autoencoder.decode(codes)
    decibels = psnr_db(*squared_error_uint8(originals, after))
    picked = evenly_spread(len(originals), SHOWN)
    pairs = side_by_side(originals[picked], after[picked], columns=10)
    samples = grid(generator.generate(64, seed=0), columns=16)
    for name, sheet, model in (("reconstructions", pairs, autoencoder), ("samples", samples, generator)):
        write_png(out / f"{name}.png", enlarge(sheet[None], 2)[0], model.provenance(seed=0))

    page = Report("smalti demo", "A VQ-VAE and a GAN, trained on the emoji that come with the package")
    records = RunFolder(out / "vqvae").records()
    page.facts(_facts(results, decibels, records, autoencoder.codebook_sizes[0], started))
    _show_autoencoder(page, autoencoder, originals.shape[1:3], codes[0].size, pairs, records)
    _show_generator(page, samples, RunFolder(out / "gan").records())
    page.heading("How this was measured")
    page.table(["figure", "how"], _methods(results, images, held_out, autoencoder.card, generator.card))
    page.paragraph("Pictures derived from Noto Emoji, copyright Google LLC and the Noto Emoji authors, Apache-2.0.")
    page.write(out / "report.html")


def _facts(
    results: dict[str, Result], decibels: float, records: list[dict[str, Any]], codebook_size: int, started: float
) -> dict[str, str]:
    """The figures at the top of the page."""
    used = next((record["perplexity"] for record in reversed(records) if "perplexity" in record), math.nan)
    vqvae, gan = results["vqvae"], results["gan"]
    return {
        "VQ-VAE, held-out emoji": f"{decibels:.2f} dB PSNR",
        "VQ-VAE, emoji in training": f"{used:.0f} of {codebook_size} codes of each book in even use",
        "GAN, held-out emoji": f"{gan.score['value']:.1f} Frechet distance, features of smalti-vit",
        "images seen": f"VQ-VAE {vqvae.images_seen:,}, GAN {gan.images_seen:,}",
        "time": f"{vqvae.seconds:.0f} s and {gan.seconds:.0f} s in the loops, "
        f"{time.monotonic() - started:.0f} s in all",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, smalti {__version__}",
    }


def _show_autoencoder(
    page: Report,
    model: Autoencoder,
    size: tuple[int, ...],
    cells: int,
    pairs: np.ndarray,
    records: list[dict[str, Any]],
) -> None:
    """The section on the VQ-VAE: pairs of pictures, and how it learned."""
    books, codebook_size = len(model.codebook_sizes), model.codebook_sizes[0]
    page.heading("What the VQ-VAE learned")
    page.paragraph(
        f"Each {size[0]}x{size[1]} picture becomes {cells} codes from {books} books of "
        f"{codebook_size}: {math.ceil(cells * math.log2(codebook_size))} bits. "
        "Below, pictures that were never trained on (above) and what comes back from their codes (below). "
        "The split keeps all skin-tone and gender variants of an emoji on one side."
    )
    page.picture(enlarge(pairs[None], 2)[0], "Held-out emoji: original above, reconstruction below.")
    _curves(page, records, {"PSNR of training batches": "psnr"}, "PSNR, dB")
    _curves(page, records, {"perplexity of training images": "perplexity"}, "codes")


def _show_generator(page: Report, samples: np.ndarray, records: list[dict[str, Any]]) -> None:
    """The section on the GAN: samples, and how it learned."""
    page.heading("What the GAN learned")
    page.paragraph("Pictures nobody drew, from the averaged weights, not selected: the first 64 of seed 0.")
    page.picture(enlarge(samples[None], 2)[0], "64 samples, seed 0.")
    _curves(page, records, {"generator": "generator", "discriminator": "discriminator"}, "loss")


def _methods(
    results: dict[str, Result], images: PackedImages, held_out: PackedImages, autoencoder: Card, generator: Card
) -> list[list[str]]:
    """How each figure of the report came about."""
    compared = results["gan"].score["images"]
    vqvae, gan = autoencoder.config, generator.config
    assert isinstance(vqvae.model, VQVAEConfig)
    assert isinstance(vqvae.model.autoencoder, TransformConfig)
    assert isinstance(gan.model, GANConfig)
    return [
        ["PSNR", f"all {len(held_out)} held-out emoji over white, error pooled over all pixels, [0, 1] range"],
        [
            "codes in even use",
            "perplexity: exp of the entropy of the last training images' codes, mean of the books",
        ],
        [
            "Frechet distance",
            f"features of smalti-vit, which was trained on photographs, of {compared} samples and {compared} held-out "
            "emoji; with so few it says only which of two trainings is better, and the GAN learned through these "
            "features too",
        ],
        ["training data", f"{len(images):,} emoji, fingerprint {images.fingerprint[:16]}"],
        [
            "VQ-VAE",
            f"preset {vqvae.preset} with network width {vqvae.model.autoencoder.width}: more steps in the little time",
        ],
        [
            "GAN",
            f"preset {gan.preset}: relativistic pairs of pixels and of features of smalti-vit, R1 and R2 "
            f"(gamma {gan.model.penalty.gamma}), {gan.train.batch} images a step",
        ],
        ["models", f"VQ-VAE {autoencoder.digest[:16]}, GAN {generator.digest[:16]}"],
    ]


def _curves(page: Report, records: list[dict[str, Any]], terms: dict[str, str], label: str) -> None:
    series = {}
    for name, term in terms.items():
        rows = [record for record in records if term in record]
        series[name] = ([row["images_seen"] for row in rows], [row[term] for row in rows])
    page.lines(", ".join(terms), series, x_label="images seen", y_label=label)
