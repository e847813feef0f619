"""Base classes of the metrics: `update` with each batch, `merge` across processes, then `compute`.

    fid = FrechetDistance()
    for batch in batches:
        fid.update(features(batch), real=False)
    print(fid.compute())

Each `MetricValue` carries its confidence interval.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

M = TypeVar("M", bound="Metric")


@dataclass(frozen=True)
class MetricValue:
    """A measured value with its confidence interval.

    Attributes:
        name: identifier in files, such as `frechet_distance`; never renamed.
        value: the estimate.
        low, high: ends of the bootstrap confidence interval; both None if the data allow none.
        count: number of images measured.
        better: "lower" or "higher"; "" if neither direction is better.
        unit: "dB", "bits per pixel"; "" for a dimensionless number.
        note: a caveat to print with the value, one sentence; "" if there is none.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    count: int
    better: str = ""
    unit: str = ""
    note: str = ""


class Metric(ABC):
    """A metric accumulated over batches. Subclasses add `update`, whose arguments depend on the metric."""

    @abstractmethod
    def merge(self: M, other: M) -> None:
        """Add the data of another instance, as if this one had been updated with all of it.

        Raises:
            ConfigError: the other instance has different settings.
        """

    @abstractmethod
    def compute(self) -> tuple[MetricValue, ...]:
        """The metric values over all data so far; may be called at any time and again after further updates.

        Raises:
            DataError: there are too few images, or the metric is undefined for them.
        """


class FeatureMetric(Metric):
    """A metric that compares the feature vectors of a reference set with those of generated images."""

    @abstractmethod
    def update(self, features: Tensor, *, real: bool) -> None:
        """Add a batch of features.

        Args:
            features: (B, D) floats.
            real: True for features of the reference set, False for those of generated images.

        Raises:
            DataError: features are NaN or infinite, or D differs from earlier batches.
        """


class PairMetric(Metric):
    """A metric that compares each image with its reconstruction."""

    @abstractmethod
    def update(self, originals: Any, results: Any) -> None:
        """Add a batch of images and their reconstructions: two (B, H, W, C) uint8 arrays of the same shape.

        Raises:
            DataError: the arrays have the wrong type, or their shapes differ.
        """
