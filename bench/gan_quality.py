"""Frechet distance against time: smalti's GAN presets in turn, each with the same processor time.

    python bench/gan_quality.py SOURCE --run gan-nano --minutes 20 --threads 2 --draw
    python bench/gan_quality.py SOURCE --run dcgan --minutes 10 --marks 1 --set train.batch=32
    python bench/gan_quality.py SOURCE --run gan-nano --minutes 10 --share 0.1 --set model.augmentation.probability=0.5
    python bench/gan_quality.py SOURCE --table

A run trains for so many minutes, what comes before the first step included, and schedules run out with them. With one
thread, the default, they are minutes of processor time, which other work on the machine does not distort; with
`--threads 2`, and with `--device cuda`, minutes by the clock of a machine that should do nothing else. At every eighth
of the time 10,000 images of the averaged weights are compared with the 10,000 test images (efficientnet-lite0, 128 px,
bf16); that is not counted. `--share` trains on a part of the training images. Each run adds its row, with the settings
that differ from the preset, to results/gan_quality.json; `--table` prints all of them and draws docs/gan-curves.png, of
those with --draw. With --averages the same training is judged by averages of other half-lives too; the best is drawn.
With --keep FOLDER the weights are kept, and a sheet of samples beside them.

SOURCE needs a train and a test split; figures in the repository are from the JPEG copy of CIFAR-10.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

from smalti import data
from smalti.checkpoint import file as checkpoint
from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.config.run import RunConfig
from smalti.data import PackedImages
from smalti.data.packed import Description
from smalti.features.cache import ArrayImages, collect
from smalti.features.extractor import extractor
from smalti.metrics.distribution import measure_distribution
from smalti.models.gan.base import Generator
from smalti.optim.ema import WeightAverage
from smalti.recipes import TrainingContext
from smalti.recipes.gan import GANRecipe
from smalti.report.charts import draw_lines
from smalti.report.pictures import grid, write_png
from smalti.runtime.device import Machine
from smalti.runtime.pixels import to_pixels
from smalti.runtime.rng import mix, seeded_generator
from smalti.training.batches import first_batches, open_feed

NAME = "gan_quality"
SAMPLES = 10_000
WARM_UP_STEPS = 20  # before the speed is known well enough to say how long the training will be
DOCS = Path(__file__).parent.parent / "docs"


def part(images: PackedImages, share: float) -> PackedImages:
    """Some of the images of a set, evenly spread."""
    rows = np.linspace(0, len(images) - 1, max(2, round(share * len(images)))).round().astype(np.int64)
    about = Description(
        images.source, images.split, images.splits, images.classes, [images.names[row] for row in rows], None,
        f"{images.fingerprint}, {len(rows)} of {len(images)}", (),
    )  # fmt: skip
    return PackedImages(images.pixels(rows), None if images.labels is None else images.labels[rows], about)


def samples(model: Generator, setting: TrainingContext, count: int, seed: int) -> np.ndarray:
    """(count, H, W, C) uint8; labels in turn where there are any."""
    draws, pictures = seeded_generator(seed, 7), []
    for start in range(0, count, 250):
        z = torch.randn(250, model.latent, generator=draws).to(setting.device)
        numbers = torch.arange(start, start + 250, device=setting.device)
        labels = numbers % model.classes if model.classes else None
        with torch.no_grad(), setting.autocast():
            pictures.append(to_pixels(model(z, labels)))
    return np.concatenate(pictures)[:count]


def frechet(model: Generator, setting: TrainingContext, test: PackedImages, cache: Path | None) -> float:
    network = extractor("efficientnet-lite0", precision="bfloat16", device=setting.device)
    fake = collect(ArrayImages(samples(model, setting, min(SAMPLES, len(test)), 0)), network)
    figures = {figure.name: figure.value for figure in measure_distribution(collect(test, network, cache=cache), fake)}
    return round(figures["frechet_distance"], 2)


def train(
    config: RunConfig,
    images: PackedImages,
    test: PackedImages,
    *,
    minutes: float,
    device: torch.device,
    precision: str,
    cache: Path | None,
    marks: int,
    half_lives: Sequence[float] = (),
) -> tuple[GANRecipe, TrainingContext, dict[str, Any]]:
    """Train for some minutes, and measure on the way."""
    clock = time.process_time if torch.get_num_threads() == 1 and device.type == "cpu" else time.monotonic
    classes = len(images.classes) if getattr(config.model, "conditional", False) else 0
    setting = TrainingContext(images.spec, classes, device, precision, len(images))
    began, away, budget = clock(), 0.0, 60 * minutes
    trainer = GANRecipe(config, setting)
    seed, batch = config.train.seed, config.train.batch
    trainer.start(lambda: first_batches(trainer, images, config.data, seed))
    feed = open_feed(trainer, images, config.data)
    averages = {f"{half_life:g}": WeightAverage(trainer.generator, half_life) for half_life in half_lives}
    fitted = first = clock()
    seen, step, curve, last, finite = 0, 0, list[dict[str, Any]](), {}, True
    trainer.extra_batch = lambda: feed.batch(mix(seed, 1), seen, batch)

    def mark() -> None:
        point = {"minutes": round((clock() - began - away) / 60, 2), "images": seen}
        point["frechet_distance"] = frechet(trainer.export(), setting, test, cache)
        if averages:
            others = {name: frechet(average.module, setting, test, cache) for name, average in averages.items()}
            point["other_averages"] = others
        curve.append(point)

    while (spent := clock() - began - away) < budget:
        if step == WARM_UP_STEPS:
            first, first_seen, first_away = clock(), seen, away
        if step > WARM_UP_STEPS and step % 20 == 0:
            speed = (seen - first_seen) / (clock() - first - away + first_away)
            trainer.horizon = round(seen + speed * (budget - spent))
        last = trainer.step(feed.batch(seed, seen, batch), seen)
        if device.type == "cpu" or step % WARM_UP_STEPS == 0:  # to look waits for the device
            finite &= all(math.isfinite(float(value)) for value in last.values())
        seen, step = seen + batch, step + 1
        for average in averages.values():
            average.update(trainer.generator, batch=batch, images_seen=seen)
        if marks * spent / budget >= len(curve) + 1:
            pause = clock()
            mark()
            away += clock() - pause
            print(f"  {curve[-1]}  " + "  ".join(f"{k} {float(v):.3g}" for k, v in last.items()), flush=True)
    mark()
    return (
        trainer,
        setting,
        {
            "images_seen": seen,
            "images_per_second": round(seen / (60 * curve[-1]["minutes"] - (fitted - began)), 1),
            "frechet_distance": curve[-1]["frechet_distance"],
            "curve": curve,
            "finite": finite,
        },
    )


def add_row(row: dict[str, Any]) -> None:
    """Into the results file, in the place of an older row of the same training."""
    path = machine.RESULTS / f"{NAME}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    same = ("name", "minutes", "threads", "seed", "share", "settings")
    rows = [old for old in rows if any(old[key] != row[key] for key in same)] + [row]
    machine.write(NAME, {"rows": sorted(rows, key=lambda old: (old["minutes"], old["name"], old["seed"]))})


def show() -> None:
    """The table of all rows, and curves of those to be drawn."""
    rows = json.loads((machine.RESULTS / f"{NAME}.json").read_text())["rows"]
    machine.table(
        [("preset", "minutes", "threads", "share", "images", "images/s", "FD", "cpu", "settings"),
         *((row["name"], f"{row['minutes']:g}", str(row["threads"]), f"{row['share']:g}", f"{row['images_seen']:,}",
            f"{row['images_per_second']:.0f}", f"{row['frechet_distance']:.1f}", row["cpu"], " ".join(row["settings"]))
           for row in rows)]
    )  # fmt: skip
    chosen = [row for row in rows if row.get("drawn")]
    series = {
        f"{row['name']}, {row['minutes']:g} minutes": (
            [point["minutes"] for point in row["curve"]],
            [min(point["frechet_distance"], *point.get("other_averages", {}).values()) for point in row["curve"]],
        )
        for row in chosen
    }
    if series:
        picture = draw_lines("Frechet distance after minutes of training", series, x_label="minutes", y_label="FD")
        write_png(DOCS / "gan-curves.png", picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?")
    parser.add_argument("--run", help="a preset of the recipe gan")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--marks", type=int, default=8, help="how often it is measured, the end included")
    parser.add_argument("--share", type=float, default=1.0, help="of the training images")
    parser.add_argument("--set", action="append", default=[], help="a setting that differs from the preset's")
    parser.add_argument("--draw", action="store_true", help="this run's curve is one of those in docs/gan-curves.png")
    parser.add_argument("--averages", help="half-lives in images, separated by commas, besides the setting's")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        show()
        return
    torch.set_num_threads(options.threads)
    images = data.load(options.source, split="train", cache=options.cache)
    test = data.load(options.source, split="test", cache=options.cache)
    if options.share < 1:
        images = part(images, options.share)
    device, precision = Machine(options.device).resolve()
    config = override(preset(options.run), [*options.set, f"train.seed={options.seed}"])
    print(options.run, *options.set, flush=True)
    half_lives = [float(part) for part in options.averages.split(",")] if options.averages else []
    trainer, setting, trained = train(
        config, images, test, minutes=options.minutes, device=device, precision=precision, cache=options.cache,
        marks=options.marks, half_lives=half_lives,
    )  # fmt: skip
    row = {
        "name": options.run, "minutes": options.minutes, "threads": options.threads, "seed": options.seed,
        "share": options.share, "settings": options.set,
        "cpu": machine.cpu() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "date": f"{datetime.date.today()}", "precision": precision, "drawn": options.draw, **trained,
        "generator_parameters": sum(p.numel() for p in trainer.export().parameters()),
    }  # fmt: skip
    print({key: value for key, value in row.items() if key != "curve"}, flush=True)
    add_row(row)
    if options.keep is not None:
        words = [options.run, f"{options.minutes:g}", str(options.seed), *options.set]
        name = "-".join(words).replace("/", "_")[:100]
        about = {"source": Path(images.source).name, "split": images.split, "fingerprint": images.fingerprint,
                 "images": len(images)}  # fmt: skip
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=Path(images.source).name))
        card = checkpoint.Card("gan", config, images.shape, images.classes, trained["images_seen"], about)
        options.keep.mkdir(parents=True, exist_ok=True)
        checkpoint.write(options.keep / f"{name}.safetensors", trainer.export(), card)
        write_png(options.keep / f"{name}.png", grid(samples(trainer.export(), setting, 64, 1), scale=2))


if __name__ == "__main__":
    main()
