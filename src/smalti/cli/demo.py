"""`smalti demo`: a VQ-VAE and a GAN trained on the embedded emoji, and a report of what they learned."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from smalti._version import __version__
from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.options import Cache, Flag, OutPath
from smalti.cli.progress import TerminalReporter
from smalti.errors import OutputError
from smalti.files import output_errors, write_atomically

if TYPE_CHECKING:
    from smalti.config.run import RunConfig
    from smalti.data import PackedImages
    from smalti.training.loop import Result

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


@app.command(
    help_epilogue=examples(
        "smalti demo",
        "smalti demo --budget 30m --out long-demo",
    )
)
def demo(
    *,
    out: OutPath = Path("demo"),
    budget: str = "230s",
    seed: int = 0,
    cache: Cache = None,
    overwrite: Flag = False,
) -> int:
    """Train a VQ-VAE and a GAN on the emoji that come with smalti, and write a report: under 5 minutes on 2 cores.

    The same command again resumes a demo that was stopped, and leaves a finished one as it is.

    Parameters
    ----------
    out:
        Folder for both runs, the pictures and report.html.
    budget:
        Time for the two trainings together: 90s, 10m, 1h.
    seed:
        Seed of all random numbers.
    overwrite:
        Make the demo again, over the one in the folder.
    """
    from smalti import data
    from smalti.cli.demo_report import write_report
    from smalti.config.units import parse_duration

    seconds = parse_duration(budget)
    if _prepare(out, overwrite):
        console.note(f"this demo has been made: open {out / 'report.html'}, or give --overwrite to make it again")
        return 0
    started = time.monotonic()
    images = data.load("emoji", split="train", channels=3, cache=cache)
    held_out = data.load("emoji", split="test", channels=3, cache=cache)
    results: dict[str, Result] = {}
    for name, share in (("vqvae", VQVAE_SHARE), ("gan", 1 - VQVAE_SHARE)):
        results[name] = _train(name, images, held_out, out / name, seed=seed, seconds=share * seconds)
        if results[name].reason == "stopped":
            console.note(f"stopped and saved in {out / name}; give the same command again to go on")
            return 128 + results[name].signal
    write_report(out, results, images, held_out, started)
    console.note(f"done in {time.monotonic() - started:.0f} s: open {out / 'report.html'}")
    console.suggest("generate", out / "gan", "--seed", 1, "--out", "grid.png")
    return 0


def _train(name: str, images: PackedImages, held_out: PackedImages, out: Path, *, seed: int, seconds: float) -> Result:
    """Train one of the two for so many seconds."""
    from smalti.training.loop import train

    config = _configure(name, seed)
    _, height, width = images.shape
    console.note(f"training {name} for {seconds:.0f} s on {len(images):,} emoji of {height}x{width} pixels")
    reporter = TerminalReporter(config.kind.load_recipe().headline, budget_seconds=seconds)
    return train(
        config, images, out, held_out=held_out, budget_seconds=seconds, reporter=reporter, license="Apache-2.0"
    )


def _configure(name: str, seed: int) -> RunConfig:
    from smalti.config.parse import override
    from smalti.config.presets import preset
    from smalti.config.run import ENDLESS

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
    import json
    import shutil

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
