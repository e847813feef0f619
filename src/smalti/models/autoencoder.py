"""Encoder, quantizer, decoder: an image becomes a small grid of codes and comes back.

Two architectures, both fully convolutional, with `stride` pixels per code along each side:

    residual  stride-2 4x4 convolutions, then residual blocks (ReLU, 3x3, ReLU, 1x1); the decoder is its mirror
              image with transposed convolutions.  van den Oord et al. 2017, arXiv:1711.00937, section 4.1
    plain     3x3 convolutions with BN and LeakyReLU; the decoder doubles by nearest neighbour before it convolves
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config import AutoencoderConfig, VQVAEConfig
from smalti.layers.blocks import PlainBlock, ResidualBlock, Upsample
from smalti.quantize import Quantized, build_quantizer


def residual_encoder(config: AutoencoderConfig, channels: int, dimension: int) -> nn.Sequential:
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


def residual_decoder(config: AutoencoderConfig, channels: int, dimension: int) -> nn.Sequential:
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


def plain_encoder(config: AutoencoderConfig, channels: int, dimension: int) -> nn.Sequential:
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


def plain_decoder(config: AutoencoderConfig, channels: int, dimension: int) -> nn.Sequential:
    """(B, dimension, h, w) -> (B, channels, h * stride, w * stride)."""
    steps = round(math.log2(config.stride))
    layers: list[nn.Module] = [PlainBlock(dimension, config.width)]
    width_in = config.width
    for _ in range(steps):
        layers += [Upsample(), PlainBlock(width_in, config.width // 2)]
        width_in = config.width // 2
    layers += [nn.Conv2d(width_in, channels, 3, padding=1)]
    return nn.Sequential(*layers)


ARCHITECTURES = {"residual": (residual_encoder, residual_decoder), "plain": (plain_encoder, plain_decoder)}


class Autoencoder(nn.Module):
    """Images to codes and back, at any image size.

    Args:
        config: the networks and the quantizer.
        channels: of the images, 1, 3 or 4.
    """

    def __init__(self, config: VQVAEConfig, channels: int) -> None:
        super().__init__()
        build_encoder, build_decoder = ARCHITECTURES[config.autoencoder.architecture]
        dimension = config.quantizer.dimension
        self.stride = config.autoencoder.stride
        self.encoder = build_encoder(config.autoencoder, channels, dimension)
        self.quantizer = build_quantizer(config.quantizer)
        self.decoder = build_decoder(config.autoencoder, channels, dimension)

    def encode(self, images: Tensor) -> Quantized:
        """(B, C, H, W) in [-1, 1] -> codes on a grid of ceil(H/stride) x ceil(W/stride).

        Sides that are no multiple of the stride are extended by repeating the last row and column.
        """
        height, width = images.shape[-2:]
        down, right = -height % self.stride, -width % self.stride
        if down or right:
            images = F.pad(images, (0, right, 0, down), mode="replicate")
        return self.quantizer(self.encoder(images))

    def decode(self, codes: Tensor) -> Tensor:
        """(B, P, h, w) codes -> (B, C, h * stride, w * stride) images in [-1, 1], clipped to that range."""
        return self.decoder(self.quantizer.decode(codes)).float().clamp(-1, 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, through the codes."""
        height, width = images.shape[-2:]
        return self.decode(self.encode(images).codes)[..., :height, :width]

    def forward(self, images: Tensor) -> tuple[Tensor, Quantized]:
        """Reconstructions of the images' shape, not clipped, with gradients; and what the quantizer said."""
        height, width = images.shape[-2:]
        quantized = self.encode(images)
        return self.decoder(quantized.values)[..., :height, :width], quantized
