"""SNGAN: the classic residual GAN, with spectral normalisation in the discriminator.

    G  Linear(z -> w x h x w) | a block for each doubling: x' + conv3(relu(BN(conv3(up(relu(BN(x)))))))
       | BN, relu, 3x3 to the image, tanh                      x' = conv1(up(x)); with labels, BN is conditional
    D  block from the image, halved | a halved block for each halving down to a shorter side of 8 to 14 pixels
       | two blocks | relu, sum over places, Linear to one logit [+ <embedding(label), features>]
       block  x' + conv3(relu(conv3(relu(x)))), both halved by means where it halves; the first without its inner relu
              x' = conv1(x) where it halves, x where not

The width is the same at every grid. Weights begin uniform after Glorot and Bengio 2010, 3x3 convolutions of blocks
with gain sqrt(2), the rest with 1.  Sources: Miyato et al. 2018, arXiv:1802.05957, table 4 and section B.4; Miyato and
Koyama 2018, arXiv:1802.05637, for labels.  Layout: (B, C, H, W).
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from smalti.config import SNGANConfig
from smalti.layers.blocks import BatchNorm2d
from smalti.layers.randomness import Draws
from smalti.layers.resample import box_down, box_up
from smalti.models.doubling import doublings

EVEN_GRIDS = 2  # the last blocks of D, which do not halve
GAIN = 2**0.5
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)


class SNGANGenerator(nn.Module):
    """(B, latent) and (B,) int64 labels -> (B, C, H, W) in [-1, 1]."""

    def __init__(self, config: SNGANConfig, latent: int, image: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image
        count, grid = doublings(height, width)
        wide = config.generator_width
        self.grid = (wide, *grid)
        self.project = _glorot(nn.Linear(latent, wide * grid[0] * grid[1]))
        self.blocks = nn.ModuleList(_UpBlock(wide, classes) for _ in range(count))
        self.norm = _Norm(wide, 0)
        self.image = _glorot(nn.Conv2d(wide, channels, 3, padding=1))

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        x = self.project(z).view(-1, *self.grid).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, labels)
        return torch.tanh(self.image(F.relu(self.norm(x, None))).float())


class SNGANDiscriminator(nn.Module):
    """(B, C, H, W) images -> (B,) logits."""

    def __init__(self, config: SNGANConfig, image: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image
        count, _ = doublings(height, width)
        wide = config.discriminator_width
        self.first = _DownBlock(channels, wide, halve=True, first=True)
        halvings = [number < count - 2 for number in range(count - 2 + EVEN_GRIDS)]
        self.blocks = nn.ModuleList(_DownBlock(wide, wide, halve=halve) for halve in halvings)
        self.head = _normalised(nn.Linear(wide, 1))
        self.embedding = _normalised(nn.Embedding(classes, wide)) if classes else None

    def forward(self, images: Tensor, labels: Tensor | None, draws: Draws | None) -> Tensor:
        x = self.first(images)
        for block in self.blocks:
            x = block(x)
        # Float32 from here: a sum over places loses too much in bf16.
        with torch.autocast(x.device.type, enabled=False):
            x = F.relu(x.float()).sum(dim=(2, 3))
            logits: Tensor = self.head(x)[:, 0]
            return logits if self.embedding is None else logits + (self.embedding(labels) * x).sum(dim=1)


class _UpBlock(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _Norm(width, classes), _glorot(nn.Conv2d(width, width, 3, padding=1), GAIN)
        self.norm2, self.conv2 = _Norm(width, classes), _glorot(nn.Conv2d(width, width, 3, padding=1), GAIN)
        self.shortcut = _glorot(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        inside = self.conv1(box_up(F.relu(self.norm1(x, labels))))
        # A 1x1 convolution and nearest neighbours commute; this way round it is a quarter of the work.
        return box_up(self.shortcut(x)) + self.conv2(F.relu(self.norm2(inside, labels)))


class _DownBlock(nn.Module):
    def __init__(self, channels_in: int, width: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = _normalised(nn.Conv2d(channels_in, width, 3, padding=1), GAIN)
        self.conv2 = _normalised(nn.Conv2d(width, width, 3, padding=1), GAIN)
        changes = channels_in != width or halve
        self.shortcut = _normalised(nn.Conv2d(channels_in, width, 1)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        inside = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if self.halve:
            x, inside = box_down(x), box_down(inside)
        return inside + (x if self.shortcut is None else self.shortcut(x))


class _Norm(nn.Module):
    """Batch normalisation; with labels, each has a scale and an offset of its own."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(width, affine=not classes)
        self.scale = nn.Embedding(classes, width) if classes else None
        self.offset = nn.Embedding(classes, width) if classes else None
        if self.scale is not None and self.offset is not None:
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.offset.weight)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        x = self.norm(x)
        if self.scale is None or self.offset is None:
            return x
        scale, offset = (part(labels)[:, :, None, None].to(x.dtype) for part in (self.scale, self.offset))
        return x * scale + offset


def _glorot(layer: Layer, gain: float = 1.0) -> Layer:
    """Weights uniform with variance gain^2 * 2 / (fan-in + fan-out), bias at zero."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if not isinstance(layer, nn.Embedding) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _normalised(layer: Layer, gain: float = 1.0) -> Layer:
    """The weight is divided by its largest singular value, which is followed by a power iteration a forward."""
    spectral_norm(_glorot(layer, gain))
    return layer
