"""How far a reconstruction is from its image.

    PSNR = 10 log10(1 / MSE), pixels in [0, 1], the MSE pooled over every pixel of every image

Pooling first and taking the logarithm once is the convention of the compression papers; the mean of the images'
own PSNRs is larger and is never printed here.

What every metric of pairs shares is here too: the check of a batch, and `MeanOverImages`, a metric whose figure is the
mean of one number an image.  One float64 an image is all that such a metric keeps.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.metrics.bootstrap import interval, mean_interval
from smalti.metrics.metric import MetricValue, PairMetric


def squared_error(a: Tensor, b: Tensor) -> tuple[float, int]:
    """Sum of squared differences in [0, 1] pixel units, and the number of values.

    Args:
        a, b: the same shape, both in [-1, 1].
    """
    return float(((a.cpu().double() - b.cpu().double()) / 2).square().sum()), a.numel()


def psnr_db(total_squared_error: float, count: int) -> float:
    """Peak signal-to-noise ratio in dB of a pooled squared error in [0, 1] units; infinite for no error."""
    return math.inf if total_squared_error == 0 else -10 * math.log10(total_squared_error / count)


def squared_error_uint8(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """`squared_error` of two uint8 arrays of the same shape, in [0, 1] pixel units."""
    return float(np.square((a.astype(np.float64) - b.astype(np.float64)) / 255).sum()), a.size


def checked_pair(originals: Any, results: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both batches as arrays, (B, H, W, C) uint8 of the same shape; B may be 0.

    Raises:
        DataError: another type or number of dimensions, no pixels, or shapes that differ.
    """
    pair = np.asarray(originals), np.asarray(results)
    for name, images in zip(("originals", "results"), pair, strict=True):
        if images.dtype != np.uint8:
            raise DataError(f"{name} are {images.dtype}, but must be uint8 in 0..255; convert them with to_pixels")
        if images.ndim != 4 or 0 in images.shape[1:]:
            raise DataError(f"{name} have shape {images.shape}; expected (images, height, width, channels)")
    if pair[0].shape != pair[1].shape:
        raise DataError(
            f"originals have shape {pair[0].shape} and results {pair[1].shape}; "
            "a pair must have the same size and channels"
        )
    return pair


class MeanOverImages(PairMetric):
    """A metric of pairs whose figure is the mean of one number an image.

    The figure depends neither on the order of the images nor on how they were spread over processes.
    """

    name: str
    better: str

    def __init__(self) -> None:
        self._values: list[np.ndarray] = []  # one array a batch, (B,) float64

    @abstractmethod
    def measure(self, originals: np.ndarray, results: np.ndarray) -> np.ndarray:
        """The number of each image: (B, H, W, C) uint8 twice -> (B,) float64; B is at least 1."""

    def agree(self, other: Any) -> None:
        """Before a merge with one of the same class: ConfigError or DataError where the two do not measure alike."""

    def note(self) -> str:
        """What a reader of the figure must know."""
        return ""

    def update(self, originals: Any, results: Any) -> None:
        """Take in a batch: (B, H, W, C) uint8 arrays of the same shape.

        Raises:
            DataError: shapes or types that do not fit.
        """
        originals, results = checked_pair(originals, results)
        if len(originals):
            self._values.append(self.measure(originals, results))

    def merge(self, other: MeanOverImages) -> None:
        check_same_kind(self, other)
        self.agree(other)
        self._values.extend(other._values)

    def compute(self) -> tuple[MetricValue, ...]:
        values = np.sort(np.concatenate(self._values)) if self._values else np.empty(0)
        check_not_empty(len(values), self.name)
        low, high = mean_interval(values) if len(values) > 1 else (None, None)
        return (MetricValue(self.name, float(values.mean()), low, high, len(values), self.better, note=self.note()),)


class PeakSignalToNoise(PairMetric):
    """PSNR in dB, pooled over every pixel of every image; the sums are of integers and therefore exact."""

    def __init__(self) -> None:
        self._sums: list[np.ndarray] = []  # (B, 2) int64: squared error in units of 1/255, and values, of each image

    def update(self, originals: Any, results: Any) -> None:
        """Take in a batch: (B, H, W, C) uint8 arrays of the same shape.

        Raises:
            DataError: shapes or types that do not fit.
        """
        originals, results = checked_pair(originals, results)
        sums = np.empty((len(originals), 2), np.int64)
        for row, original, result in zip(sums, originals, results, strict=True):
            difference = (original.astype(np.int32) - result).ravel()
            row[:] = np.square(difference).sum(dtype=np.int64), difference.size
        self._sums.append(sums)

    def merge(self, other: PeakSignalToNoise) -> None:
        check_same_kind(self, other)
        self._sums.extend(other._sums)

    def compute(self) -> tuple[MetricValue, ...]:
        sums = np.concatenate(self._sums) if self._sums else np.empty((0, 2), np.int64)
        check_not_empty(len(sums), "psnr_db")
        sums = sums[np.lexsort(sums.T)]  # so that the interval does not depend on the order of the images
        error, values = (int(total) for total in sums.sum(axis=0))
        low: float | None = None
        high: float | None = None
        if len(sums) > 1:
            # Drawn as an MSE and then put into dB, because draws without any error are infinite in dB.
            few, many = interval([sums], lambda means: means[0][:, 0] / means[0][:, 1])
            low, high = psnr_db(many / 255**2, 1), psnr_db(few / 255**2, 1)
        note = "" if error else "every pixel of every image came back as it was"
        return (MetricValue("psnr_db", psnr_db(error / 255**2, values), low, high, len(sums), "higher", "dB", note),)


def check_same_kind(metric: object, other: object) -> None:
    """ConfigError unless the other metric measures the same thing."""
    if type(metric) is not type(other):
        raise ConfigError(f"a {type(metric).__name__} cannot take in a {type(other).__name__}; merge like with like")


def check_not_empty(count: int, name: str) -> None:
    """DataError unless at least one image was measured."""
    if count == 0:
        raise DataError(f"{name} was asked for before any image was measured; give it at least one pair")
