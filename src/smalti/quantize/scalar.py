"""Finite scalar quantization: round each channel to a few fixed levels.

    h_d    = (L_d - 1)(1 + eps)/2,   o_d = 1/2 for even L_d, else 0
    y_d    = h_d tanh(z_d + artanh(o_d/h_d)) - o_d             between the lowest and the highest level
    q_d    = round(y_d) / floor(L_d/2)                         in [-1, 1], with a straight-through gradient
    code   = sum_d (round(y_d) + floor(L_d/2)) L_1 ... L_{d-1}

No codebook is learned, so there is no loss of its own and no dead code. eps = 1e-3 keeps the outermost levels in reach.
In a residual quantizer y is taken once, and a stage rounds what is left of it, which is at most half a level.
Source: Mentzer et al. 2023, arXiv:2309.15505.  Layout: (B, D, *grid), one code plane.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smalti.config.quantizer import ScalarConfig
from smalti.quantize.base import Quantizer
from smalti.quantize.examples import Examples
from smalti.quantize.gradients import straight_through

REACH = 1e-3  # eps


class ScalarQuantizer(Quantizer):
    """Channel d is rounded to `levels[d]` levels.

    Args:
        levels: L_1 ... L_D, each from 2 to 256; their product is the alphabet.
        channel_last: latents are (B, *grid, D), in place of (B, D, *grid).

    Raises:
        ConfigError: levels out of their range.
    """

    levels: Tensor

    def __init__(self, levels: tuple[int, ...] = (8, 8, 8), *, channel_last: bool = False) -> None:
        super().__init__(channel_last=channel_last)
        levels = tuple(levels)
        ScalarConfig("scalar", levels)
        self.codebook_sizes, self.dimension = (math.prod(levels),), len(levels)
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.int64))

    @classmethod
    def from_config(cls, config: ScalarConfig) -> ScalarQuantizer:
        return cls(config.levels)

    def bound_rows(self, rows: Tensor) -> Tensor:
        half = (self.levels - 1) * ((1 + REACH) / 2)
        offset = (1 - self.levels % 2) / 2
        return (half * torch.tanh(rows + torch.atanh(offset / half)) - offset) / self._half_levels()

    def quantize_rows(self, rows: Tensor, *, committed: Tensor, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        levels = self._nearest_levels(rows)
        values = straight_through(rows, levels / self._half_levels())
        return values, self._codes(levels), rows.new_zeros(())

    def encode_rows(self, rows: Tensor) -> Tensor:
        return self._codes(self._nearest_levels(rows))

    def decode_rows(self, codes: Tensor) -> Tensor:
        digits = codes // self._digit_values() % self.levels
        return (digits - self.levels // 2) / self._half_levels()

    def residual_scale(self) -> Tensor | float:
        return 1 / (self.levels - 1)

    def _half_levels(self) -> Tensor:
        """floor(L/2), the number of levels from 0 to the lowest one."""
        return (self.levels // 2).float()

    def _nearest_levels(self, rows: Tensor) -> Tensor:
        """(N, D) bounded rows -> the level of each number, from -floor(L/2) up."""
        low = -(self.levels // 2)
        levels = (rows.detach() * self._half_levels()).round()
        # nan_to_num, or the codes of a diverged training would lie outside the alphabet; its loss is NaN all the same.
        return levels.nan_to_num(0).clamp(low, low + self.levels - 1)

    def _codes(self, levels: Tensor) -> Tensor:
        digits = levels.long() + self.levels // 2
        return (digits * self._digit_values()).sum(dim=1, keepdim=True)

    def _digit_values(self) -> Tensor:
        """The value of a digit of each channel: 1, L_1, L_1 L_2, ..."""
        return self.levels.cumprod(0) // self.levels
