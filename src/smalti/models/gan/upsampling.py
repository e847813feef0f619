"""A generator with batch normalisation that doubles its grid in each block: SNGAN's, and r3gan's small one.

    Linear(z -> w_0 x h x w) | a block for each doubling: x' + conv3(relu(BN(conv3(up(relu(BN(x)))))))
    | BN, relu, 3x3 to the image, tanh                       x' = conv1(up(x))

With labels, each has a scale and an offset of its own in every BN of a block. If `modulated`, the
latents change scale and offset there too, by Linear(z), which starts at zero. (In the paper it has a hidden layer.)
Weights begin uniform after Glorot and Bengio 2010, 3x3 convolutions of blocks with gain sqrt(2), the rest with 1.
Sources: Miyato et al. 2018, arXiv:1802.05957, table 4 and section B.4, where all widths are the same; Miyato and Koyama
2018, arXiv:1802.05637, for labels; Chen et al. 2019, arXiv:1810.01365, for modulation by latents.
Layout: (B, C, H, W), channels last in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.nn.blocks import BatchNorm2d
from smalti.nn.resample import box_up

GAIN = 2**0.5
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)


class UpsamplingGenerator(nn.Module):
    """(B, latent) and (B,) int64 labels -> (B, channels, H, W) in [-1, 1].

    Args:
        coarsest: (height, width) of the grid that it begins with; each block doubles both.
        widths: channels at each grid, from the coarsest; one more than there are blocks.
    """

    def __init__(
        self,
        latent: int,
        channels: int,
        coarsest: tuple[int, int],
        widths: Sequence[int],
        classes: int,
        *,
        modulated: bool = False,
    ) -> None:
        super().__init__()
        self.grid = (widths[0], *coarsest)
        self.project = glorot(nn.Linear(latent, widths[0] * coarsest[0] * coarsest[1]))
        self.blocks = nn.ModuleList(
            _UpBlock(a, b, classes, latent if modulated else 0) for a, b in itertools.pairwise(widths)
        )
        self.norm = _Norm(widths[-1], 0, 0)
        self.image = glorot(nn.Conv2d(widths[-1], channels, 3, padding=1))

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        x = self.project(z).view(-1, *self.grid).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, z, labels)
        return torch.tanh(self.image(F.relu(self.norm(x, z, None))).float())


class _UpBlock(nn.Module):
    def __init__(self, channels_in: int, width: int, classes: int, latent: int) -> None:
        super().__init__()
        self.norm1 = _Norm(channels_in, classes, latent)
        self.conv1 = glorot(nn.Conv2d(channels_in, width, 3, padding=1), GAIN)
        self.norm2 = _Norm(width, classes, latent)
        self.conv2 = glorot(nn.Conv2d(width, width, 3, padding=1), GAIN)
        self.shortcut = glorot(nn.Conv2d(channels_in, width, 1))

    def forward(self, x: Tensor, z: Tensor, labels: Tensor | None) -> Tensor:
        inside = self.conv1(box_up(F.relu(self.norm1(x, z, labels))))
        # A 1x1 convolution and nearest neighbours commute; this way round it is a quarter of the work.
        return box_up(self.shortcut(x)) + self.conv2(F.relu(self.norm2(inside, z, labels)))


class _Norm(nn.Module):
    """Batch normalisation; with labels, each has a scale and an offset of its own, and latents may change both."""

    def __init__(self, width: int, classes: int, latent: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(width, affine=not classes)
        self.scale = nn.Embedding(classes, width) if classes else None
        self.offset = nn.Embedding(classes, width) if classes else None
        if self.scale is not None and self.offset is not None:
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.offset.weight)
        self.modulation = nn.Linear(latent, 2 * width, bias=False) if latent else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)

    def forward(self, x: Tensor, z: Tensor, labels: Tensor | None) -> Tensor:
        x = self.norm(x)
        if self.scale is not None and self.offset is not None:
            x = x * _of_each_image(self.scale(labels), x) + _of_each_image(self.offset(labels), x)
        if self.modulation is not None:
            scale, offset = self.modulation(z).chunk(2, dim=1)
            x = x * _of_each_image(1 + scale, x) + _of_each_image(offset, x)
        return x


def _of_each_image(values: Tensor, x: Tensor) -> Tensor:
    """(B, C) -> (B, C, 1, 1) in the type of x."""
    return values[:, :, None, None].to(x.dtype)


def glorot(layer: Layer, gain: float = 1.0) -> Layer:
    """Weights uniform with variance gain^2 * 2 / (fan-in + fan-out), bias at zero."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if not isinstance(layer, nn.Embedding) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
