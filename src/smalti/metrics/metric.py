"""What every measurement gives, and how it is taken: `update` as data streams by, `merge` across processes, `compute`.

fid = FrechetDistance()
for batch in batches:
    fid.update(features(batch), real=False)
print(fid.compute())
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

M = TypeVar("M", bound="Metric")


@dataclass(frozen=True)
class MetricValue:
    """One measured number.

    Attributes:
        name: the word it goes by in files, never renamed: `frechet_distance`.
        value: the estimate.
        low, high: ends of the bootstrap interval, both None where the data allows none.
        count: images it rests on.
        better: "lower", "higher", or "" where neither end is good.
        unit: "dB", "bits per pixel", "" for a pure number.
        note: one plain sentence a reader must know, "" without.
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
    """A measurement in progress. Subclasses add `update`, whose arguments depend on what is measured."""

    @abstractmethod
    def merge(self: M, other: M) -> None:
        """Take in what another process has seen; the result is as if this one had seen all of it.

        Raises:
            ConfigError: the other was set up differently.
        """

    @abstractmethod
    def compute(self) -> tuple[MetricValue, ...]:
        """The figures of everything seen so far; may be called at any time, and again after more updates.

        Raises:
            DataError: too little was seen, or what was seen cannot be measured.
        """


class FeatureMetric(Metric):
    """Compares two sets of feature vectors."""

    @abstractmethod
    def update(self, features: Tensor, *, real: bool) -> None:
        """Take in a batch.

        Args:
            features: (B, D) floats.
            real: whether they belong to the reference, rather than to what is judged.

        Raises:
            DataError: NaN or infinite features, or another D than before.
        """


class PairMetric(Metric):
    """Compares images with what came back for them."""

    @abstractmethod
    def update(self, originals: Any, results: Any) -> None:
        """Take in a batch: (B, H, W, C) uint8 arrays of the same shape.

        Raises:
            DataError: shapes or types that do not fit.
        """
