"""How far a reconstruction is from its image.

    PSNR = 10 log10(1 / MSE), pixels in [0, 1], the MSE pooled over every pixel of every image

Pooling first and taking the logarithm once is the convention of the compression papers; the mean of the images'
own PSNRs is larger and is never printed here.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor


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
