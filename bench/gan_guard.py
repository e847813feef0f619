"""Does the watch over a GAN's training notice a collapse, and does a rollback repair it?

    python bench/gan_guard.py SOURCE --images 60k --at 32k

Trains the preset gan-nano twice with the loop of `smalti train` and the same seed: once undisturbed, once with all
learning rates times 100 for 200 steps from `--at` images on, as a bad setting or a bad batch might do, and
--on-collapse rollback. The disturbance comes once: what goes on after a rollback is not disturbed again; it should come
between two saves, which are at every twelfth of the training. Printed and written to results/gan_guard.json: at how
many images the collapse was noticed, with what words, and the Frechet distance (efficientnet-lite0, 128 px, bf16;
10,000 images of the averaged weights against the test images) of both.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import machine
import torch
from gan_quality import frechet

from smalti import data
from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.config.kinds import KINDS
from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.config.units import parse_count
from smalti.data import PackedImages
from smalti.recipes import TrainingContext
from smalti.recipes.gan import GANRecipe
from smalti.runtime.device import Machine
from smalti.training.loop import train

FACTOR, STEPS = 100.0, 200


class Disturbed(GANRecipe):
    """The recipe with a fault in it."""

    at, left = 0, STEPS

    def step(self, batch: Any, images_seen: int) -> dict[str, Any]:
        if images_seen < Disturbed.at or Disturbed.left <= 0:
            return super().step(batch, images_seen)
        Disturbed.left -= 1
        with self.learning_rates_times(FACTOR):
            return super().step(batch, images_seen)

    def on_rollback(self) -> None:
        Disturbed.left = 0
        super().on_rollback()


def run(
    folder: Path, images: PackedImages, test: PackedImages, count: int, at: int | None, cache: Path
) -> dict[str, Any]:
    config = override(preset("gan-nano"), [f"train.images={count}", f"train.save_every={count // 12}"])
    Disturbed.at, Disturbed.left = at or 0, 0 if at is None else STEPS
    before, KINDS["gan"] = KINDS["gan"], dataclasses.replace(KINDS["gan"], recipe=Disturbed)
    try:
        result = train(config, images, folder, held_out=test, on_collapse="rollback")
    finally:
        KINDS["gan"] = before
    records = RunFolder(folder).records()
    back = [record for record in records if record.get("event") == "rollback"]
    model, _ = checkpoint.read(folder / "last.safetensors")
    setting = TrainingContext(images.spec, precision=Machine().resolve()[1])
    return {
        "images": result.images_seen,
        "rollbacks": result.rollbacks,
        "said": [record["problem"] for record in back],
        "noticed": [record["noticed"] for record in back],
        "frechet_distance": frechet(model, setting, test, cache),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--images", default="60k")
    parser.add_argument("--at", default="32k")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = data.load(options.source, split="train", cache=options.cache)
    test = data.load(options.source, split="test", cache=options.cache)
    count, at = parse_count(options.images), parse_count(options.at)
    rows = {}
    for name, place in (("undisturbed", None), ("disturbed", at)):
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = run(Path(folder) / "run", images, test, count, place, options.cache)
        print(name, rows[name], flush=True)
    ratio = rows["disturbed"]["frechet_distance"] / rows["undisturbed"]["frechet_distance"]
    print(f"Frechet distance of the disturbed training over that of the other: {ratio:.3f}")
    machine.write("gan_guard", {"factor": FACTOR, "steps": STEPS, "at": at, "ratio": round(ratio, 3), **rows})


if __name__ == "__main__":
    main()
