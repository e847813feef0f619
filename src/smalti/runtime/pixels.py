"""The one place where pixels change their form: uint8 NHWC outside, float32 NCHW in [-1, 1] inside."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_tensor(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(B, H, W, C) uint8 -> (B, C, H, W) float32 in [-1, 1], channels last in memory."""
    # torch takes no read-only array and no negative stride, and both are what Pillow and slicing give.
    own = np.require(pixels, requirements=["C", "W"])
    images = torch.from_numpy(own).to(device, non_blocking=True).permute(0, 3, 1, 2)
    return normalized(images)


def normalized(levels: Tensor) -> Tensor:
    """Values in [0, 255], of any type and layout -> float32 in [-1, 1]."""
    return levels.float().div_(127.5).sub_(1.0)


def to_levels(images: Tensor) -> Tensor:
    """Values in [-1, 1] -> float32 in [0, 255], neither rounded nor clipped, with gradients."""
    return images.float().add(1).mul(127.5)


def to_pixels(images: Tensor) -> np.ndarray:
    """(B, C, H, W) in [-1, 1] -> (B, H, W, C) uint8, rounded and clipped."""
    levels = to_levels(images.detach()).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
