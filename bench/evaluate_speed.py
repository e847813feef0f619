"""What all figures cost beside the extractor's own forward pass, and how much memory they take.

    python bench/evaluate_speed.py cifar10-jpeg.tar.xz

1  10,000 against 10,000 images with `efficientnet-lite0`. Batch by batch in turn: the bare network on input that is
   ready, and smalti's whole path from the packed images to features; then all figures: Frechet distance with its
   extrapolation, kernel distance, precision, recall, density, coverage, memorisation, every interval. The ratio is
   (whole path + figures) / bare network.
2  Peak memory of all figures for growing N, each in a process of its own, beyond the features themselves.
3  The nearest neighbours of 50,000 rows among 50,000, in time and memory, beside what an N x N matrix would take.

Writes results/evaluate_speed.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

from smalti import data
from smalti.evaluate.distribution import measure_distribution
from smalti.evaluate.features import extractor
from smalti.evaluate.memorisation import measure_memorisation
from smalti.evaluate.neighbours import nearest

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


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(what: str, count: int) -> dict[str, Any]:
    """Peak growth over the features while figures are computed; to be run in a fresh process."""
    a, b = features(count, 1), features(count, 2)
    torch.linalg.eigvalsh(torch.eye(8, dtype=torch.float64))  # so that the libraries' own memory is not counted
    before, started = peak_mib(), time.perf_counter()
    if what == "figures":
        measure_distribution(a, b)
    else:
        nearest(a, b, 5)
    return {"count": count, "growth_mib": peak_mib() - before, "seconds": time.perf_counter() - started}


def child(what: str, count: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "-", "--child", what, str(count)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def speed(source: str, count: int, cache: Path | None) -> dict[str, Any]:
    sets = [data.load(source, split=split, cache=cache) for split in ("test", "train")]
    eye = extractor("efficientnet-lite0", cache=cache)
    height, width = eye.record()["size"]
    ready = torch.randn(BATCH, 3, height, width).to(memory_format=torch.channels_last)
    network = eye._network  # the bare pass leaves out everything that is ours
    bare = whole = 0.0
    found: list[torch.Tensor] = []
    for images in sets:
        chosen = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
        parts = []
        for start in range(0, count, BATCH):
            rows = chosen[start : start + BATCH]
            t0 = time.perf_counter()
            with torch.no_grad():
                network(ready[: len(rows)])
            t1 = time.perf_counter()
            parts.append(eye.features(images.pixels(rows)))
            bare, whole = bare + t1 - t0, whole + time.perf_counter() - t1
        found.append(torch.cat(parts))
    t0 = time.perf_counter()
    measure_distribution(*found)
    t1 = time.perf_counter()
    measure_memorisation(found[1], found[0], found[1].flip(0) * 1.01, planted=found[1][:500] * 0.999)
    t2 = time.perf_counter()
    return {
        "count": count, "bare_forward_s": bare, "whole_path_s": whole, "distribution_s": t1 - t0,
        "memorisation_s": t2 - t1, "ratio": (whole + t2 - t0) / bare,
        "ratio_without_memorisation": (whole + t1 - t0) / bare,
    }  # fmt: skip


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
    print({key: round(value, 3) for key, value in result["speed"].items()}, flush=True)
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
