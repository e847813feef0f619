"""What an import costs: torch stays out until something needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import smalti


@pytest.mark.parametrize(
    "module",
    [
        "smalti",
        "smalti.errors",
        "smalti.config.run",
        "smalti.config.kinds",
        "smalti.config.parse",
        "smalti.metrics",
        "smalti.pipelines",
        "smalti.data.spec",
        "smalti.data",
        "smalti.config.presets",
        "smalti.checkpoint.run_dir",
        "smalti.cli",
    ],
)
def test_torch_stays_out(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr or f"import {module} brings torch with it"


def test_every_public_name_is_there() -> None:
    for name in smalti.__all__:
        assert getattr(smalti, name) is not None
        assert name in dir(smalti)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'smalti' has no attribute 'trian'"):
        _ = smalti.trian
