"""The distribution of a coefficient: a logistic and a spike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smalti.models.codec.distribution import LEAST, Distribution
from smalti.models.codec.grid import LOG_SCALE_HIGH, LOG_SCALE_LOW, SPIKE_LIMIT


def probabilities(
    values: torch.Tensor, mean: float, log_scale: float, spike: float, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Without what is added for the coder's least probability."""
    parameters = (torch.tensor(value, dtype=dtype) for value in (mean, log_scale, spike))
    return torch.exp2(-Distribution(*parameters).bits(values.to(dtype))) - LEAST


means, scales, spikes = st.floats(-20, 20), st.floats(-8, 8), st.floats(-6, 6)


@given(means, scales, spikes)
def test_probabilities_sum_to_one(mean: float, log_scale: float, spike: float) -> None:
    values = torch.arange(-6000, 6001)
    assert float(probabilities(values, mean, log_scale, spike).sum()) == pytest.approx(1, abs=1e-9)


@given(means, scales, spikes)
def test_probabilities_fall_on_both_sides_of_the_mean(mean: float, log_scale: float, spike: float) -> None:
    values = torch.arange(-60, 61)
    found = probabilities(values, mean, log_scale, spike)
    assert (found >= -1e-12).all()
    assert (found[values >= mean].diff() <= 1e-12).all()
    assert (found[values <= mean].diff() >= -1e-12).all()


@given(st.floats(-1, 1), st.floats(-3, 2.9), st.floats(-3, 4.5))
def test_probabilities_are_those_of_the_formula(mean: float, log_scale: float, spike: float) -> None:
    values = np.arange(-30, 31)

    def logistic(scale: float) -> np.ndarray:
        borders = np.clip((np.append(values, 31) - 0.5 - mean) / scale, -700, 700)
        return np.diff(1 / (1 + np.exp(-borders)))

    share = 1 / (1 + np.exp(-spike))
    wanted = (1 - share) * logistic(2**log_scale) + share * logistic(1 / 8)
    assert np.abs(probabilities(torch.from_numpy(values), mean, log_scale, spike).numpy() - wanted).max() < 1e-9


def test_the_spike_is_on_one_integer_and_only_of_small_scales() -> None:
    values = torch.arange(-3, 4)
    assert probabilities(values, 0, 2.9, 4.5)[3] > 0.95
    assert probabilities(values, 0, SPIKE_LIMIT, 4.5)[3] < 0.05
    assert torch.equal(probabilities(values, 0, SPIKE_LIMIT, 4.5), probabilities(values, 0, SPIKE_LIMIT, -3))


def test_scales_beyond_the_grid_are_those_at_its_end() -> None:
    values = torch.arange(-30, 31)
    for end, beyond in ((LOG_SCALE_LOW, LOG_SCALE_LOW - 3), (LOG_SCALE_HIGH, LOG_SCALE_HIGH + 3)):
        assert torch.equal(probabilities(values, 0.3, end, -3), probabilities(values, 0.3, beyond, -3))


@given(st.floats(-50, 50), st.floats(-4.75, 6), st.integers(-2000, 2000))
def test_no_value_takes_more_than_sixteen_bits_nor_less_than_none(mean: float, log_scale: float, value: int) -> None:
    parameters = (torch.tensor([each]) for each in (mean, log_scale, 0.0))
    bits = float(Distribution(*parameters).bits(torch.tensor([float(value)])))
    assert -1e-3 < bits <= 16.001


def test_gradients_are_finite_in_the_tails() -> None:
    parameters = [torch.tensor([value] * 3, requires_grad=True) for value in (0.0, -4.75, 4.5)]
    values = torch.tensor([0.0, 1000.0, -1e6], requires_grad=True)
    Distribution(*parameters).bits(values).sum().backward()
    for tensor in (*parameters, values):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


def test_a_detached_distribution_has_no_gradient() -> None:
    parameters = [torch.zeros(2, requires_grad=True) for _ in range(3)]
    assert not Distribution(*parameters).detached().bits(torch.ones(2)).requires_grad
