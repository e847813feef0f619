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
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

from smalti import api, checkpoint
from smalti.runfolder import RunFolder

SMALL = {
    "vqvae": [
        "model.autoencoder.width=16",
        "model.autoencoder.residual_width=8",
        "model.quantizer.codes=32",
        "model.quantizer.dimension=8",
    ],
    "dcgan": ["model.generator_width=16", "model.discriminator_width=8", "model.latent=16"],
}


def command(preset: str, out: Path, images: int, cache: Path) -> list[str]:
    settings = [*SMALL[preset], "train.save_every=320", "train.log_every=160", "train.preview_every=960"]
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


def kill_sometime(process: subprocess.Popen[bytes], log: Path, delay: float) -> bool:
    """SIGKILL after `delay` seconds of training, or while it starts where that is negative; False when it had ended."""
    before = log.stat().st_size if log.exists() else 0
    while delay >= 0 and process.poll() is None and (not log.exists() or log.stat().st_size == before):
        time.sleep(0.002)  # importing torch is no training: wait for the first line of this session
    time.sleep(abs(delay))
    if process.poll() is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return True


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
    # Spread the kills over the run: each session gets about its share of the time the training itself took.
    seconds = max(record.get("seconds", 0.0) for record in whole.records())
    broken, done, places = RunFolder(work / f"{preset}-broken"), 0, []
    while done < kills:
        process = subprocess.Popen(command(preset, broken.path, images, cache), env=environment)
        delay = chance.uniform(-0.2, 1.0) * seconds / kills
        if not kill_sometime(process, broken.log, delay):
            raise SystemExit(
                f"{preset} ended with code {process.returncode} after {done} of {kills} kills: give more --images"
            )
        done += 1
        checkpoints_are_readable(broken)
        places.append(max((record["images_seen"] for record in broken.records()), default=0))
    subprocess.run(command(preset, broken.path, images, cache), check=True, env=environment)
    digests = [checkpoint.read_card(folder.last).digest for folder in (whole, broken)]
    best = [checkpoint.read_card(folder.best).digest for folder in (whole, broken)]
    return {
        "preset": preset,
        "images": images,
        "kills": done,
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
    parser.add_argument("--presets", nargs="+", default=["vqvae", "dcgan"])
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
