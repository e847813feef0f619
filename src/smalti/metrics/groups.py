"""A bounded number of groups of images, for intervals of figures that are not means over images.

An image goes into a group by a hash of what was measured of it: neither order nor the number of processes matters, and
equal images stay together. The bootstrap then draws groups (Efron and Tibshirani 1993, section 8.6).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from smalti.metrics.bootstrap import interval

GROUPS = 64


def content_groups(rows: np.ndarray, groups: int) -> np.ndarray:
    """A group for each row, by a hash of what is in it: (N, M) of any 8-byte type -> (N,) int64 in [0, groups)."""
    words = np.ascontiguousarray(rows).view(np.uint64)
    position = np.arange(words.shape[1], dtype=np.uint64)
    mixed = (_scramble(words) * (2 * _scramble(position) + np.uint64(1))).sum(1)
    return (_scramble(mixed) % np.uint64(groups)).astype(np.int64)


def bounds(
    groups: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float] | tuple[None, None]:
    """Bootstrap interval of a function of means over groups, (None, None) where there are fewer than two groups.

    Args:
        groups: (G,) or (G, M) float.
        statistic: takes the drawn means, (draws,) or (draws, M), and gives (draws,) values.
    """
    if len(groups) < 2:
        return None, None
    return interval([groups], lambda means: statistic(means[0]))


def _scramble(state: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014), with its step, so that 0 does not stay 0."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
