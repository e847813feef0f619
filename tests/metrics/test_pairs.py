"""Pairwise metrics: values of the reference packages, ties and duplicates, neighbours, blocks."""

from __future__ import annotations

import numpy as np
import prdc
import pytest
import torch
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.metrics import pairs, vectors
from smalti.metrics.neighbours import nearest
from smalti.metrics.pairs import KernelDistance, PrecisionRecall, compare_pairs


def normal(count: int, dimension: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


FEATURES = {
    "normal": lambda seed: normal(700, 24, seed),
    "far from the origin": lambda seed: normal(700, 24, seed) + 30,
    "positive": lambda seed: (normal(700, 24, seed) @ normal(24, 24, 9) / 5 + 0.3).relu(),
    "low rank and noise": lambda seed: normal(700, 3, seed) @ normal(3, 24, 9) + 1e-3 * normal(700, 24, seed + 50),
    "unlike scales": lambda seed: normal(700, 24, seed) * torch.logspace(-4, 2, 24),
    "small": lambda seed: 0.05 * normal(700, 24, seed),
}


def measured(metric: pairs._StoredFeatures, real: Tensor, fake: Tensor) -> pairs._StoredFeatures:
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 150)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("k", [3, 5])
def test_precision_and_the_others_equal_prdc(kind: str, k: int) -> None:
    real, fake = FEATURES[kind](0), FEATURES[kind](1)[:611] * 1.05
    theirs = prdc.compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)
    for figure in measured(PrecisionRecall(neighbours=k), real, fake).compute():
        assert figure.value == pytest.approx(theirs[figure.name], rel=1e-4), figure.name
        assert figure.low <= figure.value <= figure.high
        assert figure.count == (700 if figure.name in ("recall", "coverage") else 611)


def kernel_matrix(a: Tensor, b: Tensor) -> np.ndarray:
    return ((a.double() @ b.double().T) / a.shape[1] + 1).pow(3).numpy()


def unbiased(real: Tensor, fake: Tensor) -> float:
    xx, yy, xy = kernel_matrix(real, real), kernel_matrix(fake, fake), kernel_matrix(real, fake)
    n, m = len(real), len(fake)
    return float((xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1)) - 2 * xy.mean())


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", FEATURES)
def test_kernel_distance_equals_the_unbiased_estimate(kind: str) -> None:
    real, fake = FEATURES[kind](0), FEATURES[kind](1)[:611] * 1.2
    (figure,) = measured(KernelDistance(), real, fake).compute()
    expected = unbiased(real, fake)
    assert figure.value == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Metric `Kernel")
@pytest.mark.parametrize("kind", FEATURES)
def test_kernel_distance_equals_torchmetrics(kind: str) -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    theirs = kid.KernelInceptionDistance(feature=torch.nn.Flatten(), subsets=1, subset_size=700)
    real, fake = FEATURES[kind](0), FEATURES[kind](1) * 1.2
    theirs.update(real.double(), real=True)
    theirs.update(fake.double(), real=False)
    (figure,) = measured(KernelDistance(), real, fake).compute()
    expected = float(theirs.compute()[0])
    assert figure.value == pytest.approx(
        expected, rel=1e-4, abs=1e-9 * kernel_matrix(real, real).mean()
    )  # theirs rounds


def test_kernel_interval_is_as_wide_as_fresh_samples_scatter() -> None:
    runs = [
        measured(KernelDistance(), normal(200, 4, 2 * n), 1.5 * normal(200, 4, 2 * n + 1)).compute()[0]
        for n in range(120)
    ]
    values = np.array([run.value for run in runs])
    widths = np.array([run.high - run.low for run in runs]) / 2 / 1.96
    assert widths.mean() == pytest.approx(values.std(), rel=0.25)
    assert runs[0].note.startswith("standard error 0.")
    same = [
        measured(KernelDistance(), normal(200, 4, 2 * n), normal(200, 4, 2 * n + 1)).compute()[0] for n in range(60)
    ]
    assert np.mean([run.low <= 0 <= run.high for run in same]) > 0.9


@pytest.mark.usefixtures("small_blocks")
def test_copies_and_ties_are_decided_exactly() -> None:
    real = normal(500, 64) + 5
    # Every generated image is a real one: the k-th nearest copy lies exactly on the radius, which counts as outside.
    figures = {f.name: f.value for f in measured(PrecisionRecall(), real, real.flip(0)).compute()}
    assert figures == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}


@pytest.mark.usefixtures("small_blocks")
def test_duplicates_make_balls_of_no_size() -> None:
    real = torch.cat([normal(1, 16).expand(300, 16), normal(1, 16, 1).expand(300, 16)])
    figures = {f.name: f.value for f in measured(PrecisionRecall(), real, real.clone()).compute()}
    assert figures == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    spread = {f.name: f.value for f in measured(PrecisionRecall(), real, normal(400, 16, 2)).compute()}
    theirs = prdc.compute_prdc(real.numpy(), normal(400, 16, 2).numpy(), nearest_k=5)
    assert spread["recall"] == pytest.approx(theirs["recall"])


def test_a_lost_half_lowers_recall_and_coverage_and_noise_lowers_precision() -> None:
    centres = torch.eye(8) * 20
    real, fake = (normal(800, 8, n) + centres[torch.arange(800) % 8] for n in (0, 1))
    half = normal(800, 8, 2) + centres[torch.arange(800) % 4]
    whole, lost, noisy = (
        {f.name: f.value for f in measured(PrecisionRecall(), real, x).compute()} for x in (fake, half, fake * 1.5)
    )
    assert lost["recall"] < 0.6 * whole["recall"]
    assert lost["coverage"] < 0.6 * whole["coverage"]
    assert noisy["precision"] < 0.5 * whole["precision"]


def test_fewer_images_than_neighbours_take_fewer() -> None:
    figures = measured(PrecisionRecall(), normal(3, 4), normal(9, 4, 1)).compute()
    assert all(figure.note == "k = 2" for figure in figures)


def test_batches_and_processes_do_not_matter() -> None:
    real, fake = normal(90, 8), normal(70, 8, 1)
    whole = measured(PrecisionRecall(neighbours=3), real, fake)
    first, second = PrecisionRecall(neighbours=3), PrecisionRecall(neighbours=3)
    for rows in real[:50].split(7):
        first.update(rows, real=True)
    second.update(real[50:], real=True)
    second.update(fake, real=False)
    first.merge(second)
    assert first.compute() == whole.compute() == first.compute()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("shift", [0, 100])
def test_nearest_equals_all_distances(shift: float) -> None:
    queries, references = normal(333, 20) + shift, normal(500, 20, 1) + shift
    every = torch.cdist(queries.double(), references.double(), compute_mode="donot_use_mm_for_euclid_dist")
    expected, numbers = every.topk(4, largest=False)
    distances, found = nearest(queries, references, 4)
    torch.testing.assert_close(distances, expected.float(), rtol=1e-5, atol=0)
    assert torch.equal(found, numbers)


@pytest.mark.usefixtures("small_blocks")
def test_nearest_of_a_set_in_itself_leaves_out_each_itself() -> None:
    features = normal(500, 20)
    features[7] = features[400]
    every = torch.cdist(features.double(), features.double(), compute_mode="donot_use_mm_for_euclid_dist")
    expected, _ = every.fill_diagonal_(torch.inf).topk(3, largest=False)
    distances, found = nearest(features, features, 3, exclude_self=True)
    torch.testing.assert_close(distances, expected.float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(every.gather(1, found).float(), distances)  # the two copies may change places
    assert distances[7, 0] == 0
    assert found[7, 0] == 400
    own = torch.tensor([3, 7, 499])
    some, which = nearest(features[own], features, 3, own=own)
    torch.testing.assert_close(some, expected[own].float(), rtol=1e-5, atol=0)
    assert (which != own[:, None]).all()


def test_bad_input_is_one_line() -> None:
    with pytest.raises(DataError, match="1 real image given, at least 2"):
        compare_pairs(normal(1, 4), normal(9, 4))
    with pytest.raises(DataError, match="0 generated images given"):
        measured(KernelDistance(), normal(9, 4), normal(0, 4)).compute()
    with pytest.raises(DataError, match="5 dimensions, the others 4"):
        measured(PrecisionRecall(), normal(9, 4), normal(9, 5))
    with pytest.raises(DataError, match="real features: NaN or infinite values in row 2"):
        compare_pairs(normal(9, 4).index_fill(0, torch.tensor([2]), torch.inf), normal(9, 4))
    with pytest.raises(DataError, match="int64 of shape"):
        compare_pairs(torch.ones(9, 4, dtype=torch.int64), normal(9, 4))
    with pytest.raises(DataError, match="too large for squared distances"):
        compare_pairs(normal(9, 4) * 1e30, normal(9, 4))
    with pytest.raises(DataError, match="too large for the cubic kernel"):
        compare_pairs(normal(9, 4) * 1e15, normal(9, 4))
    with pytest.raises(ConfigError, match="0 neighbours"):
        compare_pairs(normal(9, 4), normal(9, 4), neighbours=0)
    with pytest.raises(ConfigError, match="0 neighbours"):
        nearest(normal(9, 4), normal(9, 4), 0)
    with pytest.raises(DataError, match="9 nearest neighbours asked for, but there are 8"):
        nearest(normal(9, 4), normal(9, 4), 9, exclude_self=True)
    with pytest.raises(ConfigError, match="alike"):
        PrecisionRecall(neighbours=3).merge(PrecisionRecall(neighbours=5))
