"""Memorisation measures on clusters of vectors with none, few and many copies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from smalti.errors import DataError
from smalti.metrics.memorisation import Memorisation, _fisher_p_value, measure_memorisation

DIMENSION = 32


def images(count: int, seed: int) -> Tensor:
    """Ten clusters of different widths, like those of classes."""
    generator = torch.Generator().manual_seed(1000 + seed)
    cluster = torch.randint(10, (count,), generator=generator)
    centres = 4 * torch.randn(10, DIMENSION, generator=torch.Generator().manual_seed(7))
    widths = torch.linspace(0.5, 2, 10)[cluster, None]
    return centres[cluster] + widths * torch.randn(count, DIMENSION, generator=generator)


def damaged(rows: Tensor, seed: int, strength: float = 0.3) -> Tensor:
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
    return rows + strength * noise


def measured(
    share: float, *, seed: int = 0, count: int = 2000, exact: bool = False, planted: bool = True
) -> tuple[Memorisation, Tensor]:
    """Results for a generator that copies a share of its images, and its images, copies first."""
    training = images(count, 10 * seed)
    copies = round(share * count)
    fake = images(count, 10 * seed + 2)
    fake[:copies] = training[:copies] if exact else damaged(training[:copies], seed + 1)
    known = damaged(training[-500:], seed + 5) if planted else None
    return measure_memorisation(training, images(count, 10 * seed + 1), fake, planted=known, seed=seed), fake


def figures(found: Memorisation) -> dict[str, float]:
    return {figure.name: figure.value for figure in found.figures}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.1])
def test_copies_are_found_and_counted(share: float, exact: bool) -> None:
    found, _ = measured(share, exact=exact)
    assert found.detected
    copied = found.figures[0]
    assert copied.name == "copied_share"
    assert copied.value == pytest.approx(share, rel=0.4)
    assert 0 < copied.low <= share <= copied.high * 1.05
    assert found.nearest_training[0].ratio <= found.nearest_training[1].ratio
    worst = found.nearest_training[:10]
    assert all(suspect.fake == suspect.training < round(share * 2000) for suspect in worst)


def test_one_percent_is_found_in_every_run_and_none_is_found_in_none() -> None:
    assert all(measured(0.01, seed=seed)[0].detected for seed in range(1, 5))
    clean = [measured(0, seed=seed)[0] for seed in range(1, 8)]
    assert not any(found.detected for found in clean)
    assert np.mean([figures(found)["copied_share"] for found in clean]) < 0.002


def test_without_planted_copies_exact_ones_are_still_found() -> None:
    found, _ = measured(0.01, exact=True, planted=False)
    assert found.detected
    assert found.true_hits is None
    assert "no copies were planted" in found.figures[0].note
    assert not measured(0, planted=False)[0].detected


def test_c_t_and_authenticity_react() -> None:
    none, all_copied = measured(0)[0], measured(1)[0]
    quiet = {figure.name: figure for figure in none.figures}
    assert quiet["c_t"].low <= 0 <= quiet["c_t"].high
    loud = {figure.name: figure for figure in all_copied.figures}
    assert loud["c_t"].high < -5
    assert loud["authenticity"].value < 0.1 < 0.4 < quiet["authenticity"].value
    training = images(2000, 0)
    blurred = measure_memorisation(training, images(2000, 1), images(2000, 2) * 1.5)
    assert figures(blurred)["c_t"] > 5  # farther from the training set than held-out images: underfitting


def test_c_t_of_one_cell_is_the_mann_whitney_statistic() -> None:
    training, held_out, fake = (images(n, n) for n in (300, 70, 60))
    found = measure_memorisation(training, held_out, fake)
    near = [torch.cdist(rows, training).amin(1).numpy() for rows in (fake, held_out)]
    test = stats.mannwhitneyu(*near, method="asymptotic", use_continuity=False)
    expected = math.copysign(stats.norm.isf(test.pvalue / 2), test.statistic - 70 * 60 / 2)
    assert figures(found)["c_t"] == pytest.approx(expected, rel=1e-3)


def test_too_few_images_have_no_c_t() -> None:
    found = measure_memorisation(images(100, 0), images(10, 1), images(10, 2))
    assert [figure.name for figure in found.figures] == ["copied_share", "authenticity"]


@pytest.mark.parametrize("hits", [(0, 0), (3, 1), (20, 2), (5, 40), (30, 50)])
def test_the_test_is_fishers(hits: tuple[int, int]) -> None:
    fake, held_out = (np.arange(n) < count for n, count in ((30, hits[0]), (50, hits[1])))
    table = [[hits[0], 30 - hits[0]], [hits[1], 50 - hits[1]]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert _fisher_p_value(fake, held_out) == pytest.approx(expected, rel=1e-9)


def test_near_duplicates_in_the_held_out_set_are_not_held_against_the_generator() -> None:
    training = images(2000, 0)
    held_out, fake = images(2000, 1), images(2000, 2)
    for rows in (held_out, fake):
        rows[:60] = damaged(training[:60], 3)  # 3 % of the photographs are in both sets
    found = measure_memorisation(training, held_out, fake, planted=damaged(training[-500:], 4))
    assert not found.detected
    assert figures(found)["copied_share"] < 0.01


def test_duplicates_within_the_training_set_do_no_harm() -> None:
    training = images(1000, 0)
    training[:20] = training[0]
    fake = images(1000, 2)
    fake[0] = training[0]
    found = measure_memorisation(training, images(1000, 1), fake, planted=training[500:700])
    assert found.nearest_training[0].fake == 0
    assert found.nearest_training[0].ratio == 0
    assert not np.isnan(found.ratios).any()


def test_it_repeats_and_does_not_change_its_input() -> None:
    training, fake = images(300, 0), images(200, 2)
    before = fake.clone()
    one, two = (measure_memorisation(training, images(250, 1), fake, seed=4) for _ in range(2))
    assert one.figures == two.figures
    assert torch.equal(fake, before)


def test_bad_input_is_one_line() -> None:
    good = images(50, 0)
    with pytest.raises(DataError, match="1 generated image given"):
        measure_memorisation(good, good, good[:1])
    with pytest.raises(DataError, match="4 training images given, expected more than their 5"):
        measure_memorisation(good[:4], good, good)
    with pytest.raises(DataError, match="planted features have 31 dimensions, the others 32"):
        measure_memorisation(good, good, good, planted=good[:, 1:])
    with pytest.raises(DataError, match="held-out features: NaN"):
        measure_memorisation(good, good * torch.nan, good)
