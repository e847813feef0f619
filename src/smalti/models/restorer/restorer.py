"""Restorers: networks that predict what a degraded image lacks; translators: what gives it another style.

    x^ = up(y) + f(y, hole)         f: U-Net or flat residual network; up: bicubic, the identity at scale 1

Pixels are folded into channels in blocks of patch x patch before the first convolution and unfolded after the last,
which also enlarges by `scale`. Blocks are residual pairs of 3x3 convolutions without normalisation, which learn more
in the same time on a processor than gated blocks. All convolutions see a bounded neighbourhood (`reach`), so a picture
may be restored in tiles that overlap by it, with the result of the whole.
Sources: Ronneberger et al. 2015, arXiv:1505.04597 (U-Net); Zhang et al. 2017, arXiv:1608.03981 (residual learning);
Lim et al. 2017, arXiv:1707.02921 (no normalisation); Shi et al. 2016, arXiv:1609.05158 (unfolding).
Layout: (B, C, H, W) in [-1, 1].
"""

from __future__ import annotations

import itertools
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.restorer import FlatConfig, RestorerConfig, UNetConfig
from smalti.config.translator import TranslatorConfig
from smalti.data.spec import ImageSpec
from smalti.nn.blocks import ConvolutionPair


class Flat(nn.Module):
    """Residual blocks at one resolution."""

    stride = 1

    def __init__(self, config: FlatConfig) -> None:
        super().__init__()
        self.width, self.reach = config.width, 2 * config.blocks
        self.blocks = nn.Sequential(*[ConvolutionPair(config.width) for _ in range(config.blocks)])

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.blocks(x))

    def maps(self, x: Tensor) -> list[Tensor]:
        """The feature maps that patches are compared in: one."""
        return [self(x)]


class UNet(nn.Module):
    """Residual blocks at several resolutions, with skip connections that are added."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        widths = [config.width << level for level in range(config.levels)]
        self.width, self.stride = config.width, 1 << (config.levels - 1)
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in itertools.pairwise(widths):
            self.encoders.append(nn.Sequential(*[ConvolutionPair(fine) for _ in range(config.blocks)]))
            self.shrink.append(nn.Conv2d(fine, coarse, 2, stride=2))
            self.grow.append(nn.Conv2d(coarse, 4 * fine, 1))
            self.decoders.append(nn.Sequential(*[ConvolutionPair(fine) for _ in range(config.blocks)]))
        self.middle = nn.Sequential(*[ConvolutionPair(widths[-1]) for _ in range(config.middle)])
        # On each way 2 positions a block; the coarser one reached from a finer one begins up to a position before it.
        fine_reach = sum((4 * config.blocks + 1) << level for level in range(config.levels - 1))
        self.reach = fine_reach + ((2 * config.middle) << (config.levels - 1))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for encoder, shrink in zip(self.encoders, self.shrink, strict=True):
            x = encoder(x)
            skips.append(x)
            x = shrink(x)
        x = self.middle(x)
        for grow, decoder in reversed(list(zip(self.grow, self.decoders, strict=True))):
            x = decoder(F.pixel_shuffle(grow(x), 2) + skips.pop())
        return x

    def maps(self, x: Tensor) -> list[Tensor]:
        """The feature maps that patches are compared in: of each resolution on the way down, from fine to coarse."""
        found = []
        for encoder, shrink in zip(self.encoders, self.shrink, strict=True):
            found.append(encoder(x))
            x = shrink(found[-1])
        return [*found, self.middle(x)]


class Restorer(nn.Module):
    """A network for images of any size.

    Attributes:
        channels: of the images.
        scale: size of the result in sizes of the input.
        holes: whether it takes a mask of what is missing.
        multiple: sides of its inputs are padded to multiples of this many pixels.
        reach: pixels of the input around a pixel that its result depends on, at most.
    """

    def __init__(self, config: RestorerConfig | TranslatorConfig, channels: int) -> None:
        super().__init__()
        self.channels, self.scale, self.holes = channels, config.scale, config.holes
        self.patch = config.network.patch
        self.body = UNet(config.network) if isinstance(config.network, UNetConfig) else Flat(config.network)
        self.multiple = self.patch * self.body.stride
        self.reach = self.patch * (self.body.reach + 2) + 2  # two more convolutions, and the bicubic enlargement
        inputs = (channels + self.holes) * self.patch**2
        self.stem = nn.Conv2d(inputs, self.body.width, 3, padding=1)
        self.head = nn.Conv2d(self.body.width, channels * (self.patch * self.scale) ** 2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    def forward(self, images: Tensor, hole: Tensor | None = None) -> Tensor:
        """Restore images.

        Args:
            images: (B, C, H, W) in [-1, 1], of any size.
            hole: (B, 1, H, W), 1 where pixels are missing; for a network with `holes`.

        Returns:
            (B, C, scale H, scale W) float32, not clipped.
        """
        height, width = images.shape[2:]
        features = self.body(self.stem(self._folded(images, hole)))
        correction = F.pixel_shuffle(self.head(features), self.patch * self.scale).float()
        return enlarged(images, self.scale) + correction[:, :, : self.scale * height, : self.scale * width]

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps, from (B, C, H, W) in [-1, 1]: the folded images, the first layer's, those of the body."""
        grid = self._folded(images, None)
        first = self.stem(grid)
        return [grid, first, *self.body.maps(first)]

    def _folded(self, images: Tensor, hole: Tensor | None) -> Tensor:
        """The padded inputs, in blocks of patch x patch pixels."""
        down, right = -images.shape[2] % self.multiple, -images.shape[3] % self.multiple
        inputs = images
        if self.holes:
            assert hole is not None
            inputs = torch.cat([images, hole.to(images.dtype)], dim=1)
        if down or right:
            inputs = F.pad(inputs, (0, right, 0, down), mode="replicate")
        return F.pixel_unshuffle(inputs, self.patch).contiguous(memory_format=torch.channels_last)


def enlarged(images: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement: (B, C, H, W) -> (B, C, scale H, scale W) float32."""
    if scale == 1:
        return images.float()
    return F.interpolate(images.float(), scale_factor=float(scale), mode="bicubic", align_corners=False)


def build_restorer(config: RestorerConfig, spec: ImageSpec, classes: int, tokenizer: nn.Module | None) -> Restorer:
    """The network of the kind `restore`, without its weights."""
    return Restorer(config, spec.channels)
