"""An autoencoder of residual blocks with group normalisation, the usual architecture of image tokenizers.

    encoder  fold patch x patch pixels into channels, 3x3 | blocks, halve | ... | blocks, [attention, block] | SiLU, 1x1
    decoder  3x3 | [block, attention] blocks | double, blocks | ... | SiLU, 3x3, unfold

Halving is a 3x3 convolution of stride 2; doubling repeats each position and then convolves. Group statistics are those
of one image, so that neither the batch nor the number of processes matters.
Source: Esser et al. 2021, arXiv:2012.09841, table 7; the folding is that of Shi et al. 2016, arXiv:1609.05158.
Layout: images (B, C, H, W); latents (B, D, H/stride, W/stride).
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.autoencoder import ModernConfig
from smalti.nn.attention import SpatialAttention
from smalti.nn.blocks import NormalizedBlock, Upsample, group_norm

NARROWEST = 32


class ModernEncoder(nn.Module):
    """(B, C, H, W) -> (B, D, H/stride, W/stride)."""

    def __init__(self, config: ModernConfig, channels: int, dimension: int) -> None:
        super().__init__()
        self.patch = config.patch
        widths = _widths(config)
        layers: list[nn.Module] = [nn.Conv2d(channels * config.patch**2, widths[0], 3, padding=1)]
        for level, width in enumerate(widths):
            if level:
                layers += [nn.Conv2d(widths[level - 1], width, 3, stride=2, padding=1)]
            layers += [NormalizedBlock(width) for _ in range(config.blocks)]
        if config.attention:
            layers += [SpatialAttention(config.width), NormalizedBlock(config.width)]
        layers += [group_norm(config.width), nn.SiLU(), nn.Conv2d(config.width, dimension, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        latents: Tensor = self.layers(F.pixel_unshuffle(images, self.patch))
        return latents


class ModernDecoder(nn.Module):
    """(B, D, h, w) -> (B, C, h * stride, w * stride)."""

    def __init__(self, config: ModernConfig, channels: int, dimension: int) -> None:
        super().__init__()
        self.patch = config.patch
        widths = _widths(config)[::-1]
        layers: list[nn.Module] = [nn.Conv2d(dimension, widths[0], 3, padding=1)]
        if config.attention:
            layers += [NormalizedBlock(config.width), SpatialAttention(config.width)]
        for level, width in enumerate(widths):
            if level:
                layers += [Upsample(), nn.Conv2d(widths[level - 1], width, 3, padding=1)]
            layers += [NormalizedBlock(width) for _ in range(config.blocks)]
        layers += [group_norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], channels * config.patch**2, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(self.layers(latents), self.patch)


def _widths(config: ModernConfig) -> list[int]:
    """Channels at each resolution, the finest first."""
    steps = round(math.log2(config.stride // config.patch))
    return [max(config.width >> (steps - level), min(NARROWEST, config.width)) for level in range(steps + 1)]
