"""Conversion between the two pixel formats: uint8 or uint16 NHWC outside the models, float32 NCHW in [-1, 1] inside.

No other file converts between them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_tensor(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(B, H, W, C) uint8 or uint16 -> (B, C, H, W) float32 in [-1, 1], channels last in memory."""
    if pixels.dtype == np.uint16:
        levels = torch.from_numpy(pixels.astype(np.float32)).to(device)
        return normalized(levels.permute(0, 3, 1, 2), bit_depth=16)
    # torch accepts neither read-only arrays nor negative strides, which Pillow and slicing produce.
    contiguous = np.require(pixels, requirements=["C", "W"])
    images = torch.from_numpy(contiguous).to(device, non_blocking=True).permute(0, 3, 1, 2)
    return normalized(images)


def normalized(levels: Tensor, *, bit_depth: int = 8) -> Tensor:
    """Scale values in [0, 2^bit_depth - 1], of any dtype and layout, to float32 in [-1, 1]; may change float32 ones."""
    return levels.float().div_(_half(bit_depth)).sub_(1.0)


def to_levels(images: Tensor, *, bit_depth: int = 8) -> Tensor:
    """Scale values in [-1, 1] to float32 in [0, 2^bit_depth - 1], without rounding or clipping; differentiable."""
    return images.float().add(1).mul(_half(bit_depth))


def to_pixels(images: Tensor, *, bit_depth: int = 8) -> np.ndarray:
    """(B, C, H, W) in [-1, 1] -> (B, H, W, C) uint8, or uint16 for 16 bits, rounded and clipped."""
    levels = to_levels(images.detach(), bit_depth=bit_depth).round_().clamp_(0, 2 * _half(bit_depth))
    # Integers before they are moved and copied, which is several times faster. torch knows little of uint16.
    whole = levels.to(torch.uint8 if bit_depth == 8 else torch.int32).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return whole if bit_depth == 8 else whole.astype(np.uint16)


def _half(bit_depth: int) -> float:
    """The level of 0, between the smallest and the largest."""
    return (2**bit_depth - 1) / 2


def premultiplied(images: Tensor) -> Tensor:
    """Multiply the colours of RGBA images (B, 4, H, W) in [-1, 1] by their alpha; others are returned as they are.

    The colour of a transparent pixel then makes no difference, and errors count as much as they can be seen.
    """
    if images.shape[1] != 4:
        return images
    alpha = (images[:, 3:] + 1) / 2
    return torch.cat([(images[:, :3] + 1) * alpha - 1, images[:, 3:]], dim=1)


def unpremultiplied(images: Tensor) -> Tensor:
    """Invert `premultiplied`, after clipping; transparent pixels become black."""
    if images.shape[1] != 4:
        return images
    alpha = ((images[:, 3:] + 1) / 2).clamp(0, 1)
    # Half a level: below it alpha is stored as 0.
    colours = torch.where(alpha < 0.5 / 255, 0.0, (images[:, :3] + 1) / 2 / alpha.clamp_min(0.5 / 255))
    return torch.cat([colours.clamp(0, 1) * 2 - 1, images[:, 3:]], dim=1)
