"""Accuracy, precision, recall and F1 of a classifier, the Inception score and the classification accuracy score.

    accuracy    = correct / all
    precision_c = correct in c / predicted c    recall_c = correct in c / true c    F1_c = 2 P_c R_c / (P_c + R_c)

with 0 / 0 taken as 0; macro averages are unweighted means over the classes.

    Inception score                = exp( mean over images of KL(p(y|x) || p(y)) ),  p(y) the mean of p(y|x)
    classification accuracy score  = accuracy on real images of a classifier trained on generated images

The score is named `inception_score` for the Inception network and `classifier_score` for any other classifier. It is
computed over all images at once, not as the mean over ten splits. Sources: Salimans et al. 2016, arXiv:1606.03498;
Ravuri and Vinyals 2019, arXiv:1905.10887 (classification accuracy score).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.metrics.bootstrap import DRAWS, LEVEL
from smalti.metrics.classifier import Images, ReportProgress, checked_labels, train_classifier
from smalti.metrics.distortion import check_not_empty, check_same_kind
from smalti.metrics.groups import GROUPS, bounds, content_groups
from smalti.metrics.metric import Metric, MetricValue

SCORE_NAMES = ("classifier_score", "inception_score")
_CELLS = 2**22  # cells of resampled confusion matrices held at once
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class ClassReport:
    """A confusion matrix, and the accuracy, precision, recall and F1 derived from it.

    Attributes:
        confusion: (C, C) int64, number of images by true class (row) and predicted class (column).
        classes: C class names.
    """

    confusion: np.ndarray
    classes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def support(self) -> np.ndarray:
        """(C,) int64, number of images of each class."""
        rows: np.ndarray = self.confusion.sum(1)
        return rows

    @property
    def accuracy(self) -> float:
        """Proportion of images that are predicted correctly."""
        return float(_ratio(np.trace(self.confusion), self.confusion.sum()))

    @property
    def precision(self) -> np.ndarray:
        """(C,) float64, proportion of the images predicted as a class that belong to it; 0 without predictions."""
        return _ratio(np.diag(self.confusion), self.confusion.sum(0))

    @property
    def recall(self) -> np.ndarray:
        """(C,) float64, proportion of the images of a class that are predicted as it; 0 without images."""
        return _ratio(np.diag(self.confusion), self.support)

    @property
    def f1(self) -> np.ndarray:
        """(C,) float64, harmonic mean of precision and recall; 0 if both are 0."""
        return _ratio(2 * np.diag(self.confusion), self.confusion.sum(0) + self.support)

    def macro(self) -> dict[str, float]:
        """Macro averages, under the keys `precision`, `recall` and `f1`."""
        return {name: float(getattr(self, name).mean()) for name in ("precision", "recall", "f1")}

    def record(self) -> dict[str, Any]:
        """The report as JSON-compatible values: accuracy, macro averages, values per class, confusion matrix."""
        columns = zip(self.classes, self.precision, self.recall, self.f1, self.support, strict=True)
        return {
            "accuracy": self.accuracy,
            "macro": self.macro(),
            "classes": [
                {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "count": int(n)}
                for name, p, r, f, n in columns
            ],
            "confusion": self.confusion.tolist(),
        }


class Confusion(Metric):
    """Confusion matrix of predictions: `accuracy`, `macro_precision`, `macro_recall` and `macro_f1`.

    The confidence intervals come from a bootstrap over images. The confusion matrix of N images sampled with
    replacement is multinomial, so the matrix is all that has to be stored.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """
        Args:
            classes: class names, in the order of the labels.

        Raises:
            ConfigError: there are no classes.
        """
        self.classes = tuple(str(name) for name in classes)
        if not self.classes:
            raise ConfigError("no classes were named; give one name for each label")
        self._confusion = np.zeros((len(self.classes),) * 2, np.int64)

    def update(self, truth: Any, predicted: Any) -> None:
        """Add a batch of true and predicted labels: two arrays of (B,) integers in 0..C-1.

        Raises:
            DataError: wrong type or shape, different lengths, or a label out of range.
        """
        count = len(self.classes)
        rows, columns = checked_labels(truth, count), checked_labels(predicted, count)
        if len(rows) != len(columns):
            raise DataError(f"there are {len(rows)} true labels and {len(columns)} predictions; each image needs both")
        self._confusion += np.bincount(rows * count + columns, minlength=count**2).reshape(count, count)

    def merge(self, other: Confusion) -> None:
        check_same_kind(self, other)
        if self.classes != other.classes:
            raise ConfigError(f"predictions of {len(self.classes)} and of {len(other.classes)} or other classes differ")
        self._confusion += other._confusion

    def report(self) -> ClassReport:
        """The report per class. Raises DataError before the first image."""
        check_not_empty(int(self._confusion.sum()), "a class report")
        return ClassReport(self._confusion.copy(), self.classes)

    def compute(self) -> tuple[MetricValue, ...]:
        report = self.report()
        values = {"accuracy": report.accuracy, **{f"macro_{k}": v for k, v in report.macro().items()}}
        lows: Sequence[float | None] = [None] * len(values)
        highs: Sequence[float | None] = lows
        if report.count > 1:
            lows, highs = _multinomial_interval(report.confusion)
        ends = zip(values.items(), lows, highs, strict=True)
        return tuple(MetricValue(name, value, low, high, report.count, "higher") for (name, value), low, high in ends)


class InceptionScore(Metric):
    """Inception score: exp of the mean KL divergence of p(y|x) from p(y); from 1 to C.

    As in `CodeUsage`, the bootstrap resamples groups of images, so that only the sums of p and of p ln p per group have
    to be stored.
    """

    def __init__(self, name: str = "classifier_score") -> None:
        """
        Args:
            name: `inception_score` for the Inception network, `classifier_score` for any other classifier.

        Raises:
            ConfigError: any other name.
        """
        if name not in SCORE_NAMES:
            raise ConfigError(f"the score's name is {name!r}, but must be one of {', '.join(SCORE_NAMES)}")
        self.name = name
        self._sums: np.ndarray | None = None  # (GROUPS, C), sum of p
        self._negentropy = np.zeros(GROUPS)  # sum of p ln p
        self._counts = np.zeros(GROUPS, np.int64)

    def update(self, probabilities: Tensor | np.ndarray) -> None:
        """Add a batch of class probabilities.

        Args:
            probabilities: (B, C) floats from 0 to 1; each row sums to 1.

        Raises:
            DataError: wrong type or shape, a C other than in earlier batches, or rows that are no distributions.
        """
        if isinstance(probabilities, Tensor):
            exact = probabilities.detach().cpu()
            probabilities = (exact.double() if exact.is_floating_point() else exact).numpy()  # numpy has no bfloat16
        rows = self._checked(np.asarray(probabilities))
        group = content_groups(rows, GROUPS)
        rows = rows / rows.sum(1, keepdims=True)  # float32 sums are off by 1e-7, which would bias the divergence
        if self._sums is None:
            self._sums = np.zeros((GROUPS, rows.shape[1]))
        np.add.at(self._sums, group, rows)
        logarithms = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
        np.add.at(self._negentropy, group, (rows * logarithms).sum(1))
        self._counts += np.bincount(group, minlength=GROUPS)

    def merge(self, other: InceptionScore) -> None:
        check_same_kind(self, other)
        if self.name != other.name:
            raise ConfigError(f"{self.name} and {other.name} cannot be merged")
        if other._sums is None:
            return
        if self._sums is None:
            self._sums = np.zeros_like(other._sums)
        if self._sums.shape != other._sums.shape:
            raise ConfigError(f"scores over {self._sums.shape[1]} and {other._sums.shape[1]} classes cannot be merged")
        self._sums += other._sums
        self._negentropy += other._negentropy
        self._counts += other._counts

    def compute(self) -> tuple[MetricValue, ...]:
        count = int(self._counts.sum())
        check_not_empty(count, self.name)
        assert self._sums is not None
        filled = self._counts > 0
        sums, counts = self._sums[filled], self._counts[filled].astype(np.float64)
        marginal = sums.sum(0) / count
        seen = marginal > 0
        # Sum of KL(p(y|x) || p(y)) over a group, which is also the influence of its images on the log of the score.
        divergence = self._negentropy[filled] - sums[:, seen] @ np.log(marginal[seen])
        low, high = bounds(
            np.stack([divergence, counts], 1), lambda means: np.exp(np.maximum(means[:, 0] / means[:, 1], 0))
        )
        value = float(np.exp(max(divergence.sum() / count, 0.0)))
        return (MetricValue(self.name, value, low, high, count, "higher", note="over all images at once"),)

    def _checked(self, rows: np.ndarray) -> np.ndarray:
        if rows.dtype.kind != "f" or rows.ndim != 2 or rows.shape[1] < 1:
            raise DataError(f"probabilities are {rows.dtype} of shape {rows.shape}; expected floats, (images, classes)")
        if self._sums is not None and rows.shape[1] != self._sums.shape[1]:
            raise DataError(f"{rows.shape[1]} classes after {self._sums.shape[1]}; measure different classifiers apart")
        rows = rows.astype(np.float64)
        wrong = ~np.isfinite(rows).all(1) | (rows < 0).any(1) | ~(np.abs(rows.sum(1) - 1) <= _SUM_TOLERANCE)
        if wrong.any():
            raise DataError(
                f"{int(wrong.sum())} of {len(rows)} rows are no probabilities (negative, NaN, or their sum is not 1); "
                "give the softmax of the classifier's logits"
            )
        return rows


def classification_accuracy_score(
    train_images: Images,
    train_labels: Any,
    test_images: Images,
    test_labels: Any,
    classes: Sequence[str],
    *,
    name: str = "classification_accuracy_score",
    images_seen: int = 200_000,
    flip: bool = True,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: ReportProgress | None = None,
) -> tuple[ClassReport, tuple[MetricValue, ...]]:
    """Classification accuracy score: train a classifier on generated images and test it on real ones.

    A second call with real training images and otherwise equal arguments gives the upper reference value.

    Args:
        train_images, test_images: (N, H, W, C) uint8 arrays or packed images, all of the same size and channels.
        train_labels, test_labels: (N,) integers in 0..len(classes)-1.
        classes: class names.
        name: name of the metric value that holds the accuracy.
        images_seen, flip, seed, device, progress: see `train_classifier`.

    Returns:
        The report, and the metric values: the accuracy under `name`, then `macro_precision`, `macro_recall` and
        `macro_f1`. The confidence intervals cover the choice of test images, not the randomness of the training.

    Raises:
        DataError: the images and labels do not match.
    """
    truth = checked_labels(test_labels, len(classes))
    if len(truth) != len(test_images):
        raise DataError(f"there are {len(test_images)} test images and {len(truth)} labels; each image needs one")
    classifier = train_classifier(
        train_images,
        train_labels,
        classes,
        images_seen=images_seen,
        flip=flip,
        seed=seed,
        device=device,
        progress=progress,
    )
    confusion = Confusion(classes)
    confusion.update(truth, classifier.predict(test_images))
    accuracy, *others = confusion.compute()
    note = f"one classifier, trained on {len(train_images)} images, {images_seen} seen; interval over test images"
    return confusion.report(), (dataclasses.replace(accuracy, name=name, note=note), *others)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient of counts with 0 / 0 = 0; the numerator never exceeds the denominator."""
    ratio: np.ndarray = numerator / np.maximum(denominator, 1)
    return ratio


def _multinomial_interval(confusion: np.ndarray) -> tuple[list[float], list[float]]:
    """Lower and upper ends of the intervals of accuracy, macro precision, macro recall and macro F1."""
    generator = np.random.default_rng(0)
    size, count = len(confusion), int(confusion.sum())
    cells = np.flatnonzero(confusion)
    shares = confusion.ravel()[cells] / count
    rows, columns = np.divmod(cells, size)
    values = []
    step = max(1, _CELLS // (size * size))
    for start in range(0, DRAWS, step):
        drawn = generator.multinomial(count, shares, size=min(step, DRAWS - start))
        correct, predicted, true = (np.zeros((len(drawn), size)) for _ in range(3))
        for cell, (row, column) in enumerate(zip(rows, columns, strict=True)):
            true[:, row] += drawn[:, cell]
            predicted[:, column] += drawn[:, cell]
            if row == column:
                correct[:, row] = drawn[:, cell]
        macro = [_ratio(correct, predicted), _ratio(correct, true), _ratio(2 * correct, predicted + true)]
        values.append(np.stack([correct.sum(1) / count, *(each.mean(1) for each in macro)]))
    low, high = np.quantile(np.concatenate(values, 1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    return low.tolist(), high.tolist()
