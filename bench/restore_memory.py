"""Peak memory of `smalti restore` for pictures of 4, 24 and 100 megapixels, each in a process of its own.

    python bench/restore_memory.py RESTORER [--megapixels 4 24 100] [--format jpeg]

The pictures are clouds, written as JPEG or PNG; the peak is VmHWM of the process, beside that of one that restores a
picture of 64x64 pixels, which is the interpreter, torch and the network. Linux alone.
Writes results/restore_memory.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import numpy as np
from PIL import Image

_RUN = """
import sys
from smalti.cli import run
code = run(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak.split()[1])
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("restorer")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[4, 24, 100])
    parser.add_argument("--format", choices=["jpeg", "png"], default="jpeg")
    options = parser.parse_args()
    rows, found = [("picture", "peak MiB", "seconds")], {}
    Image.MAX_IMAGE_PIXELS = None
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in (64**2 / 1e6, *options.megapixels):
            side = round((megapixels * 1e6) ** 0.5)
            path = Path(folder) / f"{side}.{options.format}"
            generator = np.random.default_rng(0)
            coarse = Image.fromarray(generator.integers(0, 256, (side // 40 + 1, side // 40 + 1, 3)).astype(np.uint8))
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(path)
            words = ["restore", options.restorer, str(path), "--out", folder + "/out", "--pixel-limit", "200000000"]
            begin = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", _RUN, *words], capture_output=True, text=True, check=True)
            seconds, peak = time.perf_counter() - begin, int(done.stdout.split()[-1]) / 1024
            found[f"{side}x{side}"] = {"peak_mib": peak, "seconds": seconds}
            rows.append((f"{side}x{side}", f"{peak:.0f}", f"{seconds:.0f}"))
            print(*rows[-1], flush=True)
    machine.table(rows)
    machine.write("restore_memory", {"format": options.format, "results": found})


if __name__ == "__main__":
    main()
