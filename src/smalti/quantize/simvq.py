"""SimVQ: a frozen codebook under one learned linear map, so that every step moves all codes.

    e_k   = W c_k,   c_k ~ N(0, I/D) frozen
    k(z)  = argmin_k |z - e_k|
    loss  = mean |sg(z) - e_k|^2 + beta * mean |z - sg(e_k)|^2

A code that no latent chooses moves with the others, so none is left behind and none is ever re-seeded.
Source: Zhu et al. 2024, arXiv:2411.02038, equation 5.  Layout: (B, D, *grid).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.quantizer import SimConfig
from smalti.quantize.base import Quantizer
from smalti.quantize.examples import Examples
from smalti.quantize.gradients import ESTIMATORS
from smalti.quantize.search import nearest


class SimVectorQuantizer(Quantizer):
    """`codes` frozen vectors and a learned map.

    Args:
        codes: K, the size of the codebook.
        dimension: D, the channels of the latents.
        commitment: beta, the weight of the commitment term.
        gradient: "straight-through" or "rotation".
        channel_last: latents are (B, *grid, D), in place of (B, D, *grid).

    Raises:
        ConfigError: an argument out of its range.
    """

    frozen: Tensor

    def __init__(
        self,
        codes: int = 512,
        dimension: int = 64,
        *,
        commitment: float = 0.25,
        gradient: str = "straight-through",
        channel_last: bool = False,
    ) -> None:
        super().__init__(channel_last=channel_last)
        SimConfig("simvq", codes, dimension, commitment, gradient)
        self.codebook_sizes, self.dimension = (codes,), dimension
        self.commitment, self.gradient = commitment, gradient
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frozen", torch.empty(codes, dimension).normal_(0, dimension**-0.5, generator=generator))
        self.map = nn.Linear(dimension, dimension, bias=False)

    @property
    def codes_in_latent_space(self) -> bool:
        return True

    @classmethod
    def from_config(cls, config: SimConfig) -> SimVectorQuantizer:
        return cls(config.codes, config.dimension, commitment=config.commitment, gradient=config.gradient)

    def quantize_rows(self, rows: Tensor, *, committed: Tensor, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        vectors = self.map(self.frozen)
        codes = nearest(rows, vectors)
        chosen = F.embedding(codes, vectors)
        loss = F.mse_loss(chosen, rows.detach()) + self.commitment * F.mse_loss(committed, chosen.detach())
        return ESTIMATORS[self.gradient](rows, chosen), codes[:, None], loss

    def encode_rows(self, rows: Tensor) -> Tensor:
        return nearest(rows, self.map(self.frozen))[:, None]

    def decode_rows(self, codes: Tensor) -> Tensor:
        # All codes are mapped, as in training: a product of another shape may round differently.
        return F.embedding(codes[:, 0], self.map(self.frozen))
