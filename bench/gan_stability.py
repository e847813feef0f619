"""Does a GAN still train with settings that are far off? Twenty short trainings of a preset, and of dcgan beside it.

    python bench/gan_stability.py SOURCE --minutes 2

With the preset's own settings, learning rates times 3 and a third, gamma (where there is one) times 10 and a tenth, and
batches of 16, 64 and 256, two to four of each as listed in VARIANTS: twenty in all, every one with a seed of its own.
Each trains for so many minutes of
processor time (one thread) without the watch's rollbacks. A training has failed when a loss or a weight is not finite,
or when it has collapsed: its pictures differ by less than a tenth of what the data's do (the mean squared distance of
features over pairs, smalti-vit). Prints and writes results/gan_stability.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import machine
import torch

from smalti import data
from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.data import PackedImages
from smalti.recipes import TrainingContext
from smalti.recipes.gan import GANRecipe
from smalti.runtime.device import Machine
from smalti.training.batches import first_batches, open_feed

CPU = torch.device("cpu")
COLLAPSED = 0.1  # of the spread of data
# Learning rates times, gamma times, batch (None: the preset's own), how many: twenty trainings.
VARIANTS: dict[str, tuple[float, float, int | None, int]] = {
    "as it is": (1.0, 1.0, None, 4),
    "learning rates x 3": (3.0, 1.0, None, 3),
    "learning rates / 3": (1 / 3, 1.0, None, 2),
    "gamma x 10": (1.0, 10.0, None, 3),
    "gamma / 10": (1.0, 0.1, None, 2),
    "batch 16": (1.0, 1.0, 16, 2),
    "batch 64": (1.0, 1.0, 64, 2),
    "batch 256": (1.0, 1.0, 256, 2),
}


def train(
    name: str, images: PackedImages, minutes: float, rate: float, gamma: float, batch: int | None, seed: int
) -> dict[str, Any]:
    config = override(preset(name), [f"train.seed={seed}", *([] if batch is None else [f"train.batch={batch}"])])
    recipe = GANRecipe(config, TrainingContext(images.spec, precision=Machine().resolve()[1], count=len(images)))
    recipe.start(lambda: first_batches(recipe, images, config.data, seed))
    feed = open_feed(recipe, images, config.data)
    recipe.scale_learning_rates(rate)
    recipe.regularization.gamma *= gamma
    began, seen, finite = time.process_time(), 0, True
    while finite and time.process_time() - began < 60 * minutes:
        terms = recipe.step(feed.batch(seed, seen, config.train.batch), seen)
        seen += config.train.batch
        finite = all(bool(torch.isfinite(value)) for value in terms.values())
    finite = finite and all(bool(tensor.isfinite().all()) for tensor in recipe.tensors())
    diversity = recipe.diagnostics()[0]["diversity"] if finite else 0.0
    score = recipe.score(feed.batch(1, 500 * k, 500) for k in range(4)).value if finite else None
    return {"images": seen, "finite": finite, "diversity": diversity, "collapsed": diversity < COLLAPSED,
            "frechet_distance_smalti_vit": score}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--presets", default="gan-nano,dcgan")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = data.load(options.source, split="train", cache=options.cache)
    path = machine.RESULTS / "gan_stability.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for name in options.presets.split(","):
        rows = [row for row in rows if row["preset"] != name]
        for variant, (rate, gamma, batch, times) in VARIANTS.items():
            for _ in range(times):
                seed = sum(row["preset"] == name for row in rows)
                found = train(name, images, options.minutes, rate, gamma, batch, seed)
                rows.append({"preset": name, "variant": variant, "seed": seed, **found})
                machine.write("gan_stability", {"minutes": options.minutes, "collapsed_below": COLLAPSED, "rows": rows})
                print(rows[-1], flush=True)
        mine = [row for row in rows if row["preset"] == name]
        failed = [row for row in mine if row["collapsed"] or not row["finite"]]
        print(f"{name}: {len(failed)} of {len(mine)} ended collapsed or not finite")


if __name__ == "__main__":
    main()
