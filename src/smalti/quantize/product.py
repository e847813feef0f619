"""Product quantization: the channels in groups, each with a quantizer of its own.

    z = (z_1, ..., z_G),   q = (Q_1(z_1), ..., Q_G(z_G)),   loss = mean of the groups' losses

G codebooks of K vectors make K^G combinations, at G searches among K.
Source: Jegou et al. 2011, "Product quantization for nearest neighbor search", IEEE TPAMI 33(1).
Layout: (B, D, *grid), channels of the first group first, then of the second; code planes likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from smalti.errors import ConfigError
from smalti.quantize.base import Quantizer
from smalti.quantize.examples import Examples


class ProductQuantizer(Quantizer):
    """One quantizer for each group of channels.

        ProductQuantizer([VectorQuantizer(512, 32) for _ in range(2)])     # 64 channels

    Args:
        layers: the groups' quantizers; the channels of all together are those of the latents.
        channel_last: latents are (B, *grid, D), in place of (B, D, *grid).

    Raises:
        ConfigError: no group.
    """

    def __init__(self, layers: Sequence[Quantizer], *, channel_last: bool = False) -> None:
        super().__init__(channel_last=channel_last)
        if not layers:
            raise ConfigError("a product quantizer needs at least one group: a list of quantizers")
        self.layers = nn.ModuleList(layers)
        self.widths = [layer.dimension for layer in layers]
        self.planes = [len(layer.codebook_sizes) for layer in layers]
        self.dimension = sum(self.widths)
        self.codebook_sizes = tuple(size for layer in layers for size in layer.codebook_sizes)

    @property
    def codes_in_latent_space(self) -> bool:
        return all(layer.codes_in_latent_space for layer in self.layers)

    def bound_rows(self, rows: Tensor) -> Tensor:
        parts = torch.split(rows, self.widths, dim=1)
        return torch.cat([layer.bound_rows(part) for layer, part in zip(self._groups(), parts, strict=True)], dim=1)

    def quantize_rows(self, rows: Tensor, *, committed: Tensor, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        parts, felt = torch.split(rows, self.widths, dim=1), torch.split(committed, self.widths, dim=1)
        results = [
            layer.quantize_rows(part, committed=feeling, examples=examples)
            for layer, part, feeling in zip(self._groups(), parts, felt, strict=True)
        ]
        values, codes, losses = zip(*results, strict=True)
        return torch.cat(values, dim=1), torch.cat(codes, dim=1), torch.stack(losses).mean()

    def encode_rows(self, rows: Tensor) -> Tensor:
        parts = torch.split(rows, self.widths, dim=1)
        return torch.cat([layer.encode_rows(part) for layer, part in zip(self._groups(), parts, strict=True)], dim=1)

    def decode_rows(self, codes: Tensor) -> Tensor:
        parts = torch.split(codes, self.planes, dim=1)
        return torch.cat([layer.decode_rows(part) for layer, part in zip(self._groups(), parts, strict=True)], dim=1)

    def fit_rows(self, rows: Tensor, *, latents_per_step: int) -> None:
        for layer, part in zip(self._groups(), torch.split(rows, self.widths, dim=1), strict=True):
            layer.fit_rows(part, latents_per_step=latents_per_step)

    def _groups(self) -> Iterable[Quantizer]:
        return cast(Iterable[Quantizer], self.layers)
