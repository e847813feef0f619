"""Frequencies of the coefficients' distributions, for every point of the parameter grid.

    e(x) = exp(-x)                  in units of 2^-31: products of two tables that `decimal` fills, exact to the bit
    S(x) = e(x) / (1 + e(x))        logistic function of -x, in units of 2^-31, rounded down
    L(k, s) = S((k - m - 1/2) / s) - S((k - m + 1/2) / s)                  mass of a logistic, in units of 2^-31
    mass(k) = (4096 - w) L(k, s) + w L(k, s0)                              models/codec/distribution.py
    frequency(k) = 1 + floor(mass(k) (2^16 - n) / 2^43)     n symbols; the remainder goes to the most probable one

Everything is integer arithmetic, so the tables are the same on every machine and are not part of any file. A row holds
the values -R to R around the rounded mean and an escape symbol; on either side of R the mass is below 2^-10.
"""

from __future__ import annotations

import functools
import math
from decimal import Decimal, localcontext

import numpy as np

from smalti.codec.entropy import FrequencyTables
from smalti.models.codec.grid import (
    LOG_SCALE_HIGH,
    LOG_SCALE_LOW,
    MEAN_UNITS,
    SCALE_UNITS,
    SPIKE_HIGH,
    SPIKE_LIMIT,
    SPIKE_LOW,
    SPIKE_SCALE,
    SPIKE_UNITS,
)

ONE = 1 << 31
SHARE_ONE = 1 << 12  # unit of the spike's share
TOTAL = 1 << 16
FINE = 64  # entries of the fine table of exponentials
SCALES = round((LOG_SCALE_HIGH - LOG_SCALE_LOW) * SCALE_UNITS) + 1
SPIKED_SCALES = round((SPIKE_LIMIT - LOG_SCALE_LOW) * SCALE_UNITS)  # scales below have rows for each spike
SPIKES = round((SPIKE_HIGH - SPIKE_LOW) * SPIKE_UNITS) + 1
TAIL = 7  # scales from the mean beyond which the mass on one side is below 2^-10


def row_numbers(mean: np.ndarray, scale: np.ndarray, spike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of distributions, and the integers that their values are relative to.

    Args:
        mean: integers, in 1/8 step.
        scale, spike: integers, in grid points from the lowest, within the grid.

    Returns:
        (rows, shifts), int32: the coefficient is shift + value of the row's symbol.
    """
    shifts = (mean + MEAN_UNITS // 2) >> 3
    fraction = mean - MEAN_UNITS * shifts + MEAN_UNITS // 2
    spiked = (scale * SPIKES + spike) * MEAN_UNITS
    plain = SPIKED_SCALES * SPIKES * MEAN_UNITS + (scale - SPIKED_SCALES) * MEAN_UNITS
    return np.where(scale < SPIKED_SCALES, spiked, plain) + fraction, shifts


@functools.cache
def scalar_tables() -> FrequencyTables:
    """The rows of all grid points, in the order of `row_numbers`."""
    shares = [_share(index) for index in range(SPIKES)]
    lengths, parts, firsts = [], [], []
    for scale in range(SCALES):
        exponent = LOG_SCALE_LOW + scale / SCALE_UNITS
        reach = max(2, math.ceil(TAIL * 2.0**exponent))
        wide, narrow = _masses(exponent, reach), _masses(math.log2(SPIKE_SCALE), reach)
        options = shares if scale < SPIKED_SCALES else [0]
        mixed = np.concatenate([(SHARE_ONE - share) * wide + share * narrow for share in options])
        rows = _frequencies(mixed)
        cumulative = np.zeros((len(rows), rows.shape[1] + 1), dtype=np.int64)
        np.cumsum(rows, axis=1, out=cumulative[:, 1:])
        parts.append(cumulative.ravel())
        lengths += [cumulative.shape[1]] * len(rows)
        firsts += [-reach] * len(rows)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return FrequencyTables(starts.astype(np.int64), np.concatenate(parts), np.array(firsts, dtype=np.int32))


def _share(index: int) -> int:
    """w in units of 2^-12: logistic function of the logit, rounded."""
    with localcontext(prec=40):
        weight = (-Decimal(SPIKE_LOW + index / SPIKE_UNITS)).exp()
        return int(SHARE_ONE / (1 + weight) + Decimal("0.5"))


def _masses(log_scale: float, reach: int) -> np.ndarray:
    """Masses of -reach..reach and of what is outside, for each fraction of the mean: (8, 2 reach + 2), in 2^-31."""
    unit = 2 * MEAN_UNITS  # borders and means are multiples of 1/16
    upper = _logistic(log_scale, (reach + 2) * unit)
    fractions = np.arange(MEAN_UNITS) - MEAN_UNITS // 2
    values = np.arange(-reach, reach + 1)
    away = np.abs(values * unit - 2 * fractions[:, None])  # of the interval's centre from the mean, in 1/16
    half = unit // 2
    near = np.where(away < half, ONE - upper[np.abs(half - away)], upper[np.abs(away - half)])
    inside = near - upper[away + half]
    return np.concatenate([inside, ONE - inside.sum(axis=1, keepdims=True)], axis=1)


def _logistic(log_scale: float, count: int) -> np.ndarray:
    """S(j / (16 s)) for j = 0..count, in units of 2^-31."""
    with localcontext(prec=40):
        # 2^log_scale by decimal: log2 s is a multiple of 1/4.
        slope = (Decimal(-log_scale) * Decimal(2).ln()).exp() / (2 * MEAN_UNITS)
        fine = [int(ONE * (-slope * j).exp()) for j in range(FINE)]
        coarse = [int(ONE * (-slope * FINE * j).exp()) for j in range(count // FINE + 1)]
    exponentials = (np.array(coarse, dtype=np.int64)[:, None] * np.array(fine, dtype=np.int64) >> 31).ravel()
    exponentials = exponentials[: count + 1]
    return (exponentials << 31) // (ONE + exponentials)


def _frequencies(masses: np.ndarray) -> np.ndarray:
    """(rows, n) masses that sum to at most 2^43 -> frequencies of at least 1 that sum to 2^16."""
    count = masses.shape[1]
    frequencies = 1 + (masses * (TOTAL - count) >> 43)
    largest = frequencies.argmax(axis=1)
    frequencies[np.arange(len(frequencies)), largest] += TOTAL - frequencies.sum(axis=1)
    return frequencies
