"""How long `import smalti` and `smalti --help` take, and that neither imports torch.

    python bench/start.py

Each is started several times in turn with an empty python for comparison; the median is printed.
Writes results/start.json.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import machine

RUNS = 15
SMALTI = str(Path(sys.executable).with_name("smalti"))
COMMANDS = {
    "python (nothing)": [sys.executable, "-c", "pass"],
    "import smalti": [sys.executable, "-c", "import smalti, sys; assert 'torch' not in sys.modules"],
    "smalti --help": [SMALTI, "--help"],
    "smalti train --help": [SMALTI, "train", "--help"],
}


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - start)
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    machine.table(
        [("what", "median s", "best s"), *((n, f"{m:.3f}", f"{min(times[n]):.3f}") for n, m in medians.items())]
    )
    machine.write(
        "start",
        {"runs": RUNS, "median_seconds": medians, "best_seconds": {n: round(min(v), 3) for n, v in times.items()}},
    )


if __name__ == "__main__":
    main()
