"""SNGAN: the classic residual GAN, with spectral normalisation in the discriminator.

    G  upsampling.py
    D  block from the image, halved | a halved block for each halving down to a shorter side of 8 to 14 pixels
       | two blocks | relu, sum over positions, Linear to one logit [+ <embedding(label), features>]
       block  x' + conv3(relu(conv3(relu(x)))), both halved by means where it halves; the first without its inner relu
              x' = conv1(x) where it halves, x where not

The width is the same at every grid, in G as in D. Weights begin as in upsampling.py.  Sources: Miyato et al. 2018,
arXiv:1802.05957, table 4 and section B.4; Miyato and Koyama 2018, arXiv:1802.05637, for labels.  Layout: (B, C, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from smalti.config.gan import SNGANConfig
from smalti.models.gan.image_sizes import doublings
from smalti.models.gan.upsampling import GAIN, Layer, UpsamplingGenerator, glorot
from smalti.nn.resample import box_down
from smalti.runtime.rng import Draws

EVEN_GRIDS = 2  # the last blocks of D, which do not halve


class SNGANGenerator(UpsamplingGenerator):
    """(B, latent) and (B,) int64 labels -> (B, C, H, W) in [-1, 1]."""

    def __init__(self, config: SNGANConfig, latent: int, image: tuple[int, int, int], classes: int) -> None:
        count, coarsest = doublings(*image[1:])
        super().__init__(latent, image[0], coarsest, [config.generator_width] * (count + 1), classes)


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
        # Float32 from here: a sum over positions loses too much in bf16.
        with torch.autocast(x.device.type, enabled=False):
            x = F.relu(x.float()).sum(dim=(2, 3))
            logits: Tensor = self.head(x)[:, 0]
            return logits if self.embedding is None else logits + (self.embedding(labels) * x).sum(dim=1)


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


def _normalised(layer: Layer, gain: float = 1.0) -> Layer:
    """Divide the weight by its largest singular value, estimated by one power iteration in each forward."""
    spectral_norm(glorot(layer, gain))
    return layer
