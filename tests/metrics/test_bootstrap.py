"""Bootstrap intervals: nominal coverage, and degenerate samples."""

from __future__ import annotations

import numpy as np
import pytest

from smalti.metrics.bootstrap import interval, mean_interval, unseen_share


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        low, high = mean_interval(chance.exponential(size=100), seed=trial)
        held += low <= 1 <= high
    assert 0.89 <= held / 200 <= 0.99


def test_it_is_that_of_the_normal_approximation_for_many_images() -> None:
    sample = np.random.default_rng(1).normal(size=4000)
    low, high = mean_interval(sample)
    half = 1.96 * sample.std() / 4000**0.5
    assert low == pytest.approx(sample.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(sample.mean() + half, abs=0.15 * half)


def test_two_sets_are_drawn_apart_and_functions_of_means_go_through() -> None:
    chance = np.random.default_rng(2)
    a, b = chance.normal(3, 1, 500), chance.normal(1, 1, (700, 2))
    low, high = interval([a, b], lambda means: means[0] / means[1].mean(axis=1), draws=400)
    assert low < a.mean() / b.mean() < high
    assert interval([a, b], lambda means: means[0], seed=5) == interval([a, b], lambda means: means[0], seed=5)
    assert interval([a], lambda means: means[0], seed=5) != interval([a], lambda means: means[0], seed=6)


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_what_was_never_seen_may_still_be_there(count: int) -> None:
    """Clopper and Pearson: a proportion this large gives no instance in 2.5 % of the samples."""
    low, high = mean_interval(np.zeros(count, bool))
    assert low == 0
    assert (1 - high) ** count == pytest.approx(0.025)
    assert mean_interval(np.ones(count, bool)) == (1 - high, 1)
    assert unseen_share(count) == high
    assert mean_interval(np.zeros(count)) == (0, 0), "numbers without spread have none"
