"""Priors that the tests of several commands share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from small_codes import small_codes
from small_runs import small_config

from smalti.data.codes import open_codes
from smalti.runtime.device import Machine
from smalti.training.loop import train


@pytest.fixture(scope="session")
def priors(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Priors of the same codes: without condition, with labels, with text."""
    folder = tmp_path_factory.mktemp("priors")
    made = SimpleNamespace(codes=folder / "codes")
    codes = small_codes(folder)
    for name, preset, extra in (
        ("plain", "prior-nano", ()),
        ("masked", "maskgit-small", ()),
        ("labelled", "prior-nano", ("model.condition=class",)),
        ("text", "text-emoji", ()),
        ("sure", "text-emoji", ("model.condition_dropout=0",)),
    ):
        held_out = open_codes(folder / "codes", "test")
        train(small_config(preset, *extra), codes, folder / name, held_out=held_out, machine=Machine("cpu", "float32"))
        setattr(made, name, folder / name)
    return made
