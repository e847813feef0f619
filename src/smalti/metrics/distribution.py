"""All metrics that compare the feature distributions of two sets of images, in one pass over their pairs.

    frechet_distance, frechet_distance_infinity          frechet.py
    kernel_distance                                      pairs.py
    precision, recall, density, coverage                 pairs.py

Layout: features (N, D), one row per image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.metrics.frechet import FrechetDistance
from smalti.metrics.metric import MetricValue
from smalti.metrics.pairs import NEIGHBOURS, ball_figures, compare_pairs, kernel_figures
from smalti.metrics.vectors import BLOCK, at_least_two, checked


def measure_distribution(
    real: Tensor, fake: Tensor, *, seed: int = 0, neighbours: int = NEIGHBOURS
) -> tuple[MetricValue, ...]:
    """Compare the feature distributions of real and generated images.

    Args:
        real, fake: (N, D) and (M, D) floats from the same feature extractor.
        seed: seed of the bootstrap.
        neighbours: k of precision, recall, density and coverage; limited to one less than the size of the smaller set.

    Returns:
        The metric values in the order of the table above, each with a confidence interval;
        `frechet_distance_infinity` is absent if a set has fewer than 4 images.

    Raises:
        DataError: a set has fewer than 2 images, D differs, or there are NaN or infinite values.
    """
    real = checked(real, what="real features")
    fake = checked(fake, dimension=real.shape[1], what="generated features")
    at_least_two(len(real), "real")
    at_least_two(len(fake), "generated")
    frechet = FrechetDistance(seed=seed)
    for features, is_real in ((real, True), (fake, False)):
        for rows in torch.split(features, BLOCK):
            frechet.update(rows, real=is_real)
    kernels, balls = compare_pairs(real, fake, neighbours=neighbours)
    assert kernels is not None
    assert balls is not None
    return (*frechet.compute(), *kernel_figures(kernels, seed=seed), *ball_figures(balls, seed=seed))
