"""The two plain architectures, fully convolutional, with `stride` pixels per code along each side.

    residual  stride-2 4x4 convolutions, then residual blocks (ReLU, 3x3, ReLU, 1x1); the decoder is its mirror
              image with transposed convolutions.  van den Oord et al. 2017, arXiv:1711.00937, section 4.1
    plain     3x3 convolutions with BN and LeakyReLU; the decoder doubles by nearest neighbour before it convolves

Layout: images (B, C, H, W); latents (B, D, H/stride, W/stride).
"""

from __future__ import annotations

import math

from torch import nn

from smalti.config.autoencoder import ClassicConfig
from smalti.nn.blocks import PlainBlock, ResidualBlock, Upsample


def residual_encoder(config: ClassicConfig, channels: int, dimension: int) -> nn.Sequential:
    """(B, channels, H, W) -> (B, dimension, H/stride, W/stride)."""
    steps = round(math.log2(config.stride))
    layers: list[nn.Module] = []
    width_in = channels
    for step in range(steps):
        width = config.width if step == steps - 1 else config.width // 2
        layers += [nn.Conv2d(width_in, width, 4, stride=2, padding=1), nn.ReLU()]
        width_in = width
    layers += [nn.Conv2d(config.width, config.width, 3, padding=1)]
    layers += [ResidualBlock(config.width, config.residual_width) for _ in range(config.residual_blocks)]
    layers += [nn.ReLU(), nn.Conv2d(config.width, dimension, 1)]
    return nn.Sequential(*layers)


def residual_decoder(config: ClassicConfig, channels: int, dimension: int) -> nn.Sequential:
    """(B, dimension, h, w) -> (B, channels, h * stride, w * stride)."""
    steps = round(math.log2(config.stride))
    layers: list[nn.Module] = [nn.Conv2d(dimension, config.width, 3, padding=1)]
    layers += [ResidualBlock(config.width, config.residual_width) for _ in range(config.residual_blocks)]
    width_in = config.width
    for step in range(steps):
        width = channels if step == steps - 1 else config.width // 2
        layers += [nn.ReLU(), nn.ConvTranspose2d(width_in, width, 4, stride=2, padding=1)]
        width_in = width
    return nn.Sequential(*layers)


def plain_encoder(config: ClassicConfig, channels: int, dimension: int) -> nn.Sequential:
    """(B, channels, H, W) -> (B, dimension, H/stride, W/stride)."""
    steps = round(math.log2(config.stride))
    layers: list[nn.Module] = []
    width_in = channels
    for step in range(steps):
        width = config.width if step == steps - 1 else config.width // 2
        layers += [PlainBlock(width_in, width, stride=2)]
        width_in = width
    layers += [PlainBlock(config.width, config.width), nn.Conv2d(config.width, dimension, 1)]
    return nn.Sequential(*layers)


def plain_decoder(config: ClassicConfig, channels: int, dimension: int) -> nn.Sequential:
    """(B, dimension, h, w) -> (B, channels, h * stride, w * stride)."""
    steps = round(math.log2(config.stride))
    layers: list[nn.Module] = [PlainBlock(dimension, config.width)]
    width_in = config.width
    for _ in range(steps):
        layers += [Upsample(), PlainBlock(width_in, config.width // 2)]
        width_in = config.width // 2
    layers += [nn.Conv2d(width_in, channels, 3, padding=1)]
    return nn.Sequential(*layers)
