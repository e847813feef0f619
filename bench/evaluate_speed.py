"""What all figures cost beside the extractor's own forward pass, and how much memory they take.

    python bench/evaluate_speed.py cifar10-jpeg.tar.xz

1  10,000 judged against 10,000 reference images with `efficientnet-lite0`, and 10,000 training images beside them.
   Batch by batch in turn: the bare network on input that is ready, and smalti's whole path from the packed images to
   features; then the figures, every interval among them. Ratios are (whole path + figures) / bare network:
     distribution   two sets; Frechet distance with its extrapolation, kernel distance, precision, recall, density,
                    coverage
     everything     three sets; memorisation besides
2  Peak memory of all figures for growing N, each in a process of its own, beyond the features themselves.
3  The nearest neighbours of 50,000 rows among 50,000, in time and memory, beside what an N x N matrix would take.

Writes results/evaluate_speed.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

from smalti import data
from smalti.features.extractor import extractor
from smalti.metrics.distribution import measure_distribution
from smalti.metrics.memorisation import measure_memorisation
from smalti.metrics.neighbours import nearest

BATCH = 64
DIMENSION = 1280
SIZES = (2_500, 5_000, 10_000, 20_000)
ROWS = 50_000


def features(count: int, seed: int, dimension: int = DIMENSION) -> torch.Tensor:
    """Like those of a network: correlated and not negative."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(64, dimension, generator=torch.Generator().manual_seed(99))
    rows = torch.randn(count, 64, generator=generator) @ mix / 8
    return rows.add_(torch.randn(count, dimension, generator=generator), alpha=0.3).relu_()


def memory(what: str, count: int) -> dict[str, Any]:
    """Peak growth over the features while figures are computed; to be run in a fresh process."""
    a, b = features(count, 1), features(count, 2)
    torch.linalg.eigvalsh(torch.eye(8, dtype=torch.float64))  # so that the libraries' own memory is not counted
    growth, started = machine.memory_growth(), time.perf_counter()
    if what == "figures":
        measure_distribution(a, b)
    else:
        nearest(a, b, 5)
    return {"count": count, "growth_mib": growth(), "seconds": time.perf_counter() - started}


def child(what: str, count: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "-", "--child", what, str(count)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def speed(source: str, count: int, cache: Path | None) -> dict[str, Any]:
    test, train = (data.load(source, split=split, cache=cache) for split in ("test", "train"))
    order = np.random.default_rng(0).permutation(len(train))
    sets = {
        "reference": (test, np.arange(len(test))[:count]),
        "judged": (train, order[:count]),
        "training": (train, order[count : 2 * count]),
    }
    eye = extractor("efficientnet-lite0", cache=cache)
    height, width = eye.record()["size"]
    ready = torch.randn(BATCH, 3, height, width).to(memory_format=torch.channels_last)
    network = eye._network  # the bare pass leaves out everything that is ours
    bare, whole = dict.fromkeys(sets, 0.0), dict.fromkeys(sets, 0.0)
    found: dict[str, torch.Tensor] = {}
    for name, (images, chosen) in sets.items():
        parts = []
        for start in range(0, count, BATCH):
            rows = chosen[start : start + BATCH]
            t0 = time.perf_counter()
            with torch.no_grad():
                network(ready[: len(rows)])
            t1 = time.perf_counter()
            parts.append(eye.features(images.pixels(rows)))
            bare[name] += t1 - t0
            whole[name] += time.perf_counter() - t1
        found[name] = torch.cat(parts)
    t0 = time.perf_counter()
    measure_distribution(found["reference"], found["judged"])
    t1 = time.perf_counter()
    planted = found["training"][:500] * 0.99
    measure_memorisation(found["training"], found["reference"], found["judged"], planted=planted)
    t2 = time.perf_counter()
    two = [name for name in sets if name != "training"]
    return {
        "count": count,
        "bare_forward_s": bare,
        "whole_path_s": whole,
        "distribution_s": t1 - t0,
        "memorisation_s": t2 - t1,
        "ratio_distribution": (sum(whole[name] for name in two) + t1 - t0) / sum(bare[name] for name in two),
        "ratio_everything": (sum(whole.values()) + t2 - t0) / sum(bare.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(memory(arguments.child[0], int(arguments.child[1]))))
        return
    result: dict[str, Any] = {"speed": speed(arguments.source, arguments.count, arguments.cache)}
    print(json.dumps(result["speed"], indent=1), flush=True)
    result["memory"] = [child("figures", count) for count in SIZES]
    rows = [("N against N", "features MiB", "growth MiB", "seconds")]
    for entry in result["memory"]:
        size = 2 * entry["count"] * DIMENSION * 4 / 2**20
        rows.append((f"{entry['count']:,}", f"{size:.0f}", f"{entry['growth_mib']:.0f}", f"{entry['seconds']:.1f}"))
    machine.table(rows)
    result["neighbours"] = child("neighbours", ROWS) | {"matrix_mib": ROWS * ROWS * 4 / 2**20}
    print(result["neighbours"])
    machine.write("evaluate_speed", result)


if __name__ == "__main__":
    main()
