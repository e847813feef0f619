"""The classic convolutional GAN, for images whose sides are multiples of 4.

    G  Linear(z -> h*w*width, no bias), BN, LeakyReLU .3 | transposed 5x5 to width/2, stride 1, BN, LeakyReLU .3
       | transposed 5x5 to width/4, stride 2, BN, LeakyReLU .3 | transposed 5x5 to the image, stride 2, tanh
    D  5x5 stride 2 to width, LeakyReLU .3, dropout | 5x5 stride 2 to 2*width, LeakyReLU .3, dropout | one logit

With labels, G gets an embedding of the label beside z, and D adds the projection <embedding(label), features>
(Miyato and Koyama 2018, arXiv:1802.05637).  Source: Radford et al. 2016, arXiv:1511.06434.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.gan import DCGANConfig
from smalti.errors import ConfigError, arg
from smalti.nn.blocks import BatchNorm2d, Dropout
from smalti.runtime.rng import Draws

SLOPE = 0.3
LABEL_WIDTH = 64


class DCGANGenerator(nn.Module):
    """(B, latent) and (B,) int64 labels -> (B, C, H, W) in [-1, 1]."""

    def __init__(self, config: DCGANConfig, latent: int, image: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image
        if height % 4 or width % 4 or min(height, width) < 8:
            raise ConfigError(
                f"this generator makes images whose sides are multiples of 4, from 8 on, found {height}x{width}; "
                f"give for example {arg('size', f'{max(8, height - height % 4)}x{max(8, width - width % 4)}')}"
            )
        self.grid = (config.generator_width, height // 4, width // 4)
        first, second, third = config.generator_width, config.generator_width // 2, config.generator_width // 4
        self.embedding = nn.Embedding(classes, LABEL_WIDTH) if classes else None
        self.project = nn.Linear(latent + (LABEL_WIDTH if classes else 0), math.prod(self.grid), bias=False)
        self.norm0 = BatchNorm2d(first)
        # Stride 1: a transposed convolution is a convolution with its kernel turned round, which runs faster.
        self.conv1 = nn.Conv2d(first, second, 5, padding=2, bias=False)
        self.norm1 = BatchNorm2d(second)
        self.conv2 = nn.ConvTranspose2d(second, third, 5, stride=2, padding=2, output_padding=1, bias=False)
        self.norm2 = BatchNorm2d(third)
        self.conv3 = nn.ConvTranspose2d(third, channels, 5, stride=2, padding=2, output_padding=1)
        _initialise(self)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if self.embedding is not None:
            assert labels is not None
            z = torch.cat([z, self.embedding(labels)], dim=1)
        x = self.project(z).view(-1, *self.grid)
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu(self.norm0(x), SLOPE)
        x = F.leaky_relu(self.norm1(self.conv1(x)), SLOPE)
        x = F.leaky_relu(self.norm2(self.conv2(x)), SLOPE)
        return torch.tanh(self.conv3(x).float())


class DCGANDiscriminator(nn.Module):
    """(B, C, H, W) images of any size -> (B,) float32 logits; without `draws` nothing is dropped."""

    def __init__(self, config: DCGANConfig, image: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image
        first, second = config.discriminator_width, config.discriminator_width * 2
        features = second * math.ceil(height / 4) * math.ceil(width / 4)
        self.conv1 = nn.Conv2d(channels, first, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(first, second, 5, stride=2, padding=2)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features) if classes else None
        _initialise(self)

    def forward(self, images: Tensor, labels: Tensor | None, draws: Draws | None) -> Tensor:
        x = self.dropout(F.leaky_relu(self.conv1(images), SLOPE), draws)
        x = self.dropout(F.leaky_relu(self.conv2(x), SLOPE), draws)
        x = x.flatten(1)
        logits = self.head(x)[:, 0].float()
        if self.embedding is not None:
            assert labels is not None
            logits = logits + (self.embedding(labels) * x.float()).sum(dim=1) / math.sqrt(x.shape[1])
        return logits


def _initialise(module: nn.Module) -> None:
    """N(0, 0.02) for every convolution and linear map, as the paper says; embeddings keep N(0, 1)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
