"""How much of the classes a straight line through feature space can tell: the linear probe.

    minimise over W, b    mean of CE(softmax(W z + b), y) + penalty / 2 * ||W||^2,    z = (x - mean) / std

on training features, every dimension made mean 0 and variance 1 by the training set's own; the accuracy is that on
test features. The penalty is the best of a grid on a held-out tenth of the training set, and the fit is then done
again with all of it. scikit-learn's `LogisticRegression(C=1 / (penalty * N))` on standardised features is the same
minimum.

Full-batch L-BFGS with a strong Wolfe line search: nothing is drawn but the held-out tenth.  Sources: Alain and Bengio
2016, arXiv:1610.01644 (linear probes); Liu and Nocedal 1989, doi:10.1007/BF01589116.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.metrics.classification import ClassReport, Confusion
from smalti.metrics.classifier import checked_labels
from smalti.metrics.metric import MetricValue
from smalti.runtime.rng import seeded_generator

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
HELD_OUT = 0.1
_ITERATIONS = 500
_GRADIENT_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-5}
_CHOICE_TOLERANCE = 1e-4  # enough to tell which penalty is better
_SMALL = 2**22  # features that are fitted in float64


@dataclasses.dataclass(frozen=True, eq=False)
class LogisticRegression:
    """A fit: logits are `standardised @ weight.T + bias`.

    Attributes:
        weight: (C, D), for standardised features.
        bias: (C,).
        mean, scale: (D,) of the training features; the scale of a constant dimension is 1.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """(N, D) floats -> (N,) int64."""
        standardised = (features.to(self.mean.dtype) - self.mean) / self.scale
        return F.linear(standardised, self.weight, self.bias).argmax(1)


def linear_probe(
    train_features: Tensor,
    train_labels: Any,
    test_features: Tensor,
    test_labels: Any,
    *,
    classes: Sequence[str],
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> tuple[MetricValue, ClassReport]:
    """Accuracy of a linear classifier on features.

    Args:
        train_features, test_features: (N, D) floats.
        train_labels, test_labels: (N,) integers in 0..len(classes)-1.
        classes: names.
        penalties: to choose from; one alone is taken as it is.
        seed: draws the held-out tenth.

    Returns:
        The figure `linear_probe_accuracy` with its interval over test images, and the report by class.

    Raises:
        ConfigError: no penalty, or a negative one.
        DataError: features and labels that do not fit each other, no features, or features that are NaN or infinite.
    """
    if not penalties or min(penalties) < 0:
        raise ConfigError(f"the penalties are {tuple(penalties)}; at least one is needed, and none may be negative")
    features, labels = _checked("training", train_features, train_labels, len(classes))
    tests, truth = _checked("test", test_features, test_labels, len(classes))
    if features.shape[1] != tests.shape[1]:
        raise DataError(f"training features have {features.shape[1]} dimensions and test features {tests.shape[1]}")
    penalty = penalties[0] if len(penalties) == 1 else _best_penalty(features, labels, len(classes), penalties, seed)
    fit = fit_logistic(features, labels, classes=len(classes), penalty=penalty)
    confusion = Confusion(classes)
    confusion.update(truth, fit.predict(tests))
    note = f"logistic regression on {len(features)} standardised training features, penalty {penalty:g}"
    return dataclasses.replace(confusion.compute()[0], name="linear_probe_accuracy", note=note), confusion.report()


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    *,
    classes: int,
    penalty: float,
    start: LogisticRegression | None = None,
    tolerance: float | None = None,
) -> LogisticRegression:
    """Multinomial logistic regression on standardised features; see the module's formula.

    Args:
        features: (N, D) floats; float64 is used for up to four million values, float32 for more.
        labels: (N,) int64.
        start: a fit of the same features to begin at.
        tolerance: largest derivative to stop at; None for 1e-7, or 1e-5 in float32.
    """
    features = features.to(torch.float64 if features.numel() <= _SMALL else torch.float32)
    mean = features.mean(0)
    scale = (features - mean).square().mean(0).sqrt()
    # A constant dimension has a spread of rounding alone, and must not be blown up.
    scale = torch.where(scale <= 1e-6 * mean.abs(), torch.ones_like(scale), scale)
    standardised = (features - mean) / scale
    weight = torch.zeros(classes, features.shape[1], dtype=features.dtype) if start is None else start.weight.clone()
    bias = torch.zeros(classes, dtype=features.dtype) if start is None else start.bias.clone()
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=_ITERATIONS,
        history_size=20,
        tolerance_grad=_GRADIENT_TOLERANCE[features.dtype] if tolerance is None else tolerance,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        # F.linear's gradient is several times faster here than that of `standardised @ weight`.
        value = F.cross_entropy(F.linear(standardised, weight, bias), labels) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return LogisticRegression(weight.detach(), bias.detach(), mean, scale)


def _best_penalty(features: Tensor, labels: Tensor, classes: int, penalties: Sequence[float], seed: int) -> float:
    """The penalty with the best accuracy on the held-out tenth, of equals the largest."""
    order = torch.randperm(len(features), generator=seeded_generator(seed, len(features)))
    held = max(1, round(HELD_OUT * len(features)))
    if held >= len(features):
        return max(penalties)
    out, kept = order[:held], order[held:]
    rows, targets = features[kept], labels[kept]
    fit, best, best_accuracy = None, max(penalties), -1.0
    for penalty in sorted(penalties, reverse=True):  # each begins where the smoother one before it ended
        fit = fit_logistic(rows, targets, classes=classes, penalty=penalty, start=fit, tolerance=_CHOICE_TOLERANCE)
        accuracy = float((fit.predict(features[out]) == labels[out]).double().mean())
        if accuracy > best_accuracy:
            best, best_accuracy = penalty, accuracy
    return best


def _checked(which: str, features: Tensor, labels: Any, classes: int) -> tuple[Tensor, Tensor]:
    features = torch.as_tensor(features).detach().cpu()
    truth = torch.from_numpy(checked_labels(labels, classes))
    if features.ndim != 2 or not features.is_floating_point() or 0 in features.shape:
        raise DataError(
            f"{which} features are {features.dtype} of shape {tuple(features.shape)}; expected (N, D) floats"
        )
    if len(features) != len(truth):
        raise DataError(f"there are {len(features)} {which} features and {len(truth)} labels; each image needs both")
    if not torch.isfinite(features).all():
        rows = int((~torch.isfinite(features)).any(1).sum())
        raise DataError(f"{rows} of {len(features)} {which} features are NaN or infinite; look at their images")
    return features, truth
