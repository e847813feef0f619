"""Linear probe: the test accuracy of a linear classifier (logistic regression) trained on frozen features.

    minimise over W, b    mean of CE(softmax(W z + b), y) + penalty / 2 * ||W||^2,    z = (x - mean) / std

with the mean and standard deviation of each dimension over the training set. The penalty is chosen from a grid on a
held-out tenth of the training set, and the classifier is then refitted on all of it. The minimum is that of
scikit-learn's `LogisticRegression(C=1 / (penalty * N))` on standardised features.

The optimizer is full-batch L-BFGS with a strong Wolfe line search, so the held-out split is the only source of
randomness.  Sources: Alain and Bengio 2016, arXiv:1610.01644 (linear probes); Liu and Nocedal 1989,
doi:10.1007/BF01589116.
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
_CHOICE_TOLERANCE = 1e-4  # accurate enough to choose between penalties
_SMALL = 2**22  # up to this many feature values are fitted in float64


@dataclasses.dataclass(frozen=True, eq=False)
class LogisticRegression:
    """A fitted classifier, with logits `standardised @ weight.T + bias`.

    Attributes:
        weight: (C, D), for standardised features.
        bias: (C,).
        mean, scale: (D,) mean and standard deviation of the training features; the scale of a constant dimension is 1.
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
    """Test accuracy of a linear classifier trained on features.

    Args:
        train_features, test_features: (N, D) floats.
        train_labels, test_labels: (N,) integers in 0..len(classes)-1.
        classes: class names.
        penalties: candidate penalties; a single one is used without a search.
        seed: seed of the held-out split.

    Returns:
        The metric value `linear_probe_accuracy`, whose confidence interval is over test images, and the report per
        class.

    Raises:
        ConfigError: no penalty, or a negative one.
        DataError: the features and labels do not match, there are none, or they are NaN or infinite.
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
    """Fit multinomial logistic regression on standardised features; the objective is at the top of this module.

    Args:
        features: (N, D) floats; fitted in float64 up to four million values, in float32 above.
        labels: (N,) int64.
        classes: number of classes.
        penalty: weight of the L2 regularisation.
        start: an earlier fit on the same features, as a warm start.
        tolerance: stop once all derivatives are below it; None uses 1e-7, or 1e-5 in float32.
    """
    features = features.to(torch.float64 if features.numel() <= _SMALL else torch.float32)
    mean = features.mean(0)
    scale = (features - mean).square().mean(0).sqrt()
    # The deviation of a constant dimension is rounding error only and must not be scaled up.
    scale = torch.where(scale <= 1e-6 * mean.abs(), torch.ones_like(scale), scale)
    standardised = (features - mean) / scale
    weight = torch.zeros(classes, features.shape[1], dtype=features.dtype) if start is None else start.weight.clone()
    bias = torch.zeros(classes, dtype=features.dtype) if start is None else start.bias.clone()
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=_ITERATIONS,
        history_size=20,
        tolerance_grad=_GRADIENT_TOLERANCE[features.dtype] if tolerance is None else tolerance,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        optimizer.zero_grad(set_to_none=True)
        # The gradient of F.linear is several times faster here than that of `standardised @ weight`.
        value = F.cross_entropy(F.linear(standardised, weight, bias), labels) + penalty / 2 * weight.square().sum()
        torch.autograd.backward(value)
        return value.item()

    optimizer.step(loss)
    return LogisticRegression(weight.detach(), bias.detach(), mean, scale)


def _best_penalty(features: Tensor, labels: Tensor, classes: int, penalties: Sequence[float], seed: int) -> float:
    """The penalty with the best accuracy on the held-out split; the largest of them if there is a tie."""
    order = torch.randperm(len(features), generator=seeded_generator(seed, len(features)))
    held = max(1, round(HELD_OUT * len(features)))
    if held >= len(features):
        return max(penalties)
    out, kept = order[:held], order[held:]
    rows, targets = features[kept], labels[kept]
    fit, best, best_accuracy = None, max(penalties), -1.0
    for penalty in sorted(penalties, reverse=True):  # each fit is the warm start of the next, less regularised one
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
