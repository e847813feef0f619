"""Frechet distance: closed forms, values of another package, extrapolation, confidence interval, streaming."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.metrics.frechet import FrechetDistance, Influence, Moments, frechet_distance


def normal(count: int, dimension: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.mean(0), torch.cov(features.T)


def measured(real: Tensor, fake: Tensor, **settings: int) -> FrechetDistance:
    metric = FrechetDistance(**settings)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric


def by_sqrtm(real: Tensor, fake: Tensor) -> float:
    (m1, s1), (m2, s2) = statistics(real.double()), statistics(fake.double())
    root = linalg.sqrtm((s1 @ s2).numpy()).real
    return float((m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * np.trace(root))


FEATURES = {
    "normal": lambda seed: normal(600, 48, seed),
    "far from the origin": lambda seed: 0.1 * normal(600, 48, seed) + 300,
    "positive": lambda seed: (normal(600, 48, seed) @ normal(48, 48, 9) / 7 + 0.3).relu(),
    "low rank and noise": lambda seed: normal(600, 5, seed) @ normal(5, 48, 9) + 1e-3 * normal(600, 48, seed + 50),
    "unlike scales": lambda seed: normal(600, 48, seed) * torch.logspace(-4, 2, 48, dtype=torch.float64),
}


@pytest.mark.parametrize("kind", FEATURES)
def test_equals_the_matrix_square_root(kind: str) -> None:
    real, fake = FEATURES[kind](0), FEATURES[kind](1) * 1.1
    assert measured(real, fake).compute()[0].value == pytest.approx(by_sqrtm(real, fake), rel=1e-6)


@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.filterwarnings("ignore:Metric `FrechetInceptionDistance`")
def test_equals_torchmetrics(kind: str) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    network = torch.nn.Flatten()
    network.num_features = 48
    theirs = fid.FrechetInceptionDistance(feature=network, normalize=True).set_dtype(torch.float64)
    real, fake = FEATURES[kind](0), FEATURES[kind](1) * 1.1
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    assert measured(real, fake).compute()[0].value == pytest.approx(float(theirs.compute()), rel=1e-4)


def test_gaussians_of_commuting_covariances_have_the_closed_form() -> None:
    directions = torch.linalg.qr(normal(64, 64)).Q
    a, b = torch.logspace(-3, 2, 64, dtype=torch.float64), torch.logspace(1, -4, 64, dtype=torch.float64)
    mean1, mean2 = normal(2, 64, 3)
    cov1, cov2 = (directions @ torch.diag(values) @ directions.T for values in (a, b))
    expected = float((mean1 - mean2).square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(mean1, cov1, mean2, cov2) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(mean2, cov2, mean1, cov1) == pytest.approx(expected, rel=1e-6)


def test_shifted_gaussians_are_as_far_as_the_squared_shift() -> None:
    cov = torch.cov(normal(200, 16).T)
    assert frechet_distance(torch.zeros(16), cov, torch.full((16,), 0.5), cov) == pytest.approx(4, rel=1e-6)


@pytest.mark.parametrize("ranks", [(3, 3), (3, 16), (16, 3)])
def test_singular_covariances(ranks: tuple[int, int]) -> None:
    real, fake = (normal(200, rank, rank) @ normal(rank, 16, 7 + rank) for rank in ranks)
    (m1, s1), (m2, s2) = statistics(real), statistics(fake)
    nuclear = torch.linalg.matrix_norm(_root(s1) @ _root(s2), "nuc")
    expected = float((m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * nuclear)
    assert frechet_distance(m1, s1, m2, s2) == pytest.approx(expected, rel=1e-6)
    assert all(np.isfinite([figure.value, figure.low]).all() for figure in measured(real, fake).compute())


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T


def test_the_same_images_are_at_distance_0() -> None:
    features = normal(500, 32)
    assert measured(features, features).compute()[0].value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("side", ["real", "fake"])
def test_influence_is_the_derivative_along_a_point_mass(side: str) -> None:
    real, fake = normal(300, 5) * torch.linspace(0.5, 2, 5), normal(400, 5, 1) + 0.3
    influence = Influence.between(*statistics(real), *statistics(fake))
    own = real if side == "real" else fake
    ours = getattr(influence, side)(own.float(), own.mean(0))
    step = 1e-5
    for row in (0, 7, 20):
        # (1 - e) P + e delta_x, in moments; the derivative is that of the population covariance.
        def moved(e: float, row: int = row) -> float:
            mean, cov = statistics(own)
            away = own[row] - mean
            changed = (mean + e * away, (1 - e) * cov + e * (1 - e) * torch.outer(away, away))
            pair = (*changed, *statistics(fake)) if side == "real" else (*statistics(real), *changed)
            return frechet_distance(*pair)

        assert ours[row] == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=1e-2, abs=0.02)


def test_interval_is_as_wide_as_fresh_samples_scatter() -> None:
    scales = torch.tensor([1.0, 0.5, 2.0, 1.0])
    runs = [measured(normal(500, 4, 2 * n), normal(500, 4, 2 * n + 1) * scales + 0.2).compute()[0] for n in range(100)]
    values = np.array([run.value for run in runs])
    widths = np.array([run.high - run.low for run in runs]) / 2 / 1.96
    assert widths.mean() == pytest.approx(values.std(), rel=0.2)
    truth = float(4 * 0.04 + (1 - scales).square().sum())
    assert np.mean([run.low <= truth <= run.high for run in runs]) > 0.88


def test_a_smaller_reservoir_gives_about_the_same_interval() -> None:
    real, fake = normal(3000, 4), normal(3000, 4, 1) * 1.3
    wide, few = (measured(real, fake, reservoir=size).compute()[0] for size in (3000, 600))
    assert few.high - few.low == pytest.approx(wide.high - wide.low, rel=0.25)


@pytest.mark.parametrize("multiple", [1.5, 2, 3, 5])
def test_the_limit_removes_most_of_the_bias(multiple: float) -> None:
    dimension, scales = 32, torch.linspace(0.7, 1.3, 32)
    truth = float((1 - scales).square().sum())
    found = []
    for seed in range(12):
        real, fake = (normal(int(multiple * dimension), dimension, 2 * seed + n) for n in (0, 1))
        found.append([figure.value for figure in measured(real, fake * scales).compute()])
    plain, limit = np.mean(found, axis=0)
    assert plain > truth + 1
    assert abs(limit - truth) < 0.25 * (plain - truth)


def test_few_images_are_noted_with_the_excess() -> None:
    plain, limit = measured(normal(30, 48), normal(30, 48, 1)).compute()
    assert "30 images" in plain.note
    assert "48" in plain.note
    assert f"{plain.value - limit.value:.3g}" in plain.note
    assert measured(normal(100, 48), normal(100, 48, 1)).compute()[0].note == ""
    assert len(measured(normal(3, 48), normal(3, 48, 1)).compute()) == 1


def test_batches_and_processes_do_not_matter() -> None:
    real, fake = normal(2500, 24), normal(2301, 24, 1) + 0.1
    whole = measured(real, fake, reservoir=300).compute()
    pieces = FrechetDistance(reservoir=300)
    for rows in fake.split(7):
        pieces.update(rows, real=False)
    for rows in real.split(333):
        pieces.update(rows, real=True)
    for mine, theirs in zip(pieces.compute(), whole, strict=True):
        assert mine.value == pytest.approx(theirs.value, rel=1e-9)
        assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), rel=1e-4)
    first, second = measured(real[:1000], fake[:100], reservoir=300), measured(real[1000:], fake[100:], reservoir=300)
    first.merge(second)
    assert first.compute()[0].value == pytest.approx(whole[0].value, rel=1e-9)
    assert first.compute() == first.compute()
    empty = FrechetDistance(reservoir=300)
    empty.merge(first)
    assert empty.compute()[0].value == pytest.approx(whole[0].value, rel=1e-9)


def test_moments_stay_exact_far_from_the_origin() -> None:
    rows = normal(1000, 400) + 1e6
    moments, other = Moments(400), Moments(400)
    for batch in rows[:600].split(7):
        moments.update(batch)
    other.update(rows[600:])
    moments.merge(other)
    torch.testing.assert_close(moments.mean, rows.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(moments.covariance(), torch.cov((rows - 1e6).T), rtol=1e-6, atol=1e-9)


def test_constant_features() -> None:
    same = torch.ones(20, 6)
    figure = measured(same, same + 2).compute()[0]
    assert (figure.value, figure.low, figure.high) == pytest.approx((24, 24, 24))
    assert "same features" in figure.note
    real = normal(200, 6)
    expected = float((real.mean(0) - 1).square().sum() + torch.cov(real.T).trace())
    assert measured(real, same).compute()[0].value == pytest.approx(expected)
    dead = normal(200, 6).clone()
    dead[:, 2] = 0.25
    assert np.isfinite([figure.low for figure in measured(dead, dead * 2).compute()]).all()


def test_bad_input_is_one_line() -> None:
    with pytest.raises(DataError, match="1 generated image given, at least 2"):
        measured(normal(5, 3), normal(1, 3)).compute()
    with pytest.raises(DataError, match="0 real images given"):
        FrechetDistance().compute()
    broken = normal(5, 3)
    broken[3, 1] = torch.nan
    with pytest.raises(DataError, match="generated features: NaN or infinite values in row 3"):
        measured(normal(5, 3), broken)
    with pytest.raises(DataError, match="4 dimensions, the others 3"):
        measured(normal(5, 3), normal(5, 4))
    with pytest.raises(DataError, match="shape \\(5,\\)"):
        measured(torch.ones(5), torch.ones(5))
    with pytest.raises(DataError, match="expected \\(D,\\), \\(D, D\\)"):
        frechet_distance(torch.ones(3), torch.eye(3), torch.ones(4), torch.eye(4))
    with pytest.raises(DataError, match="NaN"):
        frechet_distance(torch.ones(3), torch.eye(3) * torch.nan, torch.ones(3), torch.eye(3))
    with pytest.raises(ConfigError, match="alike"):
        FrechetDistance(seed=1).merge(FrechetDistance(seed=2))
    with pytest.raises(DataError, match="\\[3, 4\\] dimensions"):
        measured(normal(5, 3), normal(5, 3)).merge(measured(normal(5, 4), normal(5, 4)))
