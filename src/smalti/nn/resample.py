"""Upsampling and downsampling by two. Layout: (B, C, H, W), channels last in memory.

    box     up  nearest neighbour             down  mean of 2x2
    smooth  up  bilinear                      down  [1, 3, 3, 1] / 8 along each side, zeros beyond the border

Each upsampling is the transpose of its downsampling, times 4, except at the border of `smooth`. The smooth ones alias
less; on a CPU the box ones take a fraction of their time.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def box_up(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def box_down(x: Tensor) -> Tensor:
    """(B, C, H, W), even sides -> (B, C, H/2, W/2)."""
    return F.avg_pool2d(x, 2)


def smooth_up(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def smooth_down(x: Tensor) -> Tensor:
    """(B, C, H, W), even sides -> (B, C, H/2, W/2)."""
    # [1, 3, 3, 1] = [1, 1, 1, 1] + 2 [0, 1, 1, 0] along each side, so it is the mean of four mean poolings: unlike a
    # convolution of each channel, these are fast to differentiate twice.
    pools = [F.avg_pool2d(x, (2 + 2 * a, 2 + 2 * b), 2, padding=(a, b)) for a in (0, 1) for b in (0, 1)]
    return (pools[0] + pools[1] + pools[2] + pools[3]) / 4
