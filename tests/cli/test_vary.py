"""`smalti vary`: what is refused; tests/pipelines/test_inpainting.py has what it makes."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize("option", ["--truncation", "--interpolate", "--mix"])
def test_parts_are_not_drawn_from_latents(smalti, priors, option: str) -> None:
    done = smalti("vary", priors.plain, "a.png", option, "0.5", "--out", "v")
    assert done.code != 0
    assert option in done.err
    assert not Path("v").exists()
