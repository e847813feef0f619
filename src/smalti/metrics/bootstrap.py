"""Intervals by the bootstrap: how far a figure would move with another sample of as many images.

A figure is written as a function of means over images (for a Frechet distance: of its influence values), and the means
are drawn again, each image counted as often as a draw of N out of N with replacement counts it.  The interval holds the
middle `LEVEL` of the draws.  Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LEVEL = 0.95
DRAWS = 1000
_BLOCK = 2**22  # counts held at once


def interval(
    samples: Sequence[np.ndarray],
    statistic: Callable[[Sequence[np.ndarray]], np.ndarray],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Percentile interval of a function of means.

    Args:
        samples: one array for each independent set of images, (N,) or (N, M) float: M values an image.
        statistic: takes the drawn means, one array of (draws,) or (draws, M) a set, and gives (draws,) values.
        seed: any integer from 0; the same seed gives the same interval.
        draws: times everything is drawn again.
        level: share of the draws inside.

    Returns:
        (low, high).
    """
    generator = np.random.default_rng(seed)
    means = [_drawn_means(np.asarray(sample, np.float64), generator, draws) for sample in samples]
    values = np.asarray(statistic(means), np.float64)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(sample: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """`interval` of the mean of one (N,) array; for booleans of the share that is true.

    Booleans that are all alike leave nothing to draw: the far end is then that of Clopper and Pearson (1934).
    """
    if sample.dtype == bool and len(sample) and (sample.all() or not sample.any()):
        far = unseen_share(len(sample))
        return (1 - far, 1.0) if sample.all() else (0.0, far)
    return interval([sample], lambda means: means[0], seed=seed)


def unseen_share(count: int, *, level: float = LEVEL) -> float:
    """The largest share of something that may well not be seen once in `count` images."""
    return float(1 - ((1 - level) / 2) ** (1 / count))


def _drawn_means(sample: np.ndarray, generator: np.random.Generator, draws: int) -> np.ndarray:
    """(N, ...) -> (draws, ...): the mean of each draw of N with replacement."""
    count = len(sample)
    flat = sample.reshape(count, -1)
    means = np.empty((draws, flat.shape[1]))
    step = max(1, _BLOCK // max(count, 1))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        chosen = generator.integers(count, size=(rows, count))
        # How often each image was drawn: one bincount over all rows, each in a range of its own.
        chosen += np.arange(rows)[:, None] * count
        counts = np.bincount(chosen.ravel(), minlength=rows * count).reshape(rows, count)
        means[start : start + rows] = counts @ flat / count
    return means.reshape(draws, *sample.shape[1:])
