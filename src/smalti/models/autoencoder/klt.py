"""Learned transform coding: a linear transform of whole tiles, corrected by convolutions.

    encoder   z = A (x - m) + F(x)                 one vector z for each tile of stride x stride pixels
    decoder   y = A' z + m,   x^ = y + G(y, z)

A and A' begin as the Karhunen-Loeve transform of the training images, the orthogonal map whose first D coordinates
hold the most energy, and train on slowly; F and G are residual convolutions on a grid of patch x patch pixels whose
last layers begin at zero. So training starts from the best linear codec there is for the data and can only improve.
Neighbouring tiles meet in F and G alone, whose 3x3 kernels cross the borders between them.

The coordinates are handed to the quantizer's groups of channels so that all groups carry equally many bits: the
variance l_i of coordinate i asks for max(0, log2(l_i / t) / 2) of them (reverse water-filling: Cover and Thomas,
Elements of Information Theory, section 10.3.3).
Sources: Goyal 2001, "Theoretical foundations of transform coding"; Balle et al. 2020, arXiv:2007.03034.
Layout: images (B, C, H, W); latents (B, D, H/stride, W/stride).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.autoencoder import TransformConfig
from smalti.errors import ConfigError
from smalti.nn.blocks import ConvolutionPair

# The linear maps learn at a tenth of the rate of the rest: weights are stored times ten, and Adam's steps are not.
SLOWER = 0.1
SPARE, ROUNDS = 64, 6  # of the subspace iteration: vectors beside those wanted, and products


class TileLinear(nn.Module):
    """A linear map between tiles of side x side pixels and vectors: (B, C, h*side, w*side) <-> (B, D, h, w)."""

    def __init__(self, channels: int, side: int, dimension: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.channels, self.side, self.scale = channels, side, scale
        self.weight = nn.Parameter(torch.zeros(dimension, channels * side * side))

    def energies(self) -> Tensor:
        """Squared lengths of the rows, (dimension,)."""
        return (self.weight * self.scale).square().sum(dim=1)

    def analyse(self, images: Tensor) -> Tensor:
        """Tiles to vectors."""
        return F.linear(tiles(images, self.side), self.weight * self.scale).permute(0, 3, 1, 2)

    def synthesise(self, vectors: Tensor, *, sparse: bool = False) -> Tensor:
        """Vectors to tiles: the transposed map; with `sparse` without coordinates that are zero in all vectors."""
        batch, _, height, width = vectors.shape
        flat, weight = vectors.permute(0, 2, 3, 1), self.weight * self.scale
        if sparse:
            used = flat.reshape(-1, flat.shape[3]).any(dim=0).nonzero()[:, 0]
            flat, weight = flat[..., used], weight[used]
        flat = F.linear(flat, weight.T)
        pixels = flat.view(batch, height, width, self.channels, self.side, self.side).permute(0, 3, 1, 4, 2, 5)
        return pixels.reshape(batch, self.channels, height * self.side, width * self.side)


class TransformEncoder(nn.Module):
    """(B, C, H, W) -> (B, D, H/stride, W/stride)."""

    def __init__(self, config: TransformConfig, channels: int, dimension: int) -> None:
        super().__init__()
        values = channels * config.patch**2
        if dimension > channels * config.stride**2:
            raise ConfigError(
                f"the quantizer takes {dimension} numbers for a tile, which has only {channels * config.stride**2} "
                "pixel values; give fewer groups, a smaller quantizer.layer.dimension or a larger stride"
            )
        self.patch = config.patch
        self.linear = TileLinear(channels, config.stride, dimension, scale=SLOWER)
        self.mean = nn.Parameter(torch.zeros(channels, config.stride, config.stride))
        self.stem = nn.Conv2d(values, config.width, 3, padding=1)
        self.blocks = nn.Sequential(*[ConvolutionPair(config.width) for _ in range(config.encoder_blocks)])
        self.narrow = nn.Conv2d(config.width, values, 1)
        self.correct = TileLinear(values, config.stride // config.patch, dimension)

    def transformed(self, images: Tensor) -> Tensor:
        """The linear part alone."""
        return self.linear.analyse(images - repeat_tile(self.mean * SLOWER, images))

    def features(self, images: Tensor) -> Tensor:
        """What the correction is made of: (B, width, H / patch, W / patch)."""
        features: Tensor = self.blocks(self.stem(F.pixel_unshuffle(images, self.patch)))
        return features

    def forward(self, images: Tensor) -> Tensor:
        return self.corrected(images, self.features(images))

    def corrected(self, images: Tensor, features: Tensor) -> Tensor:
        """The latents, from the images and their `features`."""
        return self.transformed(images) + self.correct.analyse(F.relu(self.narrow(F.relu(features))))


class TransformDecoder(nn.Module):
    """(B, D, h, w) -> (B, C, h * stride, w * stride)."""

    def __init__(self, config: TransformConfig, channels: int, dimension: int) -> None:
        super().__init__()
        values = channels * config.patch**2
        self.patch = config.patch
        self.linear = TileLinear(channels, config.stride, dimension, scale=SLOWER)
        self.mean = nn.Parameter(torch.zeros(channels, config.stride, config.stride))
        self.spread = TileLinear(values, config.stride // config.patch, dimension)
        nn.init.normal_(self.spread.weight, std=self.spread.weight.shape[1] ** -0.5)
        self.stem = nn.Conv2d(2 * values, config.width, 3, padding=1)
        self.blocks = nn.Sequential(*[ConvolutionPair(config.width) for _ in range(config.decoder_blocks)])
        self.correct = nn.Conv2d(config.width, values, 1)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(cast(Tensor, self.correct.bias))

    def forward(self, latents: Tensor) -> Tensor:
        return self.corrected(*self.features(latents))

    def features(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Images of the linear part alone, and what their correction is made of, (B, width, H / patch, W / patch)."""
        base = self.linear.synthesise(latents)
        base = base + repeat_tile(self.mean * SLOWER, base)
        features = torch.cat([F.pixel_unshuffle(base, self.patch), self.spread.synthesise(latents)], dim=1)
        return base, self.blocks(self.stem(features.contiguous(memory_format=torch.channels_last)))

    def corrected(self, base: Tensor, features: Tensor) -> Tensor:
        """The images, from what `features` returns."""
        return base + F.pixel_shuffle(self.correct(F.relu(features)), self.patch)


@torch.no_grad()
def fit_transform(
    encoder: TransformEncoder, decoder: TransformDecoder, batches: Callable[[], Iterable[Tensor]], *, groups: int
) -> Tensor:
    """Set the linear maps to the Karhunen-Loeve transform of some images.

    Args:
        batches: gives the images, (B, C, H, W), whose sides are multiples of the stride.
        groups: of the quantizer, which take equal shares of the channels, and get equal shares of the bits.

    Returns:
        The linear latents of all images, (N, D, h, w), which are the encoder's while its corrections are zero.
    """
    side, dimension = encoder.linear.side, len(encoder.linear.weight)
    device = encoder.linear.weight.device
    size = encoder.linear.weight.shape[1]
    total, products, count = torch.zeros(size), torch.zeros(size, size), 0
    for images in batches():
        rows = tiles(images.float(), side).reshape(-1, size).cpu()
        total, count = total + rows.sum(dim=0), count + len(rows)
        products.addmm_(rows.T, rows)
    mean = total.double() / count
    covariance = products.double() / count - mean[:, None] * mean
    variances, vectors = principal_axes(covariance, dimension)
    basis = vectors[:, balanced_order(variances, groups)].T.float().to(device)
    for part in (encoder, decoder):
        part.linear.weight.copy_(basis / SLOWER)
        part.mean.copy_(mean.float().to(device).view_as(part.mean) / SLOWER)
    return torch.cat([encoder.transformed(images) for images in batches()])


def principal_axes(covariance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of a covariance, falling, and their eigenvectors.

    Large matrices are not decomposed whole: the space of the leading vectors is found by subspace iteration (Halko et
    al. 2011, arXiv:0909.4061, algorithm 4.4) and only what is inside it is diagonalised. Vectors at the far end, whose
    eigenvalues hardly differ, come out mixed with each other; they are orthonormal all the same.

    Args:
        covariance: (S, S) float64, symmetric.
        count: how many, at most S.

    Returns:
        (count,) and (S, count) float64.
    """
    size = len(covariance)
    inside = None
    if count + SPARE < size // 2:
        generator = torch.Generator().manual_seed(0)
        inside = torch.randn(size, count + SPARE, generator=generator, dtype=covariance.dtype)
        for _ in range(ROUNDS):
            inside = torch.linalg.qr(covariance @ inside).Q
        covariance = inside.T @ covariance @ inside
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0)[:count].clamp_min(0), vectors.flip(1)[:, :count]
    if inside is not None:
        vectors = inside @ vectors
    # The sign of an eigenvector is free, and libraries differ in it.
    return values, vectors * torch.where(vectors.sum(dim=0) < 0, -1.0, 1.0)


def balanced_order(variances: Tensor, groups: int) -> Tensor:
    """An order of coordinates in which equal consecutive groups ask for about equally many bits.

    Args:
        variances: (D,) falling; D is a multiple of `groups`.

    Returns:
        (D,) int64, a permutation.
    """
    size = len(variances) // groups
    level = float(variances[int(0.95 * (len(variances) - 1))].clamp_min(1e-12))  # some coordinates get no bits
    bits = (torch.log2(variances.clamp_min(1e-12) / level) / 2).clamp_min(0).tolist()
    members: list[list[int]] = [[] for _ in range(groups)]
    sums = [0.0] * groups
    for index, wanted in enumerate(bits):
        open_groups = [group for group in range(groups) if len(members[group]) < size]
        fewest = min(open_groups, key=lambda group: sums[group])
        members[fewest].append(index)
        sums[fewest] += wanted
    return torch.tensor([index for group in members for index in group], dtype=torch.int64)


def tiles(images: Tensor, side: int) -> Tensor:
    """(B, C, h*side, w*side) -> (B, h, w, C*side*side)."""
    batch, channels, height, width = images.shape
    parts = images.reshape(batch, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(batch, height // side, width // side, channels * side * side)


def repeat_tile(tile: Tensor, images: Tensor) -> Tensor:
    """Repeat one tile (C, side, side) until it covers the images."""
    side = tile.shape[1]
    return tile.repeat(1, images.shape[2] // side, images.shape[3] // side)
