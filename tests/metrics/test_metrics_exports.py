"""The names that `smalti.metrics` exports, and that importing the package loads no torch."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import smalti.metrics
from smalti.metrics.frechet import FrechetDistance
from smalti.metrics.metric import MetricValue


def test_torch_is_not_imported() -> None:
    code = "import sys, smalti.metrics; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr or "import smalti.metrics imports torch"


@pytest.mark.parametrize("name", smalti.metrics.__all__)
def test_every_exported_name_is_that_of_its_module(name: str) -> None:
    found = getattr(smalti.metrics, name)
    assert found.__name__ == name
    assert getattr(importlib.import_module(found.__module__), name) is found
    assert found.__module__.startswith("smalti.metrics.")
    assert name in dir(smalti.metrics)


def test_exported_names_are_known_to_type_checkers() -> None:
    tree = ast.parse(Path(smalti.metrics.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == {name: getattr(smalti.metrics, name).__module__ for name in smalti.metrics.__all__}


def test_imports_by_name_and_by_star() -> None:
    names: dict[str, object] = {}
    exec("from smalti.metrics import *\nfrom smalti.metrics import MetricValue as value", names)
    assert names["FrechetDistance"] is FrechetDistance
    assert names["value"] is MetricValue


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'smalti\.metrics' has no attribute 'frechet_distanse'"):
        _ = smalti.metrics.frechet_distanse
