"""R3GAN: residual networks without normalisation, with a discriminator that mirrors the generator or is stronger.

    G  basis (w_0 x h x w) times Linear(z -> w_0) | blocks | 1x1 to w_1, up | blocks | ... | k x k to the image
    D  k x k from the image | blocks | down, 1x1 | ... | blocks on h x w | depthwise h x w | Linear to one logit
       the 1x1 only where the width changes

    grouped     x + conv1(lrelu(b + gconv3(lrelu(b + conv1(x)))))     inside 2w channels, 16 in a group: the paper's
    bottleneck  x + conv1(lrelu(b + conv3(lrelu(b + conv1(x)))))      inside w/2 channels (8 at least), dense

The paper's k is 1. With a patch of p pixels, p x p pixels are folded into the channels of one position of the
finest grid, which takes most of the time, and k is 3. No normalisation anywhere, no tanh; weights begin as
N(0, g^2 / fan-in), g = 1 or inside a block g^2 = 2 / 1.04 / sqrt(number of blocks), the last convolution of a block at
zero (Fixup), so that a network begins as its shortcuts. With labels, G gets an embedding, N(0, 1 / classes) at first,
beside z, and D's logit is <embedding(label), Linear to w_0>, the embedding N(0, 1 / classes / w_0) at first. The
coarsest grid is computed in float32, as in the paper.

In place of the mirror, G can be the modulated generator of upsampling.py: for few training images it is better.
Source: Huang et al. 2025, arXiv:2501.05441, section 3.  Layout: (B, C, H, W), channels last in memory.
"""

from __future__ import annotations

import itertools
import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.gan import R3GANConfig
from smalti.errors import ConfigError
from smalti.models.gan.image_sizes import doublings
from smalti.models.gan.upsampling import UpsamplingGenerator
from smalti.nn.resample import box_down, box_up, smooth_down, smooth_up
from smalti.runtime.rng import Draws

SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the variance through LeakyReLU
GROUP = 16  # channels of a group
LABEL_WIDTH = 64
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

RESAMPLE = {"box": (box_up, box_down), "smooth": (smooth_up, smooth_down)}


def r3gan_generator(config: R3GANConfig, latent: int, image: tuple[int, int, int], classes: int) -> nn.Module:
    """(B, latent) and (B,) int64 labels -> (B, C, H, W)."""
    if config.generator == "mirror":
        return R3GANGenerator(config, latent, image, classes)
    count, coarsest = doublings(*image[1:])
    widths = _falling(config.generator_width, config.generator_taper, count, 8)
    return UpsamplingGenerator(latent, image[0], coarsest, widths, classes, modulated=True)


class R3GANGenerator(nn.Module):
    """(B, latent) and (B,) int64 labels -> (B, C, H, W), not bounded."""

    def __init__(self, config: R3GANConfig, latent: int, image: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels = _folded_channels(config, image)
        count, coarsest = doublings(*image[1:])
        widths = _widths(config, count)
        self.up, _ = RESAMPLE[config.resample]
        self.patch = config.patch
        self.embedding = _embedding(classes, LABEL_WIDTH, 1.0) if classes else None
        self.basis = nn.Parameter(torch.randn(widths[0], *coarsest))
        self.project = _scaled(nn.Linear(latent + (LABEL_WIDTH if classes else 0), widths[0], bias=False), 1.0)
        self.stages = _stages(config, widths)
        self.changes = _changes(widths)
        self.image = _convolution(widths[-1], channels, 3 if config.patch > 1 else 1)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(labels)], dim=1)
        with torch.autocast(z.device.type, enabled=False):
            x = self.basis * self.project(z.float())[:, :, None, None]
            x = self.stages[0](x.contiguous(memory_format=torch.channels_last))
        for change, stage in zip(self.changes, self.stages[1:], strict=True):
            x = stage(self.up(change(x)))
        return F.pixel_shuffle(self.image(x), self.patch)


class R3GANDiscriminator(nn.Module):
    """(B, C, H, W) images -> (B,) logits."""

    def __init__(self, config: R3GANConfig, image: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels = _folded_channels(config, image)
        count, coarsest = doublings(*image[1:])
        widths = _widths(config, count)[::-1]
        _, self.down = RESAMPLE[config.resample]
        self.patch = config.patch
        self.image = _convolution(channels, widths[0], 3 if config.patch > 1 else 1)
        self.stages = _stages(config, widths)
        self.changes = _changes(widths)
        self.gather = Gather(widths[-1], coarsest)
        self.head = _scaled(nn.Linear(widths[-1], widths[-1] if classes else 1, bias=False), 1.0)
        self.embedding = _embedding(classes, widths[-1], widths[-1] ** -0.5) if classes else None

    def forward(self, images: Tensor, labels: Tensor | None, draws: Draws | None) -> Tensor:
        x = F.pixel_unshuffle(images, self.patch).contiguous(memory_format=torch.channels_last)
        x = self.image(x)
        for stage, change in zip(self.stages[:-1], self.changes, strict=True):
            x = change(self.down(stage(x)))
        with torch.autocast(x.device.type, enabled=False):
            features = self.head(self.gather(self.stages[-1](x.float())))
            return features[:, 0] if self.embedding is None else (features * self.embedding(labels)).sum(dim=1)


class Gather(nn.Module):
    """A depthwise convolution over a whole grid, (B, C, h, w) -> (B, C).

    Written as a product and a sum, because torch differentiates a grouped convolution twice one group at a time.
    """

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, 1, *grid) / math.sqrt(grid[0] * grid[1]))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight[:, 0]).sum(dim=(2, 3))


class Block(nn.Module):
    """One of the two residual blocks above; `count` is the number of blocks in the network."""

    def __init__(self, kind: str, width: int, count: int) -> None:
        super().__init__()
        gain = GAIN * count**-0.25
        inside = 2 * width if kind == "grouped" else max(8, width // 2)
        groups = max(1, inside // GROUP) if kind == "grouped" else 1
        self.conv1 = _convolution(width, inside, 1, bias=True, gain=gain)
        self.conv2 = _convolution(inside, inside, 3, bias=True, gain=gain, groups=groups)
        self.conv3 = _convolution(inside, width, 1, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        inside = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x), SLOPE)), SLOPE)
        return x + self.conv3(inside)


def _folded_channels(config: R3GANConfig, image: tuple[int, int, int]) -> int:
    """Channels of an image with its patches folded into them."""
    channels, height, width = image
    count, _ = doublings(height, width)
    if config.patch > 2**count:
        raise ConfigError(
            f"network.patch is {config.patch}, but images of {height}x{width} allow at most {2**count}: "
            "the finest grid would be coarser than the coarsest"
        )
    return channels * config.patch**2


def _widths(config: R3GANConfig, doublings_count: int) -> list[int]:
    """Channels at each grid, from the coarsest."""
    return _falling(config.width, config.taper, doublings_count - int(math.log2(config.patch)), GROUP)


def _falling(width: int, taper: float, finer: int, unit: int) -> list[int]:
    """A width, and those at so many finer grids: multiples of a unit; they never grow."""
    rounded = (round(width * taper**k / unit) * unit for k in range(1, finer + 1))
    return [width, *(min(width, max(unit, finer_width)) for finer_width in rounded)]


def _stages(config: R3GANConfig, widths: list[int]) -> nn.ModuleList:
    count = config.blocks * len(widths)
    return nn.ModuleList(
        nn.Sequential(*(Block(config.block, width, count) for _ in range(config.blocks))) for width in widths
    )


def _changes(widths: list[int]) -> nn.ModuleList:
    """1x1 convolutions from each width to the next, where they differ."""
    return nn.ModuleList(nn.Identity() if a == b else _convolution(a, b, 1) for a, b in itertools.pairwise(widths))


def _convolution(
    channels_in: int, channels_out: int, size: int, *, bias: bool = False, gain: float = 1.0, groups: int = 1
) -> nn.Conv2d:
    return _scaled(nn.Conv2d(channels_in, channels_out, size, padding=size // 2, bias=bias, groups=groups), gain)


def _embedding(classes: int, width: int, gain: float) -> nn.Embedding:
    """As a linear map of the label's one-hot vector begins: N(0, gain^2 / classes)."""
    layer = nn.Embedding(classes, width)
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(classes))
    return layer


def _scaled(layer: Layer, gain: float) -> Layer:
    """Weights from N(0, gain^2 / fan-in), bias at zero."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
