"""Frequency tables of the parameter grid: golden digest, exactness, against the float distribution."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smalti.codec import tables
from smalti.codec.tables import SCALES, SPIKED_SCALES, SPIKES, row_numbers, scalar_tables
from smalti.models.codec.distribution import Distribution
from smalti.models.codec.grid import LOG_SCALE_LOW, SPIKE_LOW

ROWS = SPIKED_SCALES * SPIKES * 8 + (SCALES - SPIKED_SCALES) * 8


def grid_point(row: int) -> tuple[float, float, float]:
    """Mean relative to the shift, log2 of the scale and logit of the spike of a row."""
    fraction = row % 8 - 4
    if row < SPIKED_SCALES * SPIKES * 8:
        scale, spike = divmod(row // 8, SPIKES)
    else:
        scale, spike = SPIKED_SCALES + (row - SPIKED_SCALES * SPIKES * 8) // 8, 0
    return fraction / 8, LOG_SCALE_LOW + scale / 4, SPIKE_LOW + spike / 2


def frequencies(row: int) -> tuple[np.ndarray, int]:
    """Frequencies of a row's symbols, the escape last, and its first value."""
    found = scalar_tables()
    return np.diff(found.cumulative[found.starts[row] : found.starts[row + 1]]), int(found.first[row])


def test_the_tables_are_the_same_everywhere() -> None:
    """The format: a change here makes files unreadable."""
    found, sha = scalar_tables(), hashlib.sha256()
    for part, kind in ((found.starts, "<i8"), (found.cumulative, "<i8"), (found.first, "<i4")):
        sha.update(part.astype(kind).tobytes())
    assert sha.hexdigest() == "9923368195b68cd2f3f278914dc2be2773e26fa7431f4a623552d6ebf27c92d7"


def test_every_row_is_a_distribution() -> None:
    found = scalar_tables()
    assert len(found) == ROWS == 4072
    lengths, inner = np.diff(found.starts), np.diff(found.cumulative)
    inner = inner[np.delete(np.arange(len(inner)), found.starts[1:-1] - 1)]  # not across rows
    assert inner.min() >= 1
    assert (found.cumulative[found.starts[1:] - 1] == 1 << 16).all()
    assert (lengths - 1 == -2 * found.first + 2).all()  # -R to R and the escape
    assert lengths.max() - 1 == 2 * 7 * 64 + 2


def test_frequencies_fall_on_both_sides_of_the_mean() -> None:
    """Apart from the largest, which has the remainder."""
    for row in range(ROWS):
        found, first = frequencies(row)
        mean = grid_point(row)[0]
        values = np.delete(first + np.arange(len(found) - 1), found[:-1].argmax())
        found = np.delete(found[:-1], found[:-1].argmax())
        assert (np.diff(found[values >= mean]) <= 0).all()
        assert (np.diff(found[values <= mean]) >= 0).all()


@pytest.mark.parametrize("log_scale", [-4.75, -0.25, 2.0, 6.0])
def test_opposite_means_mirror_each_other(log_scale: float) -> None:
    masses = tables._masses(log_scale, 20)
    for fraction in range(1, 4):
        assert np.array_equal(masses[4 - fraction, :-1], masses[4 + fraction, :-1][::-1])
    assert np.array_equal(masses[4, :-1], masses[4, :-1][::-1])
    assert np.array_equal(masses[0, :-2], masses[0, :-2][::-1])  # mean -1/2
    assert (masses.sum(axis=1) == 1 << 31).all()
    assert (masses >= 0).all()


def logistic_mass(values: np.ndarray, mean: float, scale: float) -> np.ndarray:
    """Of the intervals of length 1 around values."""
    low, high = (np.minimum((np.abs(values - mean) + side) / scale, 700) for side in (-0.5, 0.5))
    return 1 / (1 + np.exp(low)) - 1 / (1 + np.exp(high))


def test_frequencies_are_those_of_the_float_distribution() -> None:
    """Up to the frequency of 1 that each symbol has besides, and the remainder, which the largest has."""
    for row in range(0, ROWS, 7):
        found, first = frequencies(row)
        mean, log_scale, spike = grid_point(row)
        values = np.arange(first, first + len(found) - 1)
        share = round(4096 / (1 + math.exp(-spike))) / 4096 if log_scale < 3 else 0
        wanted = (1 - share) * logistic_mass(values, mean, 2**log_scale) + share * logistic_mass(values, mean, 1 / 8)
        difference = found[:-1] - 1 - (65536 - len(found)) * wanted
        assert difference.min() > -1.001
        assert np.delete(difference, found[:-1].argmax()).max() < 0.001
        # The one of training, whose share of the spike is not rounded to 2^-12.
        mean, log_scale, spike = (torch.tensor(value, dtype=torch.float64) for value in (mean, log_scale, spike))
        trained = torch.exp2(-Distribution(mean, log_scale, spike).bits(torch.from_numpy(values).double())).numpy()
        assert np.abs(trained - 2.0**-16 - wanted).max() < 2.0**-13


@given(st.integers(-(2**27), 2**27), st.integers(0, SCALES - 1), st.integers(0, SPIKES - 1))
def test_row_numbers_stand_for_the_parameters(mean: int, scale: int, spike: int) -> None:
    rows, shifts = row_numbers(*(np.array([value]) for value in (mean, scale, spike)))
    found = grid_point(int(rows[0]))
    assert 8 * (found[0] + shifts[0]) == mean
    assert -0.5 <= found[0] < 0.5
    assert found[1] == LOG_SCALE_LOW + scale / 4
    assert found[2] == (SPIKE_LOW + spike / 2 if scale < SPIKED_SCALES else SPIKE_LOW)


@pytest.mark.parametrize("log_scale", [-4.75, -3.0, -0.25, 0.0, 1.5, 6.0])
def test_the_logistic_function_is_exact_but_for_rounding(log_scale: float) -> None:
    found = tables._logistic(log_scale, 300)
    wanted = [2.0**31 / (1 + math.exp(j / 16 * 2**-log_scale)) for j in range(301)]
    assert len(found) == 301
    assert found[0] == 2**30
    # Products of two rounded exponentials are at most 2 units lower, and the quotient another one.
    assert np.abs(found - np.array(wanted) + 1.5).max() <= 1.6
    assert (np.diff(found) <= 0).all()


def test_shares_of_the_spike_are_rounded_logistic_functions() -> None:
    found = [tables._share(index) for index in range(SPIKES)]
    assert found == [round(4096 / (1 + math.exp(3 - index / 2))) for index in range(SPIKES)]
