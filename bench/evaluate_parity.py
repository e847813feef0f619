"""Do the distribution metrics give the numbers of independent implementations, and how long do they take?

    python bench/evaluate_parity.py [FEATURES ...] [--count 5000] [--dimension 512] [--timing 10000 1280]

FEATURES are .npy or .safetensors files of (N, D) floats from a real network; each is shuffled and split in two. Without
any, and besides: made-up features of four kinds. References, on the same numbers:

    Frechet distance                        scipy.linalg.sqrtm in float64; torchmetrics with a module that passes on its
                                            input; and Gaussians whose distance is known in closed form
    kernel distance                         torchmetrics, one subset of all images, in float64
    precision, recall, density, coverage    prdc

`--timing N D` times each part on random features and records the peak memory, in a process of its own.
Needs scipy, torchmetrics and prdc. Prints one table and writes results/evaluate_parity.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from torch import Tensor

from smalti.metrics.distribution import measure_distribution
from smalti.metrics.frechet import FrechetDistance, frechet_distance
from smalti.metrics.memorisation import measure_memorisation
from smalti.metrics.pairs import ball_figures, compare_pairs, kernel_figures

Pair = tuple[Tensor, Tensor]


def normal(count: int, dimension: int, seed: int) -> Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


def made_up(count: int, dimension: int) -> dict[str, Pair]:
    """Two unlike sets of each kind."""
    mixing = normal(dimension, dimension, 9) / dimension**0.5
    few = normal(24, dimension, 8)
    scales = torch.logspace(-3, 1.5, dimension)
    kinds: dict[str, Callable[[int, float], Tensor]] = {
        "normal": lambda seed, stretch: stretch * normal(count, dimension, seed),
        "positive": lambda seed, stretch: (stretch * normal(count, dimension, seed) @ mixing + 0.3).relu(),
        "low rank and noise": lambda seed, stretch: (
            stretch * normal(count, 24, seed) @ few + 1e-2 * normal(count, dimension, seed + 50)
        ),
        "unlike scales": lambda seed, stretch: stretch * normal(count, dimension, seed) * scales + 1,
    }
    return {name: (make(0, 1.0), make(1, 1.1)) for name, make in kinds.items()}


def halves(path: Path, count: int) -> Pair:
    """Two disjoint random sets of at most `count` rows of a file."""
    if path.suffix == ".npy":
        features = torch.from_numpy(np.load(path, allow_pickle=False)).float()
    else:
        from safetensors.torch import load_file

        features = next(tensor for tensor in load_file(path).values() if tensor.ndim == 2).float()
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    count = min(count, len(features) // 2)
    return features[order[:count]], features[order[count : 2 * count]]


def by_scipy(real: Tensor, fake: Tensor) -> float:
    from scipy import linalg

    mean = real.double().mean(0) - fake.double().mean(0)
    a, b = torch.cov(real.double().T), torch.cov(fake.double().T)
    root = linalg.sqrtm((a @ b).numpy()).real
    return float(mean.square().sum() + a.trace() + b.trace() - 2 * np.trace(root))


def by_torchmetrics(real: Tensor, fake: Tensor) -> dict[str, float]:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    network = torch.nn.Flatten()
    network.num_features = real.shape[1]
    count = min(len(real), len(fake))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the features of all images are kept
        fid = FrechetInceptionDistance(feature=network, normalize=True).set_dtype(torch.float64)
        kid = KernelInceptionDistance(feature=network, subsets=1, subset_size=count, normalize=True)
        for metric in (fid, kid):
            metric.update(real.double(), real=True)
            metric.update(fake.double(), real=False)
        return {"frechet_distance": float(fid.compute()), "kernel_distance": float(kid.compute()[0])}


def by_prdc(real: Tensor, fake: Tensor) -> dict[str, float]:
    import prdc

    with contextlib.redirect_stdout(io.StringIO()):  # it prints the counts
        found = prdc.compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)
    return {name: float(value) for name, value in found.items()}


def compare(data: str, real: Tensor, fake: Tensor) -> list[dict[str, Any]]:
    ours = {figure.name: figure.value for figure in measure_distribution(real, fake)}
    references = [
        ("scipy", {"frechet_distance": by_scipy(real, fake)}),
        ("torchmetrics", by_torchmetrics(real, fake)),
        ("prdc", by_prdc(real, fake)),
    ]
    return [
        {"data": data, "shape": [len(real), real.shape[1]], "figure": name, "reference": package,
         "ours": ours[name], "theirs": value,
         "relative_difference": abs(ours[name] - value) / max(abs(value), 1e-12) if ours[name] != value else 0.0}
        for package, values in references for name, value in values.items()
    ]  # fmt: skip


def closed_form(dimension: int) -> dict[str, Any]:
    """Gaussians with covariances of the same eigenvectors, whose distance is a sum."""
    directions = torch.linalg.qr(normal(dimension, dimension, 3).double()).Q
    a, b = torch.logspace(-3, 2, dimension).double(), torch.logspace(1, -4, dimension).double()
    mean = normal(2, dimension, 4).double()
    value = frechet_distance(mean[0], (directions * a) @ directions.T, mean[1], (directions * b) @ directions.T)
    known = float((mean[0] - mean[1]).square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    return {"data": "Gaussians", "shape": [dimension, dimension], "figure": "frechet_distance",
            "reference": "closed form", "ours": value, "theirs": known,
            "relative_difference": abs(value - known) / known}  # fmt: skip


def timing(count: int, dimension: int) -> dict[str, Any]:
    real, fake, held_out = (normal(count, dimension, seed) for seed in range(3))

    def frechet() -> None:
        metric = FrechetDistance()
        for features, is_real in ((real, True), (fake, False)):
            for rows in features.split(256):
                metric.update(rows, real=is_real)
        metric.compute()

    def pairs() -> None:
        kernels, balls = compare_pairs(real, fake)
        assert kernels is not None
        assert balls is not None
        kernel_figures(kernels)
        ball_figures(balls)

    def products() -> None:
        for rows in real.split(1024):
            rows @ fake.T  # one block is held at a time, or this would set the peak

    parts = {
        "bare product of all pairs": products,
        "Frechet distances": frechet,
        "kernel distance, precision, recall, density, coverage": pairs,
        "memorisation": lambda: measure_memorisation(real, held_out, fake) and None,
    }
    found: dict[str, Any] = {"shape": [count, dimension], "threads": torch.get_num_threads(), "parts": {}}
    torch.linalg.eigh(torch.eye(64))
    before = peak_mb()
    for name, work in parts.items():
        wall, processor = time.perf_counter(), time.process_time()
        work()
        found["parts"][name] = {
            "seconds": round(time.perf_counter() - wall, 2),
            "processor_seconds": round(time.process_time() - processor, 2),
            "peak_growth_mb": round(peak_mb() - before),
        }
    return found


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--timing", nargs=2, type=int, default=(10_000, 1280), metavar=("N", "D"))
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(timing(*options.timing)))
        return
    sets = made_up(options.count, options.dimension)
    sets |= {path.name: halves(path, options.count) for path in options.features}
    rows = [closed_form(options.dimension)]
    for name, (real, fake) in sets.items():
        rows += compare(name, real, fake)
    command = [sys.executable, __file__, "--measure", "--timing", *map(str, options.timing)]
    times = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    lines = [("features", "figure", "reference", "ours", "theirs", "relative difference")]
    for row in rows:
        numbers = (f"{row['ours']:.8g}", f"{row['theirs']:.8g}", f"{row['relative_difference']:.1e}")
        lines.append((row["data"], row["figure"], row["reference"], *numbers))
    machine.table(lines)
    print()
    machine.table(
        [("{} x {} against as many".format(*times["shape"]), "seconds", "processor seconds", "peak growth MB")]
        + [(name, *(f"{value:g}" for value in part.values())) for name, part in times["parts"].items()]
    )
    worst = max(row["relative_difference"] for row in rows)
    machine.write("evaluate_parity", {"worst_relative_difference": worst, "parity": rows, "timing": times})


if __name__ == "__main__":
    main()
