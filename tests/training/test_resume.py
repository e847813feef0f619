"""SIGKILL at random moments, through the bench that does it twenty times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "exact_resume.py"


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["vqvae", "vqvae-best", "gan-nano", "dcgan"])
def test_kills_change_nothing(preset: str, tmp_path: Path) -> None:
    # gan-nano sees fewer images a second than the others.
    images = "1600" if preset == "gan-nano" else "3200"
    words = ["--kills", "2", "--images", images, "--presets", preset, "--results", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(BENCH), *words], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads((tmp_path / "exact_resume.json").read_text())["runs"]
    assert row["equal"] is True
    assert row["kills"] == 2
    assert row["digest"] == row["digest_after_kills"]
    assert os.listdir(tmp_path) == ["exact_resume.json"]
