"""Kill a training with SIGKILL at random moments; its final weights must be those of one that ran through.

    python bench/exact_resume.py --kills 20

Trains a small preset twice on the embedded emoji: once undisturbed, once killed and started again. Every kill is
followed by a check that each checkpoint on disk can be read. Prints a table, writes results/exact_resume.json,
and exits with 1 when a digest differs or a checkpoint cannot be read.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.pipelines import base as api

SAVE_EVERY = 320  # images
SMALL = {
    "vqvae": [
        "model.autoencoder.width=16",
        "model.autoencoder.residual_width=8",
        "model.quantizer.codes=32",
        "model.quantizer.dimension=8",
    ],
    "vqvae-best": [
        "model.autoencoder.width=16",
        "model.autoencoder.encoder_blocks=1",
        "model.autoencoder.decoder_blocks=1",
        "model.quantizer.groups=8",
        "model.quantizer.layer.codes=32",
        "model.quantizer.layer.dimension=4",
    ],
    # Small, with all that a GAN remembers beside its weights: an adaptive probability, running means, a watch.
    "gan-nano": [
        "model.network.width=16",
        "model.network.generator_width=16",
        "model.latent=16",
        "model.augmentation.mode=adaptive",
        "model.penalty.lecam=0.1",
    ],
    "dcgan": ["model.network.generator_width=16", "model.network.discriminator_width=8", "model.latent=16"],
}


def command(preset: str, out: Path, images: int, cache: Path) -> list[str]:
    settings = [*SMALL[preset], f"train.save_every={SAVE_EVERY}", "train.log_every=160", "train.preview_every=960"]
    words = [
        sys.executable,
        "-m",
        "smalti",
        "train",
        preset,
        "--data",
        "emoji",
        "--images",
        str(images),
        "--batch",
        "16",
    ]
    words += ["--out", str(out), "--cache", str(cache), "--quiet"]
    return words + [word for setting in settings for word in ("--set", setting)]


def kill_at(process: subprocess.Popen[bytes], folder: RunFolder, target: int, delay: float) -> int | None:
    """SIGKILL a moment after the log reaches `target` images; returns the images logged by then, None if it ended."""
    while process.poll() is None and logged(folder) < target:
        time.sleep(0.005)
    time.sleep(delay)
    if process.poll() is not None:
        return None
    process.kill()
    process.wait()
    return logged(folder)


def logged(folder: RunFolder) -> int:
    return max((record["images_seen"] for record in folder.records()), default=-1)


def checkpoints_are_readable(folder: RunFolder) -> bool:
    for path in (folder.last, folder.best):
        if path.exists():
            api.load(path)
    if folder.state.exists():
        checkpoint.load_state(folder.state, "cpu")
    return True


def run(preset: str, kills: int, images: int, seed: int, work: Path) -> dict[str, object]:
    chance, cache = random.Random(seed), work / "cache"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole = RunFolder(work / f"{preset}-whole")
    start = time.monotonic()
    subprocess.run(command(preset, whole.path, images, cache), check=True, env=environment)
    # Places spread over the run, the first of them before anything was logged; then up to a save later.
    seconds = max(record.get("seconds", 0.0) for record in whole.records())
    targets = sorted([-1, *(chance.randrange(images - 2 * SAVE_EVERY) for _ in range(kills - 1))])
    broken = RunFolder(work / f"{preset}-broken")
    places: list[int] = []
    for target in targets:
        process = subprocess.Popen(command(preset, broken.path, images, cache), env=environment)
        place = kill_at(process, broken, target, chance.uniform(0, seconds * SAVE_EVERY / images))
        if place is None:
            raise SystemExit(f"{preset} ended with code {process.returncode} before kill {len(places) + 1} of {kills}")
        places.append(place)
        checkpoints_are_readable(broken)
    subprocess.run(command(preset, broken.path, images, cache), check=True, env=environment)
    digests = [checkpoint.read_card(folder.last).digest for folder in (whole, broken)]
    best = [checkpoint.read_card(folder.best).digest for folder in (whole, broken)]
    return {
        "preset": preset,
        "images": images,
        "kills": len(places),
        "killed_at_images": places,
        "equal": digests[0] == digests[1] and best[0] == best[1],
        "digest": digests[0],
        "digest_after_kills": digests[1],
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=16_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--presets", nargs="+", default=["vqvae", "dcgan", "gan-nano"])
    parser.add_argument("--results", type=Path, default=machine.RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        rows = [run(name, options.kills, options.images, options.seed, Path(work)) for name in options.presets]
    header = ("preset", "kills", "digest", "after kills", "equal")
    lines = [
        (r["preset"], str(r["kills"]), r["digest"][:12], r["digest_after_kills"][:12], str(r["equal"])) for r in rows
    ]
    machine.table([header, *lines])
    machine.write("exact_resume", {"runs": rows}, options.results)
    sys.exit(0 if all(row["equal"] for row in rows) else 1)


if __name__ == "__main__":
    main()
