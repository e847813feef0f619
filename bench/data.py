"""How fast images are packed and read, and how much memory that takes.

    python bench/data.py SOURCE [--work FOLDER]

SOURCE is a folder or archive of 32x32 pictures, for example CIFAR-10 as JPEG files. Measured, each in a process of its
own:

    packing      every split of SOURCE with an empty cache: decode, write, hash, sync
    opening      the packs that are there already
    reading      batches of 64 in the order of training, without and with mirroring
    memory       growth of the peak resident set over one pass of 1,000,000 packed images (the pack repeated in a
                 3 GB file under --work, which is deleted afterwards)

Prints one table and writes bench/results/data.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np

from smalti.data import PackedImages, load
from smalti.data.cache import Options, PackWriter, open_pack
from smalti.data.opening import find_source
from smalti.data.sources import Listing, Numbered

BATCH = 64
MANY = 1_000_000


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def pack(source: str, cache: str) -> dict[str, Any]:
    splits = find_source(source, cache=Path(cache)).listing(None, look=False).splits
    begin, before = time.perf_counter(), peak_mb()
    packs = [load(source, cache=cache, split=split) for split in splits or (None,)]
    return {
        "images": sum(map(len, packs)),
        "seconds": time.perf_counter() - begin,
        "peak_mb": peak_mb(),
        "before_mb": before,
    }


def reopen(source: str, cache: str) -> dict[str, Any]:
    begin = time.perf_counter()
    packed = load(source, cache=cache)
    return {"images": len(packed), "seconds": time.perf_counter() - begin}


def read(source: str, cache: str, flip: bool) -> dict[str, Any]:
    packed = load(source, cache=cache)
    one_pass(packed, len(packed), flip)  # the file is in memory afterwards, as it is after the first epoch
    begin = time.perf_counter()
    count = one_pass(packed, 4 * len(packed), flip)
    seconds = time.perf_counter() - begin
    return {"images": count, "seconds": seconds, "images_per_second": count / seconds}


def one_pass(packed: PackedImages, count: int, flip: bool) -> int:
    for seen in range(0, count, BATCH):
        packed.batch(0, seen, BATCH, flip=flip)
    return count


def tile(source: str, cache: str, work: str) -> dict[str, Any]:
    """Write the large pack."""
    packed = load(source, cache=cache)
    channels, height, width = packed.shape
    writer = PackWriter(Path(work) / "many", MANY, (height, width, channels))
    for row in range(0, MANY, len(packed)):
        writer.write(row, packed.images[: MANY - row])
    listing = Listing(None, (), Numbered("", MANY), labels=np.zeros(MANY, np.int64).tolist(), classes=("only",))
    writer.finish(listing, Options(None, "cover", None), "bench", [])
    return {"images": MANY, "bytes": MANY * height * width * channels}


def memory(work: str) -> dict[str, Any]:
    packed = open_pack(Path(work) / "many", "bench", "")
    assert packed is not None
    before, begin = peak_mb(), time.perf_counter()
    one_pass(packed, MANY, True)
    seconds = time.perf_counter() - begin
    return {"images": MANY, "seconds": seconds, "growth_mb": peak_mb() - before, "images_per_second": MANY / seconds}


def in_process(name: str, *arguments: object) -> dict[str, Any]:
    """One measurement in a fresh interpreter, so that peaks do not mix."""
    command = [sys.executable, __file__, "--measure", name, json.dumps(arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(source: str, work: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=work, prefix="smalti-bench-") as folder:
        cache = f"{folder}/cache"
        kind = find_source(source, cache=Path(cache)).kind
        results = {
            f"pack ({kind})": in_process("pack", source, cache),
            "open again": in_process("reopen", source, cache),
            "read": in_process("read", source, cache, False),
            "read, mirrored": in_process("read", source, cache, True),
        }
        in_process("tile", source, cache, folder)
        results["read 1,000,000"] = in_process("memory", folder)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, arguments = options.measure
        print(json.dumps(globals()[name](*json.loads(arguments))))
        return
    if options.source is None:
        parser.error("give a folder or archive of pictures")
    options.work.mkdir(parents=True, exist_ok=True)
    results = measure(str(Path(options.source).resolve()), options.work)
    print(f"{'':24}{'images':>12}{'seconds':>10}{'images/s':>12}{'growth MB':>12}")
    for name, row in results.items():
        growth = row.get("growth_mb", row["peak_mb"] - row["before_mb"] if "peak_mb" in row else None)
        speed = row["images"] / row["seconds"]
        grown = "" if growth is None else f"{growth:.0f}"
        print(f"{name:24}{row['images']:>12,}{row['seconds']:>10.2f}{speed:>12,.0f}{grown:>12}")
    machine.write("data", {"results": results})


if __name__ == "__main__":
    main()
