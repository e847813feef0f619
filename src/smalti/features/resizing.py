"""Preprocessing for feature extractors: conversion of channels, antialiased resize and scaling, all in float32.

    out[i] = sum_j w(i, j) in[j] / sum_j w(i, j),   w(i, j) = max(0, 1 - |(j + 1/2) - (i + 1/2) s| / max(s, 1))

along each axis, with s the old length over the new one: bilinear interpolation with antialiasing, whose triangle filter
widens when an image is downscaled.  When it is upscaled, this is plain bilinear interpolation.  Values are not rounded.
A resize without antialiasing can change Frechet distances by more than models differ (Parmar et al. 2022,
arXiv:2104.11222).

Pixels: uint8 NHWC outside; here float32 NCHW in [0, 255].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import DataError
from smalti.runtime.pixels import to_levels

SIDE_LIMIT = 16384
"""Maximum height and width in pixels, as for packed images."""

RULE = (
    "bilinear, antialiased (the triangle filter widens where an image shrinks), pixel centres at halves, both sides on "
    "their own, in float32 on 0..255, not rounded; an image of the right size is not touched; grey is repeated to "
    "three channels; transparency is laid over white first"
)
CHUNK_VALUES = 2**23  # float32 values per chunk in a resize or at the input of a network: 32 MiB
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in smalti.data.images


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of images for a network: resize, then (x - centre) / scale.

    Attributes:
        size: (height, width) of the network input in pixels.
        channels: channels of the network input: 1, 3 or 4.
        centre, scale: for x in 0..255, one number for all channels or one per channel.
    """

    size: tuple[int, int]
    channels: int
    centre: tuple[float, ...]
    scale: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """The preprocessing in words, for the record of an extractor."""
        centre, scale = (
            f"{values[0]:g}" if len(values) == 1 else "(" + ", ".join(f"{value:g}" for value in values) + ")"
            for values in (self.centre, self.scale)
        )
        return {
            "size": list(self.size),
            "channels": self.channels,
            "resize": RULE,
            "range": f"(x - {centre}) / {scale} for x in 0..255",
        }

    def __call__(self, images: np.ndarray, device: torch.device) -> Tensor:
        """(B, H, W, C) uint8 -> (B, channels, height, width) float32, channels last in memory."""
        step = max(1, CHUNK_VALUES // max(1, images[:1].size))
        parts = []
        for start in range(0, len(images), step):
            part = resized(images[start : start + step], self.size, channels=self.channels, device=device)
            centre, scale = (part.new_tensor(values).view(1, -1, 1, 1) for values in (self.centre, self.scale))
            parts.append((part - centre) / scale)
        return torch.cat(parts).contiguous(memory_format=torch.channels_last)

    def apply_to_tensor(self, images: Tensor) -> Tensor:
        """Differentiable version for tensors: (B, C, H, W) in [-1, 1] -> (B, channels, height, width)."""
        pixels = _fitted(to_levels(images), self.size, self.channels)
        centre, scale = (pixels.new_tensor(values).view(1, -1, 1, 1) for values in (self.centre, self.scale))
        return ((pixels - centre) / scale).contiguous(memory_format=torch.channels_last)


def check_images(images: np.ndarray) -> None:
    """Check that an array holds images.

    Raises:
        DataError: not (B, H, W, C) uint8 with 1, 3 or 4 channels and sides of 1 to `SIDE_LIMIT` pixels.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        raise DataError(
            f"images are {images.dtype} of shape {images.shape}; expected uint8 (count, height, width, 1, 3 or 4)"
        )
    if not all(1 <= side <= SIDE_LIMIT for side in images.shape[1:3]):
        raise DataError(f"images are {images.shape[2]}x{images.shape[1]}; each side must have 1 to {SIDE_LIMIT} pixels")


def resized(
    images: np.ndarray, size: tuple[int, int], *, channels: int = 3, device: torch.device | str = "cpu"
) -> Tensor:
    """Images converted to the given channels and size.

    Args:
        images: (B, H, W, C) uint8 with C = 1, 3 or 4.
        size: target (height, width).
        channels: target channels: 1 (luma), 3, or 4 (opaque if the images have no alpha).
        device: device of the computation.

    Returns:
        (B, channels, height, width) float32 in [0, 255].

    Raises:
        DataError: see `check_images`.
    """
    check_images(images)
    own = np.require(images, requirements=["C", "W"])  # torch takes neither read-only arrays nor negative strides
    return _fitted(torch.from_numpy(own).to(device).permute(0, 3, 1, 2).float().contiguous(), size, channels)


def _fitted(pixels: Tensor, size: tuple[int, int], channels: int) -> Tensor:
    """(B, C, H, W) in [0, 255] -> (B, channels, height, width)."""
    if pixels.shape[1] == 4 and channels != 4:
        pixels = over_white(pixels)
    if channels == 1 and pixels.shape[1] == 3:
        pixels = torch.einsum("c,bchw->bhw", pixels.new_tensor(_LUMA), pixels)[:, None]
    pixels = resize(pixels, size)
    if channels >= 3 and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    if channels == 4 and pixels.shape[1] == 3:
        pixels = torch.cat([pixels, torch.full_like(pixels[:, :1], 255)], dim=1)
    return pixels


def over_white(pixels: Tensor) -> Tensor:
    """Composite RGBA over white: (B, 4, H, W) -> (B, 3, H, W), all in [0, 255]."""
    alpha = pixels[:, 3:] / 255
    return pixels[:, :3] * alpha + 255 * (1 - alpha)


def resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bilinear resize of (B, C, H, W) float32 in [0, 255]; with four channels, the last is alpha."""
    if pixels.shape[2:] == torch.Size(size):
        return pixels
    if pixels.shape[1] == 4:  # premultiplied, so that the colour of transparent pixels does not bleed
        alpha = _interpolate(pixels[:, 3:], size)
        colours = _interpolate(pixels[:, :3] * (pixels[:, 3:] / 255), size)
        return torch.cat([(colours * 255 / alpha.clamp(min=1e-3)).clamp(0, 255), alpha], dim=1)
    return _interpolate(pixels, size)


def _interpolate(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    found = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    return found.clamp(0, 255)  # rounding may exceed the range by a little
