"""Transform codec for images.

    analysis    z = A (x - m)                     tiles of S x S pixels, D orthonormal vectors (Karhunen-Loeve)
    codes       q, integers near z / step         chosen by the rate-distortion search (models/codec/search.py)
    rate        R(q) = -log2 P(q)                 context net (models/codec/context.py)
    synthesis   y = A^T q step + m,   x^ = y + step G(y, quality)      G: residual convolutions

One step serves all coefficients: step = 2^(1 - quality/16) in pixel values of [-1, 1], quality 1 to 100. A begins as
the Karhunen-Loeve transform of the training images and is trained on with the rest. There is no encoder network: codes
are the minimum of |x - x^|^2 + lambda R that the search finds, as in analysis by synthesis.
Sources: Goyal 2001, "Theoretical foundations of transform coding"; Balle et al. 2020, arXiv:2007.03034.
Layout: images (B, C, H, W) in [-1, 1]; codes (B, D, H/S, W/S), integers as float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.codec import CodecConfig
from smalti.data.spec import ImageSpec
from smalti.errors import ConfigError
from smalti.models.autoencoder.klt import SLOWER, TileLinear, principal_axes, repeat_tile, tiles
from smalti.models.codec.context import ContextNet, quality_variable
from smalti.models.codec.distribution import Distribution
from smalti.nn.blocks import ConvolutionPair


def step_size(quality: Tensor) -> Tensor:
    """Quantisation step in pixel values of [-1, 1]: halves every 16 qualities."""
    return torch.exp2(1 - quality.float() / 16)


class Refiner(nn.Module):
    """G: corrects the linear synthesis across the borders of tiles."""

    def __init__(self, config: CodecConfig, channels: int) -> None:
        super().__init__()
        values = channels * config.patch**2
        self.patch = config.patch
        self.reach = config.patch * (2 + 2 * config.blocks)
        self.stem = nn.Conv2d(values, config.width, 3, padding=1)
        self.quality = nn.Linear(2, config.width)
        self.blocks = nn.Sequential(*[ConvolutionPair(config.width) for _ in range(config.blocks)])
        self.correct = nn.Conv2d(config.width, values, 3, padding=1)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(cast(Tensor, self.correct.bias))

    @property
    def tunable(self) -> int:
        """Number of biases that a file may change for its picture: of the first and of the last layer."""
        return self.stem.out_channels + self.correct.out_channels

    def forward(self, base: Tensor, t: Tensor, tuning: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B,), changes of biases (tunable,) or None -> (B, C, H, W), in quantisation steps."""
        grid = F.pixel_unshuffle(base, self.patch).contiguous(memory_format=torch.channels_last)
        level = self.quality(torch.stack([t, t.square()], dim=1))[:, :, None, None]
        if tuning is not None:
            level = level + tuning[: level.shape[1], None, None]
        correction = self.correct(F.relu(self.blocks(self.stem(grid) + level)))
        if tuning is not None:
            correction = correction + tuning[level.shape[1] :, None, None]
        return F.pixel_shuffle(correction, self.patch)


class ImageCodec(nn.Module):
    """Transform, context net and decoder."""

    def __init__(self, config: CodecConfig, channels: int) -> None:
        super().__init__()
        size = channels * config.tile**2
        if config.coefficients > size:
            raise ConfigError(
                f"coefficients is {config.coefficients}, but a tile of {config.tile}x{config.tile} pixels and "
                f"{channels} channels has {size}; give at most that"
            )
        self.tile, self.coefficients = config.tile, config.coefficients
        self.basis = TileLinear(channels, config.tile, config.coefficients, scale=SLOWER)
        self.mean = nn.Parameter(torch.zeros(channels, config.tile, config.tile))
        self.context = ContextNet(config.context, config.coefficients)
        self.refiner = Refiner(config, channels)
        self.pleasing = Refiner(config, channels) if config.pleasing.start is not None else None

    def analyse(self, images: Tensor) -> Tensor:
        """z = A (x - m): (B, C, H, W) -> (B, D, h, w); H and W are multiples of the tile."""
        return self.basis.analyse(images.float() - repeat_tile(self.mean * SLOWER, images))

    @property
    def refiner_reach(self) -> int:
        """Pixels around a cell of patch x patch pixels that the decoder's convolutions see."""
        return self.refiner.reach

    def decode(
        self, codes: Tensor, quality: Tensor, *, decoder: str = "faithful", tuning: Tensor | None = None
    ) -> Tensor:
        """Codes to images: (B, D, h, w), (B,) -> (B, C, H, W) float32, not clipped; differentiable in both.

        Args:
            decoder: "faithful", or "pleasing" for the second decoder, if the model has one.
            tuning: changes of biases for these images, see `Refiner.tunable`.
        """
        step = step_size(quality)[:, None, None, None]
        with torch.autocast(codes.device.type, enabled=False):
            # At low rates most coefficients are zero in all images; gradients need those, too.
            base = self.basis.synthesise(codes.float() * step, sparse=not torch.is_grad_enabled())
            base = base + repeat_tile(self.mean * SLOWER, base)
        refiner = self.refiner if decoder == "faithful" else cast(Refiner, self.pleasing)
        return base + step * refiner(base, quality_variable(quality), tuning).float()

    def distribution(self, codes: Tensor, quality: Tensor) -> Distribution:
        """Distributions of all coefficients, each given those coded before it."""
        with torch.autocast(codes.device.type, enabled=False):
            return self.context(codes.float(), quality)

    @torch.no_grad()
    def fit(self, batches: Callable[[], Iterable[Tensor]]) -> None:
        """Set the transform to the Karhunen-Loeve transform of images (B, C, H, W), and the scales to its variances."""
        size = self.basis.weight.shape[1]
        total = torch.zeros(size)
        products, count = torch.zeros(size, size), 0
        for images in batches():
            rows = tiles(self.padded(images).float(), self.tile).reshape(-1, size).cpu()
            total, count = total + rows.sum(dim=0), count + len(rows)
            products.addmm_(rows.T, rows)
        mean = total.double() / count
        covariance = products.double() / count - mean[:, None] * mean
        variances, vectors = principal_axes(covariance, self.coefficients)
        device = self.basis.weight.device
        self.basis.weight.copy_(vectors.T.float().to(device) / SLOWER)
        self.mean.copy_(mean.float().to(device).view_as(self.mean) / SLOWER)
        self.context.fit(variances.float())

    def padded(self, images: Tensor) -> Tensor:
        """Repeat the last row and column until the sides are multiples of the tile."""
        down, right = -images.shape[2] % self.tile, -images.shape[3] % self.tile
        return F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images


def build_codec(config: CodecConfig, spec: ImageSpec, classes: int, tokenizer: nn.Module | None) -> ImageCodec:
    """The network of the kind `codec`, without its weights."""
    return ImageCodec(config, spec.channels)
