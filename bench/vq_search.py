"""The search for the nearest code, beside `vector-quantize-pytorch`, beside the bare matrix product, and as it grows.

    python bench/vq_search.py [--quick]

1  Speed: a layer's forward pass in evaluation, and a training step (forward, backward, EMA update of the codebook),
   ours and the peer's in one process, repetitions in turn; the medians, and the median of the ratios of neighbours.
2  Product: the search against the matrix product of the same tiles into a buffer, and nothing else; in the search's
   own orientation (codes x latents) and in the usual one (latents x codes), in turn.
3  Memory: peak growth while each runs, in a process of its own, inputs, parameters and libraries not counted.
4  Growth: the slope of log time over log N up to a million and over log K, and memory for growing N.
5  On a GPU, where there is one: against cdist + argmin in chunks, in time and memory, and as a share of what a large
   float32 matrix product (TF32 off) reaches there.

Writes results/vq_search.json; with --quick (small sizes, few repetitions) only prints.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import machine
import torch
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from smalti.quantize import search
from smalti.quantize.search import nearest
from smalti.quantize.vector import VectorQuantizer

SIZES = ((16384, 512, 64), (16384, 8192, 8), (65536, 1024, 64))  # N latents, K codes, D channels
QUICK_SIZES = ((4096, 512, 64), (4096, 2048, 8))
Step = Callable[[], object]
LayerAndInput = tuple[torch.nn.Module, Tensor]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layers(count: int, codes: int, dimension: int) -> tuple[LayerAndInput, LayerAndInput]:
    """Ours and the peer's with one codebook, each with its input: (1, D, N, 1) channels_last and (1, N, D)."""
    rows, codebook = randn(count, dimension), randn(codes, dimension, seed=1)
    ours = VectorQuantizer(codes, dimension)
    ours.codebook.copy_(codebook)
    theirs = VectorQuantize(dim=dimension, codebook_size=codes, decay=0.99, commitment_weight=0.25)
    theirs._codebook.embed.data.copy_(codebook[None])
    picture = rows.view(1, count, 1, dimension).permute(0, 3, 1, 2)
    return (ours, picture.requires_grad_()), (theirs, rows.view(1, count, dimension).clone().requires_grad_())


def evaluation(pair: LayerAndInput) -> object:
    with torch.no_grad():
        return pair[0].eval()(pair[1])


def training_step(pair: LayerAndInput) -> None:
    layer, latents = pair
    latents.grad = None
    found = layer.train()(latents)
    values, loss = (found.values, found.loss) if isinstance(layer, VectorQuantizer) else (found[0], found[2])
    (values.sum() + loss.sum()).backward()


def in_turn(steps: dict[str, Step], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each step in each repetition, after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(repetitions + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if repetition:
                taken[name].append(time.perf_counter() - started)
    return taken


def ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def speed(size: tuple[int, int, int], repetitions: int) -> dict[str, Any]:
    ours, theirs = layers(*size)
    same = (evaluation(ours).codes.flatten() == evaluation(theirs)[1].flatten()).float().mean()  # type: ignore[attr-defined,index]
    entry: dict[str, Any] = {"size": size, "same_codes": float(same)}
    for name, run in (("eval", evaluation), ("train", training_step)):
        taken = in_turn({"ours": lambda run=run: run(ours), "theirs": lambda run=run: run(theirs)}, repetitions)
        entry[name] = {f"{who}_s": statistics.median(seconds) for who, seconds in taken.items()}
        entry[name]["times_faster"] = ratio(taken["theirs"], taken["ours"])
    return entry


@torch.no_grad()
def bare_product(rows: Tensor, codebook: Tensor, *, codes_first: bool) -> None:
    """The matrix product of the search's tiles into one buffer."""
    latents, height = search.tile_shape(len(rows), len(codebook), torch.get_num_threads(), search._score_bytes())
    buffer = torch.empty(latents * height)
    for start in range(0, len(rows), latents):
        part = rows[start : start + latents]
        for tile in codebook.split(height):
            left, right = (tile, part) if codes_first else (part, tile)
            torch.mm(left, right.T, out=buffer[: len(tile) * len(part)].view(len(left), len(right)))


def product(size: tuple[int, int, int], repetitions: int) -> dict[str, Any]:
    count, codes, dimension = size
    rows, codebook = randn(count, dimension), randn(codes, dimension, seed=1)
    taken = in_turn(
        {
            "search": lambda: nearest(rows, codebook),
            "codes_first": lambda: bare_product(rows, codebook, codes_first=True),
            "latents_first": lambda: bare_product(rows, codebook, codes_first=False),
        },
        repetitions,
    )
    return {
        "size": size,
        "tile": search.tile_shape(count, codes, torch.get_num_threads(), search._score_bytes()),
        **{f"{name}_s": statistics.median(seconds) for name, seconds in taken.items()},
        "ratio_codes_first": ratio(taken["search"], taken["codes_first"]),
        "ratio_latents_first": ratio(taken["search"], taken["latents_first"]),
    }


def memory(what: str, who: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """Peak growth in MiB; to be run in a fresh process."""
    count, codes, dimension = size

    def prepared(count: int) -> Step:
        if what == "search":
            rows, codebook = randn(count, dimension), randn(codes, dimension, seed=1)
            return lambda: nearest(rows, codebook)
        pair = layers(count, codes, dimension)[who == "theirs"]
        return lambda: (evaluation if what == "eval" else training_step)(pair)

    prepared(64)()  # so that the libraries' own memory is not counted
    step = prepared(count)
    growth = machine.memory_growth()
    step()
    return {"size": size, "what": what, "who": who, "growth_mib": growth()}


def child(what: str, who: str, size: tuple[int, int, int]) -> dict[str, Any]:
    threads = ["--threads", str(torch.get_num_threads())]
    command = [sys.executable, __file__, *threads, "--child", what, who, *map(str, size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Of the straight line through log time over log size."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    return statistics.linear_regression(x, y).slope


def growth(repetitions: int, largest: int) -> dict[str, Any]:
    """Time against N (K = 512, D = 64) and against K (N = 16384, D = 64); all sizes in turn."""
    counts, codes = [largest >> shift for shift in (4, 3, 2, 1, 0)], [512, 1024, 2048, 4096, 8192]
    rows, codebook = randn(largest, 64), randn(codes[-1], 64, seed=1)
    few = rows[:16384]
    over_n = in_turn({str(n): lambda n=n: nearest(rows[:n], codebook[:512]) for n in counts}, repetitions)
    over_k = in_turn({str(k): lambda k=k: nearest(few, codebook[:k]) for k in codes}, repetitions)
    # The least of the repetitions, because here different sizes are compared and the machine's other work is not ours.
    n_seconds, k_seconds = ([min(v) for v in taken.values()] for taken in (over_n, over_k))
    return {
        "over_n": {"n": counts, "seconds": n_seconds, "slope": slope(counts, n_seconds)},
        "over_k": {"k": codes, "seconds": k_seconds, "slope": slope(codes, k_seconds)},
        "memory": [child("search", "ours", (n, 512, 64)) for n in counts],
    }


def cdist_argmin(rows: Tensor, codebook: Tensor, chunk: int = 4096) -> Tensor:
    return torch.cat([torch.cdist(part, codebook).argmin(dim=1) for part in rows.split(chunk)])


def gpu_seconds(step: Step, repetitions: int) -> list[float]:
    taken = []
    for repetition in range(repetitions + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        step()
        torch.cuda.synchronize()
        if repetition:
            taken.append(time.perf_counter() - started)
    return taken


def matmul_peak(repetitions: int) -> float:
    """Floating point operations a second of a large float32 product."""
    square = torch.randn(8192, 8192, device="cuda")
    return 2 * 8192**3 / statistics.median(gpu_seconds(lambda: square @ square, repetitions))


def on_gpu(count: int, codes: int, dimension: int, repetitions: int) -> dict[str, Any]:
    torch.backends.cuda.matmul.allow_tf32 = False
    peak = matmul_peak(repetitions)
    rows, codebook = randn(count, dimension).cuda(), randn(codes, dimension, seed=1).cuda()
    entry: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "size": (count, codes, dimension)}
    found = {}
    for name, find in (("search", nearest), ("cdist", cdist_argmin)):
        with torch.no_grad():
            entry[f"{name}_s"] = statistics.median(gpu_seconds(lambda find=find: find(rows, codebook), repetitions))
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            found[name] = find(rows, codebook)
        entry[f"{name}_extra_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    entry["times_faster"] = entry["cdist_s"] / entry["search_s"]
    entry["same_codes"] = float((found["search"] == found["cdist"]).float().mean())
    entry["matmul_peak_tflops"] = peak / 1e12
    entry["share_of_peak"] = 2 * count * codes * dimension / entry["search_s"] / peak
    return entry


def shape(size: tuple[int, int, int]) -> str:
    return " x ".join(str(number) for number in size)


def show(result: dict[str, Any]) -> None:
    found = {(m["what"], m["who"], tuple(m["size"])): m["growth_mib"] for m in result["memory"]}
    lines = [("N x K x D", "what", "ours ms", "theirs ms", "times faster", "ours MiB", "theirs MiB", "same codes")]
    for entry in result["speed"]:
        for what in ("eval", "train"):
            times, size = entry[what], tuple(entry["size"])
            seconds = [f"{1000 * times[f'{who}_s']:.1f}" for who in ("ours", "theirs")]
            room = [f"{found[what, who, size]:.0f}" for who in ("ours", "theirs")]
            same = f"{entry['same_codes']:.4%}"
            lines.append((shape(entry["size"]), what, *seconds, f"{times['times_faster']:.1f}", *room, same))
    machine.table(lines)
    lines = [("N x K x D", "search ms", "MiB", "/ product codes first", "/ product latents first")]
    for entry in result["product"]:
        room = f"{found['search', 'ours', tuple(entry['size'])]:.0f}"
        ratios = [f"{entry[f'ratio_{name}_first']:.2f}" for name in ("codes", "latents")]
        lines.append((shape(entry["size"]), f"{1000 * entry['search_s']:.1f}", room, *ratios))
    machine.table(lines)
    for name, entry in (("N", result["growth"]["over_n"]), ("K", result["growth"]["over_k"])):
        print(f"slope over {name}: {entry['slope']:.3f}")
    print("MiB over N:", [(m["size"][0], round(m["growth_mib"], 1)) for m in result["growth"]["memory"]])
    for entry in result["gpu"]:
        print(json.dumps(entry, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        what, who, *size = arguments.child
        print(json.dumps(memory(what, who, tuple(map(int, size)))))  # type: ignore[arg-type]
        return
    quick = arguments.quick
    sizes, repetitions = (QUICK_SIZES, 3) if quick else (SIZES, 7)
    result: dict[str, Any] = {
        "speed": [speed(size, repetitions) for size in sizes],
        "product": [product(size, 3 * repetitions) for size in sizes],
        "memory": [
            child(what, who, size)
            for size in sizes
            for what, who in (("eval", "ours"), ("eval", "theirs"), ("train", "ours"), ("train", "theirs"),
                              ("search", "ours"))
        ],
        "growth": growth(repetitions, 2**16 if quick else 10**6),
        "gpu": [],
    }  # fmt: skip
    if torch.cuda.is_available():
        count, codes = (2**16, 1024) if quick else (10**6, 16384)
        result["gpu"] = [on_gpu(count, codes, dimension, repetitions) for dimension in (8, 64)]
    show(result)
    if not quick:
        machine.write("vq_search", result)


if __name__ == "__main__":
    main()
