"""Patch discriminators: one logit for each position of a grid, for images of any size.

Of images (Isola et al. 2017, arXiv:1611.07004, section 3.2.2, with group normalisation in place of the batch's):

    4x4 stride 2 to width, LeakyReLU .2 | 4x4 stride 2 to 2 width, norm, LeakyReLU | 3x3 to 4 width, norm, LeakyReLU
    | 3x3 to one logit                                                       each logit sees 26 x 26 pixels

Of a feature map of a network that is not trained (after Sauer et al. 2021, arXiv:2111.01007):

    sqrt(C) times the unit vector of each position | 1x1 to width, LeakyReLU .2 | 3x3 to width, norm, LeakyReLU
    | 1x1 to one logit

The last layer is zero at first.  Layout: (B, C, H, W).
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from smalti.losses.perceptual import unit_vectors
from smalti.nn.blocks import group_norm

SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """(B, channels, H, W) images -> (B, 1, H/4, W/4) logits: large for real, small for reconstructed."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.norm2 = group_norm(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.norm3 = group_norm(4 * width)
        self.head = _silent(nn.Conv2d(4 * width, 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv1(images), SLOPE)
        x = F.leaky_relu(self.norm2(self.conv2(x)), SLOPE)
        x = F.leaky_relu(self.norm3(self.conv3(x)), SLOPE)
        logits: Tensor = self.head(x)
        return logits


class MapDiscriminator(nn.Module):
    """(B, channels, H, W) feature maps -> (B, 1, H, W) logits: large for real, small for reconstructed."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = group_norm(width)
        self.head = _silent(nn.Conv2d(width, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(maps))
        return logits

    def features(self, maps: Tensor) -> Tensor:
        """(B, channels, H, W) feature maps -> (B, width, H, W), before the last layer."""
        x = F.leaky_relu(self.conv1(unit_vectors(maps) * maps.shape[1] ** 0.5), SLOPE)
        return F.leaky_relu(self.norm2(self.conv2(x)), SLOPE)


def _silent(head: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(head.weight)
    nn.init.zeros_(cast(Tensor, head.bias))
    return head
