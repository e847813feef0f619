"""Translators on held-out pairs: how near results come to the targets, and whether they still show the same thing.

    python bench/restyle.py emoji TWEMOJI OUT [--side 64]
    python bench/restyle.py measure MODEL SOURCE TARGETS [--split test] [--name NAME]

`emoji` writes OUT/noto and OUT/twemoji, each with train/ and test/, PNG files over white named by code points: Noto of
the emoji in smalti with their splits, Twemoji of a folder of PNG files such as img/twitter/64 of the npm package
emoji-datasource-twitter (graphics CC-BY 4.0). They are the data of

    smalti train restyle-paired --data OUT/noto --targets OUT/twemoji --out RUN

`measure` compares results of a trained run with the targets: mean absolute difference as a fraction of the range of
pixels; KID and Frechet distance with each of --features, beside those of the untouched pictures, and their ratio; and
the share of pictures whose nearest target in features (cosine) is the right one, or one that looks exactly like it.
smalti-vit is no fair judge of a model that was trained with it.

Writes results/restyle_NAME.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from smalti import data
from smalti.config.translator import TranslatorConfig
from smalti.data import emoji
from smalti.data.images import convert
from smalti.features.extractor import Extractor, extractor
from smalti.metrics.frechet import FrechetDistance
from smalti.metrics.pairs import KernelDistance
from smalti.pipelines.translator import Translator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    making = commands.add_parser("emoji")
    making.add_argument("twemoji", type=Path)
    making.add_argument("out", type=Path)
    making.add_argument("--side", type=int, default=64)
    measuring = commands.add_parser("measure")
    measuring.add_argument("model")
    measuring.add_argument("source")
    measuring.add_argument("targets")
    measuring.add_argument("--split", default="test")
    measuring.add_argument("--side", type=int, default=64)
    measuring.add_argument("--features", nargs="+", default=["efficientnet-lite0", "smalti-vit"])
    measuring.add_argument("--name", default="paired")
    measuring.add_argument("--cache", type=Path)
    measuring.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.what == "emoji":
        write_emoji(options.twemoji, options.out, options.side)
    else:
        torch.set_num_threads(options.threads)
        measure(options)


def write_emoji(twemoji: Path, out: Path, side: int) -> None:
    """The pairs of emoji that both sets have."""
    count = 0
    for split in emoji.SPLITS:
        chosen = emoji.read(split)
        for image, name in zip(chosen.images, chosen.names, strict=True):
            code = name.split(" ")[0]
            other = twemoji / f"{code}.png"
            if not other.is_file():
                continue
            with Image.open(other) as opened:
                pair = {"noto": Image.fromarray(image), "twemoji": opened.convert("RGBA")}
            for style, picture in pair.items():
                path = out / style / split / f"{code}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                over_white(picture, side).save(path)
            count += 1
    print(f"{count} pairs in {out}")


def over_white(image: Image.Image, side: int) -> Image.Image:
    """An RGBA picture over white, side x side pixels."""
    return convert(image, 3).resize((side, side), Image.Resampling.LANCZOS)


def measure(options: argparse.Namespace) -> None:
    model = Translator.from_pretrained(options.model)
    pairs = data.load_pairs(
        options.source, options.targets, split=options.split, size=options.side, channels=3, cache=options.cache
    )
    batch = pairs.take(np.arange(len(pairs)))
    results = model.restyle(batch.images)
    settings = model.card.config.model
    assert isinstance(settings, TranslatorConfig)
    trained_with = getattr(getattr(settings.objective, "perceptual", None), "network", "none")
    errors = [difference(images, batch.targets) for images in (batch.images, results)]
    rows = [("", "input", "result", "ratio"), row("L1", *errors)]
    found: dict[str, Any] = {"l1": pair_of(errors)}
    for name in options.features:
        figures = Judge(extractor(name), batch.targets)
        before, after = figures(batch.images), figures(results)
        found[name] = {key: pair_of([before[key], after[key]]) for key in before}
        rows += [row(f"{key}, {name}", before[key], after[key]) for key in before]
    machine.table(rows)
    machine.write(
        f"restyle_{options.name}",
        {
            "digest": model.card.digest[:16], "preset": model.card.config.preset, "images_seen": model.card.images_seen,
            "pairs": len(pairs), "split": options.split, "side": options.side, "trained_with": trained_with,
            "results": found,
        },
    )  # fmt: skip


class Judge:
    """Figures of pictures beside the targets, in the features of a network."""

    def __init__(self, network: Extractor, targets: np.ndarray) -> None:
        self.network, self.real = network, network.features(targets)
        # Targets that are the same picture stand for each other.
        _, kinds = np.unique(targets.reshape(len(targets), -1), axis=0, return_inverse=True)
        self.kinds = torch.from_numpy(kinds.ravel())

    def __call__(self, pictures: np.ndarray) -> dict[str, float]:
        found = self.network.features(pictures)
        figures = {}
        for key, metric in (("kid", KernelDistance()), ("frechet", FrechetDistance())):
            metric.update(self.real, real=True)
            metric.update(found, real=False)
            figures[key] = metric.compute()[0].value
        return figures | {"recognised": self.recognised(found)}

    def recognised(self, found: Tensor) -> float:
        """Share of the pictures whose nearest target is the right one."""
        centre = self.real.mean(dim=0)
        similar = F.normalize(found - centre, dim=1) @ F.normalize(self.real - centre, dim=1).T
        return float((self.kinds[similar.argmax(dim=1)] == self.kinds).float().mean())


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found.astype(np.float64) - wanted).mean() / 255)


def pair_of(values: list[float]) -> dict[str, float]:
    return {"input": values[0], "result": values[1], "ratio": values[1] / values[0]}


def row(name: str, before: float, after: float) -> tuple[str, str, str, str]:
    return name, f"{before:.4g}", f"{after:.4g}", f"{after / before:.3f}"


if __name__ == "__main__":
    main()
