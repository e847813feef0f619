"""`smalti demo`: train a VQ-VAE and a GAN on the embedded emoji, and write down what they learned.

Everything in report.html was measured by this run: nothing is written that was not computed here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smalti import data
from smalti._version import __version__
from smalti.checkpoint.file import Card
from smalti.checkpoint.run_dir import RunFolder
from smalti.cli import console
from smalti.cli.progress import TerminalReporter
from smalti.config.autoencoder import TransformConfig
from smalti.config.gan import GANConfig
from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.config.run import ENDLESS, RunConfig
from smalti.config.units import parse_duration
from smalti.config.vqvae import VQVAEConfig
from smalti.data import PackedImages
from smalti.errors import OutputError
from smalti.files import output_errors, write_atomically
from smalti.metrics.distortion import psnr_db, squared_error_uint8
from smalti.pipelines import base as api
from smalti.recipes import RECIPES
from smalti.report.html import Report
from smalti.report.pictures import enlarge, grid, side_by_side, write_png
from smalti.training.loop import Result, train

# Of the time for both trainings: the GAN needs more images before there is something to see.
VQVAE_SHARE = 0.3
# The preset of each folder, and how it is changed: in minutes a VQ-VAE learns more from many steps than from wide ones.
MEMBERS = {
    "vqvae": ("vqvae-best", ["model.autoencoder.width=48"]),
    "gan": ("gan-nano", []),
}
# A folder is a demo's when it holds this file; without it, what is in there belongs to somebody else.
MARKER = "demo.json"
MADE = (MARKER, "vqvae", "gan", "report.html", "samples.png", "reconstructions.png")
SHOWN = 40


def run_demo(out: Path, budget: str, seed: int, cache: Path | None, overwrite: bool) -> int:
    """Train both presets, generate, reconstruct held-out images, write `out`/report.html; returns the exit code."""
    seconds = parse_duration(budget)
    if _prepare(out, overwrite):
        console.note(f"this demo has been made: open {out / 'report.html'}, or give --overwrite to make it again")
        return 0
    started = time.monotonic()
    images = data.load("emoji", split="train", channels=3, cache=cache)
    held_out = data.load("emoji", split="test", channels=3, cache=cache)
    results: dict[str, Result] = {}
    for name, share in (("vqvae", VQVAE_SHARE), ("gan", 1 - VQVAE_SHARE)):
        config = _configure(name, seed)
        _, height, width = images.shape
        console.note(f"training {name} for {share * seconds:.0f} s on {len(images):,} emoji of {height}x{width} pixels")
        reporter = TerminalReporter(RECIPES[config.recipe].headline, budget_seconds=share * seconds)
        results[name] = train(
            config, images, out / name, held_out=held_out, budget_seconds=share * seconds, reporter=reporter,
            license="Apache-2.0",
        )  # fmt: skip
        if results[name].reason == "stopped":
            console.note(f"stopped and saved in {out / name}; give the same command again to go on")
            return 128 + results[name].signal
    write_report(out, results, images, held_out, started)
    console.note(f"done in {time.monotonic() - started:.0f} s: open {out / 'report.html'}")
    console.suggest("generate", out / "gan", "--seed", 1, "--out", "grid.png")
    return 0


def _configure(name: str, seed: int) -> RunConfig:
    name, changes = MEMBERS[name]
    config = override(preset(name), ["data.source=emoji", "data.split=train", "data.channels=3", *changes])
    loop = dataclasses.replace(
        config.train, images=ENDLESS, seed=seed, log_every=640, preview_every=20_000, save_every=20_000,
        ema_half_life=5_000,
    )  # fmt: skip
    return dataclasses.replace(config, train=loop)


def _prepare(out: Path, overwrite: bool) -> bool:
    """Make room for a demo, touching nothing but what a demo made; returns whether a whole one is there already.

    Raises:
        OutputError: something else is there, or the folder cannot be read or written.
    """
    with output_errors(out):
        if out.exists() and not out.is_dir():
            raise OutputError(f"{out} is a file; give --out a folder")
        out.mkdir(parents=True, exist_ok=True)
        present = {item.name for item in out.iterdir()}
        leftovers = {name for name in present if _is_leftover(name)}
        if present - leftovers - set(MADE) or (MARKER not in present and present - leftovers):
            raise OutputError(f"the folder {out} holds other files than a demo's; give --out a new or an empty folder")
        if "report.html" in present and not overwrite:
            return True
        for name in present - {MARKER} if overwrite else leftovers:
            target = out / name
            shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()
    if MARKER not in present:
        text = json.dumps({"made_by": f"smalti demo {__version__}"}) + "\n"
        write_atomically(out / MARKER, lambda file: file.write(text.encode()))
    return False


def _is_leftover(name: str) -> bool:
    """Whether a demo that was killed while it wrote one of its files left this."""
    return name.endswith(".tmp") and name.startswith(tuple(f".{made}." for made in MADE))


def write_report(
    out: Path, results: dict[str, Result], images: PackedImages, held_out: PackedImages, started: float
) -> None:
    """Measure both models and write pictures and the report."""
    autoencoder, generator = api.load(out / "vqvae"), api.load(out / "gan")
    originals = held_out.pixels(range(len(held_out)))
    codes = autoencoder.encode(originals)
    after = autoencoder.decode(codes)
    error, values = squared_error_uint8(originals, after)
    books, codebook_sizes = len(autoencoder.codebook_sizes), autoencoder.codebook_sizes[0]
    records = RunFolder(out / "vqvae").records()
    used = next((record["perplexity"] for record in reversed(records) if "perplexity" in record), math.nan)
    picked = np.linspace(0, len(originals) - 1, SHOWN).round().astype(int)
    pairs = side_by_side(originals[picked], after[picked], columns=10)
    samples = grid(generator.generate(64, seed=0), columns=16)
    for name, sheet, model in (("reconstructions", pairs, autoencoder), ("samples", samples, generator)):
        write_png(out / f"{name}.png", enlarge(sheet[None], 2)[0], model.provenance(seed=0))

    page = Report("smalti demo", "A VQ-VAE and a GAN, trained on the emoji that come with the package")
    page.facts(
        {
            "VQ-VAE, held-out emoji": f"{psnr_db(error, values):.2f} dB PSNR",
            "VQ-VAE, emoji in training": f"{used:.0f} of {codebook_sizes} codes of each book in even use",
            "GAN, held-out emoji": f"{results['gan'].score['value']:.1f} Frechet distance, features of smalti-vit",
            "images seen": f"VQ-VAE {results['vqvae'].images_seen:,}, GAN {results['gan'].images_seen:,}",
            "time": f"{results['vqvae'].seconds:.0f} s and {results['gan'].seconds:.0f} s in the loops, "
            f"{time.monotonic() - started:.0f} s in all",
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, smalti {__version__}",
        }
    )
    page.heading("What the VQ-VAE learned")
    cells = codes[0].size
    page.paragraph(
        f"Each {originals.shape[1]}x{originals.shape[2]} picture becomes {cells} codes from {books} books of "
        f"{codebook_sizes}: {math.ceil(cells * math.log2(codebook_sizes))} bits. "
        "Below, pictures that were never trained on (above) and what comes back from their codes (below). "
        "The split keeps all skin-tone and gender variants of an emoji on one side."
    )
    page.picture(enlarge(pairs[None], 2)[0], "Held-out emoji: original above, reconstruction below.")
    _curves(page, records, {"PSNR of training batches": "psnr"}, "PSNR, dB")
    _curves(page, records, {"perplexity of training images": "perplexity"}, "codes")
    page.heading("What the GAN learned")
    page.paragraph("Pictures nobody drew, from the averaged weights, not selected: the first 64 of seed 0.")
    page.picture(enlarge(samples[None], 2)[0], "64 samples, seed 0.")
    records = RunFolder(out / "gan").records()
    _curves(page, records, {"generator": "generator", "discriminator": "discriminator"}, "loss")
    page.heading("How this was measured")
    page.table(["figure", "how"], _methods(results, images, held_out, autoencoder.card, generator.card))
    page.paragraph("Pictures derived from Noto Emoji, copyright Google LLC and the Noto Emoji authors, Apache-2.0.")
    page.write(out / "report.html")


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
