"""Bootstrap confidence intervals: how much a metric would vary over samples of the same size.

A metric is written as a function of means over images (for the Frechet distance, of its influence values). Each
resample takes N of the N images with replacement and recomputes the means; the percentile interval holds the central
`LEVEL` of the resampled values.  Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LEVEL = 0.95
DRAWS = 1000
_BLOCK = 2**22  # multiplicities held in memory at once


def interval(
    samples: Sequence[np.ndarray],
    statistic: Callable[[Sequence[np.ndarray]], np.ndarray],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Percentile bootstrap confidence interval of a function of means.

    Args:
        samples: one array per independent set of images, (N,) or (N, M) float with M values per image.
        statistic: maps the resampled means, one (draws,) or (draws, M) array per set, to (draws,) values.
        seed: non-negative integer; the same seed gives the same interval.
        draws: number of bootstrap resamples.
        level: confidence level.

    Returns:
        (low, high).
    """
    generator = np.random.default_rng(seed)
    means = [_drawn_means(np.asarray(sample, np.float64), generator, draws) for sample in samples]
    values = np.asarray(statistic(means), np.float64)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(sample: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Confidence interval of the mean of an (N,) array; for booleans, of the proportion that is true.

    If all booleans are equal, every resample is the same; the exact interval of Clopper and Pearson (1934) is used.
    """
    if sample.dtype == bool and len(sample) and (sample.all() or not sample.any()):
        far = unseen_share(len(sample))
        return (1 - far, 1.0) if sample.all() else (0.0, far)
    return interval([sample], lambda means: means[0], seed=seed)


def unseen_share(count: int, *, level: float = LEVEL) -> float:
    """Upper Clopper-Pearson bound on a proportion of which `count` images contain no instance."""
    return float(1 - ((1 - level) / 2) ** (1 / count))


def _drawn_means(sample: np.ndarray, generator: np.random.Generator, draws: int) -> np.ndarray:
    """(N, ...) -> (draws, ...): the mean of each bootstrap resample of size N."""
    count = len(sample)
    flat = sample.reshape(count, -1)
    means = np.empty((draws, flat.shape[1]))
    step = max(1, _BLOCK // max(count, 1))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        chosen = generator.integers(count, size=(rows, count))
        # The multiplicity of each image per resample; one bincount serves all rows, each in its own range.
        chosen += np.arange(rows)[:, None] * count
        counts = np.bincount(chosen.ravel(), minlength=rows * count).reshape(rows, count)
        means[start : start + rows] = counts @ flat / count
    return means.reshape(draws, *sample.shape[1:])
