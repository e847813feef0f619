"""Structural similarity, at one scale and at several.

    SSIM(x, y)    = l * cs
    l             = (2 mu_x mu_y + C1) / (mu_x^2 + mu_y^2 + C1)           luminance
    cs            = (2 sigma_xy + C2) / (sigma_x^2 + sigma_y^2 + C2)      contrast and structure
    MS-SSIM(x, y) = SSIM_M^(w_M) * product over the finer scales j < M of cs_j^(w_j)

with means, variances and covariance under an 11x11 Gaussian window of sigma 1.5, C1 = (0.01 * 255)^2 and
C2 = (0.03 * 255)^2; each is averaged over the places of the window and over the channels.  Every scale halves the one
before by the mean of 2x2 pixels.  Sources: Wang, Bovik, Sheikh and Simoncelli 2004, doi:10.1109/TIP.2003.819861;
Wang, Simoncelli and Bovik 2003, doi:10.1109/ACSSC.2003.1292216.

Libraries differ, above all in what the window sees at the border of the image:

    SSIM      windows inside the image alone, as in Wang's code and in scikit-image with `gaussian_weights=True,
              sigma=1.5, use_sample_covariance=False`; torchmetrics mirrors the image at its border and takes all
              places (0.570 against 0.563 on noisy 32x32 clouds)
    MS-SSIM   `border="mirrored"`: as torchmetrics, whose coarsest scale alone sees the image mirrored at its border and
              whose channels are averaged before the power;
              `border="inside"`: as Wang's code and pytorch-msssim, the package behind most compression papers: inside
              windows at every scale, a product for each channel, then the mean of the channels (that package puts a
              row of zeros at an odd side before it halves, here the last row is left out)

Layout: (B, H, W, C) uint8 outside, (B, C, H, W) float64 inside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.metrics.distortion import MeanOverImages

WINDOW = 11
SIGMA = 1.5
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first
BORDERS = ("mirrored", "inside")

_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2
_TILE = 64  # places along one side that are filtered by one matrix
_AT_ONCE = 2**20  # pixels of both images converted to float64 together


class TooSmallError(DataError):
    """An image smaller than the window: this figure cannot be had, others can."""


class StructuralSimilarity(MeanOverImages):
    """SSIM, the mean over the images of the mean over places and channels: figure `ssim`, at most 1.

    `update` raises `TooSmallError` for images with a side under 11 pixels.
    """

    name = "ssim"
    better = "higher"

    def measure(self, originals: np.ndarray, results: np.ndarray) -> np.ndarray:
        _check_side(originals, self.name)
        return _by_chunk(originals, results, lambda x, y: _similarity(x, y)[0].mean(1))


class MultiScaleStructuralSimilarity(MeanOverImages):
    """MS-SSIM, the mean over the images: figure `ms_ssim`, from 0 to 1.

    Five scales need sides of at least 176 pixels. Smaller images get as many scales as fit (two for 32x32) with the
    weights divided by their sum, and the figure's note says so: such a figure does not compare with one of five scales.
    `update` raises `TooSmallError` for images with a side under 11 pixels, and DataError for images with room for
    another number of scales than those before.
    """

    name = "ms_ssim"
    better = "higher"

    def __init__(self, *, border: str = "mirrored") -> None:
        """`border` is one of `BORDERS`; see the module's first lines. ConfigError for another."""
        super().__init__()
        if border not in BORDERS:
            raise ConfigError(f"border is {border!r}, but must be one of {', '.join(BORDERS)}")
        self.border = border
        self.scales = 0  # 0 until the first image is seen

    def measure(self, originals: np.ndarray, results: np.ndarray) -> np.ndarray:
        _check_side(originals, self.name)
        self._settle(scales_for(*originals.shape[1:3]))
        return _by_chunk(originals, results, lambda x, y: _multi_scale(x, y, self.scales, self.border))

    def agree(self, other: Any) -> None:
        if self.border != other.border:
            raise ConfigError(f"ms_ssim with border {self.border!r} and with {other.border!r} cannot be merged")
        if other.scales:
            self._settle(other.scales)

    def note(self) -> str:
        notes = []
        if self.scales < len(WEIGHTS):
            plural = "s" if self.scales > 1 else ""
            notes.append(
                f"{self.scales} scale{plural} of {len(WEIGHTS)} with weights renormalised, as the images are small; "
                "not comparable with five scales"
            )
        if self.border == "inside":
            notes.append("windows inside the image alone")
        return "; ".join(notes)

    def _settle(self, scales: int) -> None:
        if self.scales not in (0, scales):
            raise DataError(
                f"ms_ssim has seen images with room for {self.scales} scales, and now some with room for {scales}; "
                "measure them apart"
            )
        self.scales = scales


def scales_for(height: int, width: int) -> int:
    """How many scales of MS-SSIM fit: those whose shorter side is at least the window's, up to five."""
    return sum(min(height, width) >> scale >= WINDOW for scale in range(len(WEIGHTS)))


def _check_side(images: np.ndarray, name: str) -> None:
    height, width = images.shape[1:3]
    if min(height, width) < WINDOW:
        raise TooSmallError(f"{name} needs sides of at least {WINDOW} pixels, found {height}x{width}; leave it out")


def _by_chunk(originals: np.ndarray, results: np.ndarray, measure: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
    """`measure` of (B, C, H, W) float64 tensors, a few images at a time: (B,) float64."""
    step = max(1, _AT_ONCE // originals[0].size)
    parts = []
    for start in range(0, len(originals), step):
        x, y = (
            torch.from_numpy(images[start : start + step].transpose(0, 3, 1, 2).astype(np.float64))
            for images in (originals, results)
        )
        parts.append(measure(x, y))
    return torch.cat(parts).numpy()


def _multi_scale(x: Tensor, y: Tensor, scales: int, border: str) -> Tensor:
    """(B, C, H, W) twice -> (B,) MS-SSIM."""
    weights = torch.tensor(WEIGHTS[:scales], dtype=torch.float64)
    weights /= weights.sum()
    product = torch.ones(x.shape[:2] if border == "inside" else x.shape[:1], dtype=torch.float64)
    for scale, weight in enumerate(weights):
        coarsest = scale == scales - 1
        if coarsest and border == "mirrored":
            x, y = (F.pad(images, [WINDOW // 2] * 4, mode="reflect") for images in (x, y))
        term = _similarity(x, y)[0 if coarsest else 1]
        # A negative similarity has no fractional power; it counts as none, as in the libraries.
        product = product * (term if border == "inside" else term.mean(1)).clamp_min(0) ** weight
        if not coarsest:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product.mean(1) if border == "inside" else product


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast part, averaged over the windows inside: (B, C, H, W) twice -> (B, C) twice."""
    mean_x, mean_y = _smooth(x), _smooth(y)
    both, square = mean_x * mean_y, mean_x.square() + mean_y.square()
    # Rounding may leave the variance of one flat colour a little under nothing.
    variance = (_smooth(x.square() + y.square()) - square).clamp_min_(0)
    covariance = _smooth(x * y) - both
    contrast = (2 * covariance + _C2) / (variance + _C2)
    similarity = (2 * both + _C1) / (square + _C1) * contrast
    return similarity.mean((2, 3)), contrast.mean((2, 3))


def _smooth(images: Tensor) -> Tensor:
    """(..., H, W) -> (..., H - 10, W - 10): the Gaussian mean around each place with room for the window."""
    return _along_rows(_along_rows(images.mT).mT)


def _along_rows(images: Tensor) -> Tensor:
    """(..., W) -> (..., W - 10), tile by tile with one banded matrix: a few times faster than a float64 convolution."""
    band = _band()
    places = images.shape[-1] - WINDOW + 1
    parts = []
    for start in range(0, places, _TILE):
        count = min(_TILE, places - start)
        parts.append(images[..., start : start + count + WINDOW - 1] @ band[: count + WINDOW - 1, :count])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


@lru_cache(maxsize=1)
def _band() -> Tensor:
    """(_TILE + 10, _TILE) float64: column i holds the Gaussian window in rows i .. i + 10."""
    distance = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-distance.square() / (2 * SIGMA**2))
    window /= window.sum()
    band = torch.zeros(_TILE + WINDOW - 1, _TILE, dtype=torch.float64)
    for column in range(_TILE):
        band[column : column + WINDOW, column] = window
    return band
