"""What every bench says about itself: machine, date, command; and where its results go."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def about() -> dict[str, Any]:
    """Machine, versions, date and the command as typed (paths shortened to their last part)."""
    import torch

    import smalti

    words = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *words]),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "torch_threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "smalti": smalti.__version__},
    }


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return name + (" (avx512_bf16)" if "avx512_bf16" in flags else "")


def memory_growth() -> Callable[[], float]:
    """Begin to measure memory; what it gives tells the peak since, in MiB beyond what this process has now. Linux."""

    def status_mib(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again here
    before = status_mib("VmRSS")
    return lambda: status_mib("VmHWM") - before


def write(name: str, result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write results/NAME.json and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(about() | result, indent=2) + "\n")
    return path


def table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
