"""Grouped (cluster) bootstrap: confidence intervals of metrics that are not means over images, in bounded memory.

Each image is assigned to one of a fixed number of groups by a hash of its content, so the groups depend neither on the
order of the images nor on the number of processes, and equal images share a group. The bootstrap resamples groups
(Efron and Tibshirani 1993, section 8.6).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from smalti.metrics.bootstrap import interval
from smalti.runtime.hashing import hash_words

GROUPS = 64


def content_groups(rows: np.ndarray, groups: int) -> np.ndarray:
    """Group of each row by a hash of its content: (N, M) of any 8-byte type -> (N,) int64 in [0, groups)."""
    words = np.ascontiguousarray(rows).view(np.uint64)
    position = np.arange(words.shape[1], dtype=np.uint64)
    mixed = (hash_words(words) * (2 * hash_words(position) + np.uint64(1))).sum(1)
    return (hash_words(mixed) % np.uint64(groups)).astype(np.int64)


def bounds(
    groups: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float] | tuple[None, None]:
    """Bootstrap interval of a function of means over groups; (None, None) for fewer than two groups.

    Args:
        groups: (G,) or (G, M) float.
        statistic: maps the resampled means, (draws,) or (draws, M), to (draws,) values.
    """
    if len(groups) < 2:
        return None, None
    return interval([groups], lambda means: statistic(means[0]))
