"""How the figures of `smalti evaluate` react to known flaws, on real images.

    python bench/evaluate_sensitivity.py cifar10-jpeg.tar.xz --gan runs/dcgan

1  Sensitivity. Reference: the whole test split. Judged: 10,000 training images, evenly spread (the floor: two samples
   of the same kind), and the same images after blur of sigma 1, after 5 % noise; and 10,000 training images of all
   classes but two. The ranking of the cases by each extractor is printed side by side.
2  Planted copies. Judged: 10,000 images of a GAN, of which 0 %, 1 % and 10 % are replaced by training images after
   slight damage (JPEG, shift, mirror, brightness, none); 1 % must be found, 0 % must not.

Writes results/evaluate_sensitivity.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from torch import Tensor

from smalti import data
from smalti.evaluation import Generated
from smalti.evaluation.cases import blurred, degraded_copies, noisy
from smalti.features.cache import ArrayImages, collect
from smalti.features.extractor import Extractor, extractor
from smalti.metrics.distribution import measure_distribution
from smalti.metrics.memorisation import measure_memorisation
from smalti.metrics.metric import MetricValue
from smalti.pipelines import base as api
from smalti.pipelines.gan import GAN

COUNT = 10_000
DROPPED = (3, 5)  # of the ten classes: cat and dog
SHOWN = (
    "frechet_distance",
    "frechet_distance_infinity",
    "kernel_distance",
    "precision",
    "recall",
    "density",
    "coverage",
)


def spread(count: int, wanted: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64)


def cases(train: data.PackedImages, count: int, seed: int) -> dict[str, np.ndarray]:
    """(N, H, W, C) uint8 for each case."""
    labels = np.asarray(train.labels)
    some = train.pixels(spread(len(train), count))
    kept = np.flatnonzero(~np.isin(labels, DROPPED))
    return {
        "training images": some,
        "blur, sigma 1": blurred(some, 1.0),
        "noise, 5 %": noisy(some, std=0.05, seed=seed),
        "two classes dropped": train.pixels(kept[spread(len(kept), count)]),
    }


def plain(figure: MetricValue) -> dict[str, Any]:
    return {"value": figure.value, "low": figure.low, "high": figure.high}


def sensitivity(
    train: data.PackedImages, real: Tensor, eye: Extractor, count: int, cache: Path | None
) -> dict[str, dict[str, Any]]:
    found = {}
    for name, images in cases(train, count, seed=0).items():
        fake = collect(ArrayImages(images), eye, cache=cache)
        figures = {figure.name: plain(figure) for figure in measure_distribution(real, fake)}
        found[name] = {key: figures[key] for key in SHOWN}
        print(f"{eye.name}: {name}: FD {figures['frechet_distance']['value']:.2f}", flush=True)
    return found


def copies(
    train: data.PackedImages, held_out: Tensor, gan: GAN, eye: Extractor, count: int, cache: Path | None
) -> dict[str, dict[str, Any]]:
    known = collect(train, eye, cache=cache)
    drawn = collect(Generated(gan, count, 0), eye, cache=cache)
    planted = collect(ArrayImages(degraded_copies(train.pixels(spread(len(train), 500)), 500).images), eye, cache=cache)
    copied = degraded_copies(train.pixels(spread(len(train), count)[1::2]), count // 10, seed=7).images
    copied_features = collect(ArrayImages(copied), eye, cache=cache)
    found = {}
    for share in (0.0, 0.01, 0.1):
        fake = drawn.clone()
        fake[: round(share * count)] = copied_features[: round(share * count)]
        result = measure_memorisation(known, held_out, fake, planted=planted)
        found[f"{share:.0%}"] = {figure.name: plain(figure) for figure in result.figures} | {
            "detected": result.detected, "p_value": result.p_value, "false_hits": result.false_hits,
            "true_hits": result.true_hits,
        }  # fmt: skip
        print(f"{eye.name}: {share:.0%} copied: detected {result.detected}, p {result.p_value:.2g}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--gan", type=Path, help="run folder or checkpoint of a generator")
    parser.add_argument("--features", nargs="+", default=["efficientnet-lite0", "smalti-vit"])
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    train, test = (data.load(arguments.source, split=split, cache=arguments.cache) for split in ("train", "test"))
    result: dict[str, Any] = {"source": Path(arguments.source).name, "count": arguments.count, "extractors": {}}
    for name in arguments.features:
        eye = extractor(name, cache=arguments.cache)
        real = collect(test, eye, cache=arguments.cache)
        entry: dict[str, Any] = {"extractor": eye.record()}
        entry["cases"] = sensitivity(train, real, eye, arguments.count, arguments.cache)
        if arguments.gan is not None:
            entry["copies"] = copies(train, real, api.load(arguments.gan), eye, arguments.count, arguments.cache)
        result["extractors"][name] = entry
    for name, entry in result["extractors"].items():
        print()
        rows = [(name, *SHOWN)]
        rows += [(case, *(f"{found[key]['value']:.4g}" for key in SHOWN)) for case, found in entry["cases"].items()]
        machine.table(rows)
    machine.write("evaluate_sensitivity", result)


if __name__ == "__main__":
    main()
