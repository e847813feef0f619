"""Packages whose names are imported when they are first used."""

from __future__ import annotations

import importlib

import pytest

import smalti
from smalti.runtime.lazy import lazy_names

PACKAGES = ("smalti", "smalti.pipelines", "smalti.metrics")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_listed_name_is_there_and_is_its_own(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    for name in module.__all__:
        found = getattr(module, name)
        assert name in dir(module)
        assert name in ("datasets", "__version__") or getattr(found, "__name__", name).rpartition(".")[2] == name


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = importlib.import_module(package).nothing


def test_an_address_is_a_name_in_a_module_or_a_module() -> None:
    get, listed = lazy_names("smalti", {"one": "smalti.errors:SmaltiError", "two": "smalti.errors"})
    assert get("one") is smalti.SmaltiError
    assert get("two").SmaltiError is smalti.SmaltiError
    assert {"one", "two"} <= set(listed())
