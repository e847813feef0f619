"""Grids made twice as fine or twice as coarse. Layout: (B, C, H, W), channels last in memory.

    box     up  nearest neighbour             down  mean of 2x2
    smooth  up  bilinear                      down  [1, 3, 3, 1] / 8 along each side, zeros beyond the border

Both ups are the transposes of their downs, times 4, but for the border of `smooth`. The smooth ones alias less; on a
processor the boxes take a fraction of their time.
"""

from __future__ import annotations

import torch
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
    # [1, 3, 3, 1] / 8, a triangle; made where it is needed, because a copy to a GPU waits for all that is under way.
    side = (2 - (torch.arange(4, dtype=x.dtype, device=x.device) - 1.5).abs()) / 4
    kernel = (side[:, None] * side).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])
