"""All figures that compare two sets of images by their features: each block of pairs is computed once.

    frechet_distance, frechet_distance_infinity          frechet.py
    kernel_distance                                      pairs.py
    precision, recall, density, coverage                 pairs.py

Layout: features (N, D), one row an image.
"""

from __future__ import annotations

from torch import Tensor

from smalti.metrics.frechet import FrechetDistance
from smalti.metrics.metric import MetricValue
from smalti.metrics.pairs import NEIGHBOURS, ball_figures, compare_pairs, kernel_figures
from smalti.metrics.vectors import BLOCK, at_least_two, checked


def measure_distribution(
    real: Tensor, fake: Tensor, *, seed: int = 0, neighbours: int = NEIGHBOURS
) -> tuple[MetricValue, ...]:
    """Compare two sets of feature vectors.

    Args:
        real, fake: (N, D) and (M, D) floats, from the same extractor.
        seed: of the intervals.
        neighbours: k of precision, recall, density and coverage; with fewer images, one less than the smaller set has.

    Returns:
        The figures of the table above in its order, each with an interval; `frechet_distance_infinity` is missing
        with fewer than 4 images in a set.

    Raises:
        DataError: fewer than 2 images in a set, unlike D, NaN or infinite values.
    """
    real = checked(real, what="real features")
    fake = checked(fake, dimension=real.shape[1], what="generated features")
    at_least_two(len(real), "real")
    at_least_two(len(fake), "generated")
    frechet = FrechetDistance(seed=seed)
    for features, is_real in ((real, True), (fake, False)):
        for rows in features.split(BLOCK):
            frechet.update(rows, real=is_real)
    kernels, balls = compare_pairs(real, fake, neighbours=neighbours)
    assert kernels is not None
    assert balls is not None
    return (*frechet.compute(), *kernel_figures(kernels, seed=seed), *ball_figures(balls, seed=seed))
