"""Peak signal-to-noise ratio of reconstructions, and the base class of metrics that are means over images.

    PSNR = 10 log10(1 / MSE), pixels in [0, 1], the MSE pooled over every pixel of every image

Pooling the error first and taking the logarithm once is the convention in image compression; the mean of the PSNRs of
the images is larger and is never reported here.

`MeanOverImages` is the base class of metrics that are the mean of one number per image, and stores one float64 per
image.
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
    """Sum of squared differences for pixels in [0, 1], and the number of values.

    Args:
        a, b: tensors of the same shape in [-1, 1].
    """
    return float(((a.cpu().double() - b.cpu().double()) / 2).square().sum()), a.numel()


def psnr_db(total_squared_error: float, count: int) -> float:
    """Peak signal-to-noise ratio in dB of a summed squared error over `count` values in [0, 1]; infinite if it is 0."""
    return math.inf if total_squared_error == 0 else -10 * math.log10(total_squared_error / count)


def squared_error_uint8(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """`squared_error` for two uint8 arrays of the same shape; the error is that of pixels in [0, 1]."""
    return float(np.square((a.astype(np.float64) - b.astype(np.float64)) / 255).sum()), a.size


def checked_pair(originals: Any, results: Any) -> tuple[np.ndarray, np.ndarray]:
    """Validated batches of images and reconstructions, (B, H, W, C) uint8 of the same shape; B may be 0.

    Raises:
        DataError: wrong type or number of dimensions, no pixels, or shapes that differ.
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
    """A metric of image pairs that is the mean of one number per image.

    The result depends neither on the order of the images nor on how they are distributed over processes.
    """

    name: str
    better: str

    def __init__(self) -> None:
        self._values: list[np.ndarray] = []  # one array per batch, (B,) float64

    @abstractmethod
    def measure(self, originals: np.ndarray, results: np.ndarray) -> np.ndarray:
        """The number for each image: two (B, H, W, C) uint8 arrays -> (B,) float64; B is at least 1."""

    def check_compatible(self, other: Any) -> None:
        """Raise ConfigError or DataError if another metric of the same class cannot be merged into this one."""

    def note(self) -> str:
        """The note of the metric value."""
        return ""

    def update(self, originals: Any, results: Any) -> None:
        originals, results = checked_pair(originals, results)
        if len(originals):
            self._values.append(self.measure(originals, results))

    def merge(self, other: MeanOverImages) -> None:
        check_same_kind(self, other)
        self.check_compatible(other)
        self._values.extend(other._values)

    def compute(self) -> tuple[MetricValue, ...]:
        values = np.sort(np.concatenate(self._values)) if self._values else np.empty(0)
        check_not_empty(len(values), self.name)
        low, high = mean_interval(values) if len(values) > 1 else (None, None)
        return (MetricValue(self.name, float(values.mean()), low, high, len(values), self.better, note=self.note()),)


class PeakSignalToNoise(PairMetric):
    """PSNR in dB, pooled over every pixel of every image; exact, because the sums are integers."""

    def __init__(self) -> None:
        # (B, 2) int64 per batch: squared error of each image in units of 1/255^2, and its number of values.
        self._sums: list[np.ndarray] = []

    def update(self, originals: Any, results: Any) -> None:
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
        sums = sums[np.lexsort(sums.T)]  # makes the interval independent of the order of the images
        error, values = (int(total) for total in sums.sum(axis=0))
        low: float | None = None
        high: float | None = None
        if len(sums) > 1:
            # Resampled as MSE and then converted to dB, because resamples without any error are infinite in dB.
            few, many = interval([sums], lambda means: means[0][:, 0] / means[0][:, 1])
            low, high = psnr_db(many / 255**2, 1), psnr_db(few / 255**2, 1)
        note = "" if error else "every pixel of every image came back as it was"
        return (MetricValue("psnr_db", psnr_db(error / 255**2, values), low, high, len(sums), "higher", "dB", note),)


def check_same_kind(metric: object, other: object) -> None:
    """Raise ConfigError unless the two metrics are of the same class."""
    if type(metric) is not type(other):
        raise ConfigError(f"a {type(metric).__name__} cannot take in a {type(other).__name__}; merge like with like")


def check_not_empty(count: int, name: str) -> None:
    """Raise DataError if no image has been measured yet."""
    if count == 0:
        raise DataError(f"{name} was asked for before any image was measured; give it at least one pair")
