"""All distribution metrics in one pass: the same values as one by one, and invalid input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smalti.errors import DataError
from smalti.metrics.distribution import measure_distribution
from smalti.metrics.frechet import FrechetDistance
from smalti.metrics.metric import FeatureMetric
from smalti.metrics.pairs import KernelDistance, PrecisionRecall


def normal(count: int, dimension: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


def test_all_at_once_is_each_of_them() -> None:
    real, fake = normal(300, 12), normal(250, 12, 1) + 0.2
    singly: list[FeatureMetric] = [FrechetDistance(seed=3), KernelDistance(seed=3), PrecisionRecall(seed=3)]
    for metric in singly:
        metric.update(real, real=True)
        metric.update(fake, real=False)
    at_once = measure_distribution(real, fake, seed=3)
    assert at_once == tuple(figure for metric in singly for figure in metric.compute())
    assert [figure.name for figure in at_once] == [
        "frechet_distance", "frechet_distance_infinity", "kernel_distance", "precision", "recall", "density", "coverage"
    ]  # fmt: skip
    for figure in at_once:
        assert figure.low is not None
        assert figure.low <= figure.value <= figure.high


def test_the_seed_moves_the_intervals_alone() -> None:
    real, fake = normal(300, 12), normal(250, 12, 1) + 0.2
    one, two = measure_distribution(real, fake, seed=1), measure_distribution(real, fake, seed=2)
    assert [figure.value for figure in one] == [figure.value for figure in two]
    assert one[0].low != two[0].low
    assert measure_distribution(real, fake, seed=1) == one


def test_half_precision_and_two_images_are_taken() -> None:
    assert len(measure_distribution(normal(40, 4).half(), normal(40, 4, 1).bfloat16())) == 7
    assert len(measure_distribution(normal(2, 4), normal(2, 4, 1))) == 6
    constant = measure_distribution(torch.ones(30, 4), torch.ones(30, 4))
    assert constant[0].value == 0
    assert "same features" in constant[0].note


def test_bad_input_is_one_line() -> None:
    with pytest.raises(DataError, match="1 generated image given"):
        measure_distribution(normal(9, 4), normal(1, 4))
    with pytest.raises(DataError, match="5 dimensions, the others 4"):
        measure_distribution(normal(9, 4), normal(9, 5))
    with pytest.raises(DataError, match="NaN"):
        measure_distribution(normal(9, 4), normal(9, 4) * torch.nan)
