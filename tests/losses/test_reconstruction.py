"""Reconstruction losses against numpy, and the properties of a distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.losses.reconstruction import RECONSTRUCTION_LOSSES


def huber(d: np.ndarray) -> np.ndarray:
    return np.where(np.abs(d) <= 0.1, d**2 / 2, 0.1 * (np.abs(d) - 0.05))


FORMULAS = {
    "mse": lambda d: d**2,
    "l1": np.abs,
    "huber": huber,
    "charbonnier": lambda d: np.sqrt(d**2 + 1e-6),
}
PIXELS = st.lists(st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)), min_size=1, max_size=20)


@pytest.mark.parametrize("name", RECONSTRUCTION_LOSSES)
@settings(max_examples=30)
@given(pixels=PIXELS)
def test_a_loss_is_its_formula_and_symmetric(name: str, pixels: list[tuple[float, float]]) -> None:
    a, b = torch.tensor(pixels).T
    loss = RECONSTRUCTION_LOSSES[name]
    expected = FORMULAS[name](a.double().numpy() - b.double().numpy()).mean()
    assert float(loss(a, b)) == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert torch.equal(loss(a, b), loss(b, a))
    assert float(loss(a, a)) == pytest.approx(1e-3 if name == "charbonnier" else 0, abs=1e-9)
    assert loss(a, b) >= loss(a, a)


@pytest.mark.parametrize("name", RECONSTRUCTION_LOSSES)
def test_a_loss_is_float32_whatever_comes_in_and_differentiable_where_it_is_zero(name: str) -> None:
    a = torch.zeros(4, dtype=torch.bfloat16, requires_grad=True)
    value = RECONSTRUCTION_LOSSES[name](a, torch.zeros(4))
    assert value.dtype == torch.float32
    value.backward()
    assert torch.isfinite(a.grad).all()
