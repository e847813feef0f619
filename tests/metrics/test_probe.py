"""Linear probe: the minimum of scikit-learn, the choice of the penalty, and invalid input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from smalti.errors import ConfigError, DataError
from smalti.metrics.probe import fit_logistic, linear_probe

TEN = tuple("0123456789")


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, np.ndarray]:
    found = load_digits()
    return torch.from_numpy(found.data).float(), found.target


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_the_fit_is_that_of_scikit_learn(digits: tuple[torch.Tensor, np.ndarray], penalty: float) -> None:
    features, labels = digits[0][:1000], digits[1][:1000]  # some pixels are always white: constant dimensions
    fit = fit_logistic(features, torch.from_numpy(labels), classes=10, penalty=penalty)
    standardised = StandardScaler().fit_transform(features.double().numpy())
    theirs = LogisticRegression(C=1 / (penalty * 1000), tol=1e-8, max_iter=5000).fit(standardised, labels)
    assert fit.weight.numpy() == pytest.approx(theirs.coef_, abs=2e-3 * np.abs(theirs.coef_).max())
    bias = fit.bias - fit.bias.mean()  # a constant added to all classes has no effect
    assert bias.numpy() == pytest.approx(theirs.intercept_ - theirs.intercept_.mean(), abs=5e-3)
    tests = StandardScaler().fit(features.double().numpy()).transform(digits[0][1000:].double().numpy())
    assert (fit.predict(digits[0][1000:]).numpy() == theirs.predict(tests)).mean() > 0.99


def test_the_probe_tells_digits_apart(digits: tuple[torch.Tensor, np.ndarray]) -> None:
    features, labels = digits
    figure, report = linear_probe(features[:1200], labels[:1200], features[1200:], labels[1200:], classes=TEN)
    assert 0.88 < figure.value < 0.97
    assert figure.value == report.accuracy
    assert figure.name == "linear_probe_accuracy"
    assert figure.count == 597
    assert figure.low < figure.value < figure.high  # type: ignore[operator]
    assert "1200 standardised training features" in figure.note
    again, _ = linear_probe(features[:1200], labels[:1200], features[1200:], labels[1200:], classes=TEN)
    assert again == figure


def test_units_and_offsets_of_the_features_do_not_matter(digits: tuple[torch.Tensor, np.ndarray]) -> None:
    features, labels = digits[0][:600], digits[1][:600]
    plain, scaled = (
        linear_probe(x[:400], labels[:400], x[400:], labels[400:], classes=TEN, penalties=[1e-2])[0].value
        for x in (features, features * 1000 + 50)
    )
    assert scaled == pytest.approx(plain, abs=0.01)


def test_more_dimensions_than_images_call_for_a_strong_penalty() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(160) % 2
    features = torch.randn(160, 400, generator=generator)
    features[:, :8] += 0.9 * labels[:, None]
    figure, _ = linear_probe(features[:80], labels[:80], features[80:], labels[80:], classes=("a", "b"))
    weak, _ = linear_probe(features[:80], labels[:80], features[80:], labels[80:], classes=("a", "b"), penalties=[1e-9])
    assert figure.value >= weak.value - 0.05
    assert figure.value > 0.6
    assert torch.isfinite(torch.tensor(weak.value))


def test_features_without_information_give_chance_and_one_image_a_class_is_enough() -> None:
    labels = torch.arange(30) % 3
    figure, report = linear_probe(torch.ones(30, 4), labels, torch.ones(30, 4), labels, classes="abc")
    assert figure.value == pytest.approx(1 / 3)
    assert report.count == 30
    single, _ = linear_probe(torch.eye(3), [0, 1, 2], torch.eye(3), [0, 1, 2], classes="abc", penalties=[1e-3])
    assert single.value == 1


def test_large_sets_are_fitted_in_float32_with_the_same_result(
    digits: tuple[torch.Tensor, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = digits[0][:500], torch.from_numpy(digits[1][:500])
    double = fit_logistic(features, labels, classes=10, penalty=1e-2)
    monkeypatch.setattr("smalti.metrics.probe._SMALL", 0)
    single = fit_logistic(features, labels, classes=10, penalty=1e-2)
    assert (double.weight.dtype, single.weight.dtype) == (torch.float64, torch.float32)
    assert single.weight.numpy() == pytest.approx(double.weight.numpy(), abs=5e-3)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"train_features": torch.full((6, 2), float("nan"))}, "6 of 6 training features are NaN"),
        ({"test_features": torch.full((6, 2), float("inf"))}, "test features are NaN or infinite"),
        ({"train_features": torch.zeros(6, 2, dtype=torch.int64)}, "expected"),
        ({"train_features": torch.zeros(6)}, "expected"),
        ({"train_features": torch.zeros(0, 2), "train_labels": []}, "expected"),
        ({"train_features": torch.zeros(5, 2)}, "5 training features and 6 labels"),
        ({"test_features": torch.zeros(6, 3)}, "2 dimensions and test features 3"),
        ({"test_labels": [0, 1, 0, 1, 0, 2]}, "label 2 belongs to none"),
        ({"train_labels": None}, "no labels"),
    ],
)
def test_features_that_do_not_fit_are_refused(change: dict[str, Any], what: str) -> None:
    given: dict[str, Any] = {
        "train_features": torch.zeros(6, 2),
        "train_labels": [0, 1, 0, 1, 0, 1],
        "test_features": torch.zeros(6, 2),
        "test_labels": [0, 1, 0, 1, 0, 1],
        **change,
    }
    with pytest.raises(DataError, match=what):
        linear_probe(*given.values(), classes="ab")


def test_penalties_must_be_there_and_not_negative() -> None:
    rows = torch.zeros(4, 2)
    for penalties in ((), (-1.0,)):
        with pytest.raises(ConfigError, match="penalties"):
            linear_probe(rows, [0, 1, 0, 1], rows, [0, 1, 0, 1], classes="ab", penalties=penalties)
