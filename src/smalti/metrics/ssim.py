"""Structural similarity (SSIM) and multi-scale structural similarity (MS-SSIM).

    SSIM(x, y)    = l * cs
    l             = (2 mu_x mu_y + C1) / (mu_x^2 + mu_y^2 + C1)           luminance
    cs            = (2 sigma_xy + C2) / (sigma_x^2 + sigma_y^2 + C2)      contrast and structure
    MS-SSIM(x, y) = SSIM_M^(w_M) * product over the finer scales j < M of cs_j^(w_j)

with means, variances and covariance under an 11x11 Gaussian window of sigma 1.5, C1 = (0.01 * 255)^2 and
C2 = (0.03 * 255)^2; l * cs and cs are averaged over window positions and channels.  Each scale is 2x2 average pooling
of the scale before.  Sources: Wang, Bovik, Sheikh and Simoncelli 2004, doi:10.1109/TIP.2003.819861; Wang, Simoncelli
and Bovik 2003, doi:10.1109/ACSSC.2003.1292216.

Libraries differ, mainly in how they treat windows at the image border:

    SSIM      only windows that lie inside the image, as in Wang's code and in scikit-image with `gaussian_weights=True,
              sigma=1.5, use_sample_covariance=False`; torchmetrics pads by reflection and uses all positions (0.570
              instead of 0.563 on noisy 32x32 clouds)
    MS-SSIM   `border="mirrored"`: as in torchmetrics, which pads by reflection at the coarsest scale only, and averages
              the channels before taking the power;
              `border="inside"`: as in Wang's code and pytorch-msssim, the package behind most compression papers, which
              uses only windows inside the image at every scale, and takes the product per channel before the mean over
              channels (for odd sides that package pads with zeros before pooling; here the last row is dropped)

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
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # w_j, finest scale first
BORDERS = ("mirrored", "inside")

_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2
_TILE = 64  # positions along one axis that are filtered by one banded matrix
_AT_ONCE = 2**20  # pixel values per image set converted to float64 at once


class TooSmallError(DataError):
    """The images are smaller than the SSIM window, so SSIM and MS-SSIM are undefined for them."""


class StructuralSimilarity(MeanOverImages):
    """Mean SSIM over images, window positions and channels, as `ssim`; at most 1.

    `update` raises `TooSmallError` for images with a side under 11 pixels.
    """

    name = "ssim"
    better = "higher"

    def measure(self, originals: np.ndarray, results: np.ndarray) -> np.ndarray:
        _check_side(originals, self.name)
        return _by_chunk(originals, results, lambda x, y: _similarity(x, y)[0].mean(1))


class MultiScaleStructuralSimilarity(MeanOverImages):
    """Mean MS-SSIM over the images, as `ms_ssim`; from 0 to 1.

    Five scales need sides of at least 176 pixels. Smaller images get as many scales as fit (two for 32x32) with
    renormalised weights, and the note of the metric value says so, because such a value is not comparable with one of
    five scales. `update` raises `TooSmallError` for images with a side under 11 pixels, and DataError if the number of
    scales that fit differs from earlier batches.
    """

    name = "ms_ssim"
    better = "higher"

    def __init__(self, *, border: str = "mirrored") -> None:
        """
        Args:
            border: one of `BORDERS`, explained at the top of this module.

        Raises:
            ConfigError: any other border.
        """
        super().__init__()
        if border not in BORDERS:
            raise ConfigError(f"border is {border!r}, but must be one of {', '.join(BORDERS)}")
        self.border = border
        self.scales = 0  # 0 before the first image

    def measure(self, originals: np.ndarray, results: np.ndarray) -> np.ndarray:
        _check_side(originals, self.name)
        self._set_scales(scales_for(*originals.shape[1:3]))
        return _by_chunk(originals, results, lambda x, y: _multi_scale(x, y, self.scales, self.border))

    def check_compatible(self, other: Any) -> None:
        if self.border != other.border:
            raise ConfigError(f"ms_ssim with border {self.border!r} and with {other.border!r} cannot be merged")
        if other.scales:
            self._set_scales(other.scales)

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

    def _set_scales(self, scales: int) -> None:
        if self.scales not in (0, scales):
            raise DataError(
                f"ms_ssim has seen images with room for {self.scales} scales, and now some with room for {scales}; "
                "measure them apart"
            )
        self.scales = scales


def scales_for(height: int, width: int) -> int:
    """Number of MS-SSIM scales that fit, at most five: those whose shorter side is at least the window size."""
    return sum(min(height, width) >> scale >= WINDOW for scale in range(len(WEIGHTS)))


def _check_side(images: np.ndarray, name: str) -> None:
    height, width = images.shape[1:3]
    if min(height, width) < WINDOW:
        raise TooSmallError(f"{name} needs sides of at least {WINDOW} pixels, found {height}x{width}; leave it out")


def _by_chunk(originals: np.ndarray, results: np.ndarray, measure: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
    """Apply `measure` to (B, C, H, W) float64 tensors in chunks of a few images: (B,) float64."""
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
    """MS-SSIM of two (B, C, H, W) tensors: (B,)."""
    weights = torch.tensor(WEIGHTS[:scales], dtype=torch.float64)
    weights /= weights.sum()
    product = torch.ones(x.shape[:2] if border == "inside" else x.shape[:1], dtype=torch.float64)
    for scale, weight in enumerate(weights):
        coarsest = scale == scales - 1
        if coarsest and border == "mirrored":
            x, y = (F.pad(images, [WINDOW // 2] * 4, mode="reflect") for images in (x, y))
        term = _similarity(x, y)[0 if coarsest else 1]
        # A negative similarity has no fractional power and is clamped to 0, as in other libraries.
        product = product * (term if border == "inside" else term.mean(1)).clamp_min(0) ** weight
        if not coarsest:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product.mean(1) if border == "inside" else product


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure term, averaged over window positions: two (B, C, H, W) -> two (B, C)."""
    mean_x, mean_y = _smooth(x), _smooth(y)
    both, square = mean_x * mean_y, mean_x.square() + mean_y.square()
    # Rounding may make the variance of a constant region slightly negative.
    variance = (_smooth(x.square() + y.square()) - square).clamp_min_(0)
    covariance = _smooth(x * y) - both
    contrast = (2 * covariance + _C2) / (variance + _C2)
    similarity = (2 * both + _C1) / (square + _C1) * contrast
    return similarity.mean((2, 3)), contrast.mean((2, 3))


def _smooth(images: Tensor) -> Tensor:
    """Gaussian-weighted mean at each position where the window fits: (..., H, W) -> (..., H - 10, W - 10)."""
    return _along_rows(_along_rows(images.mT).mT)


def _along_rows(images: Tensor) -> Tensor:
    """(..., W) -> (..., W - 10), by a banded matrix on tiles: a few times faster than a float64 convolution."""
    band = _band()
    positions = images.shape[-1] - WINDOW + 1
    parts = []
    for start in range(0, positions, _TILE):
        count = min(_TILE, positions - start)
        parts.append(images[..., start : start + count + WINDOW - 1] @ band[: count + WINDOW - 1, :count])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


@lru_cache(maxsize=1)
def _band() -> Tensor:
    """Banded filter matrix, (_TILE + 10, _TILE) float64: column i holds the Gaussian window in rows i .. i + 10."""
    distance = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-distance.square() / (2 * SIGMA**2))
    window /= window.sum()
    band = torch.zeros(_TILE + WINDOW - 1, _TILE, dtype=torch.float64)
    for column in range(_TILE):
        band[column : column + WINDOW, column] = window
    return band
