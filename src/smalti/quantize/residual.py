"""Residual quantization: every stage quantizes the residual of the stages before it.

    r_1 = z,   q_s = Q_s(r_s),   r_{s+1} = r_s - q_s,   q = q_1 + ... + q_P

The first codes are the coarse ones, so a prefix of the planes decodes to a coarser image; with dropout, a share of
the examples is trained on such prefixes. The gradient passes through the stages in this order: straight through, z
gets the gradient of q once, and not once from every stage. Each stage's commitment term pulls at z itself.

Where codes have fixed positions, stage s quantizes r_s on a grid that is finer by a fixed factor a:

    q_s = a^(s-1) Q(r_s / a^(s-1)),     a = 1/(L - 1) for L scalar levels, 1/2 for signs

Sources: Zeghidour et al. 2021, arXiv:2107.03312 (dropout there too); Lee et al. 2022, arXiv:2203.01941 (one shared
codebook); for scalars Parker et al. 2024, arXiv:2411.19842.  Layout: (B, D, *grid), a code plane for each stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from smalti.errors import CodeRangeError, ConfigError
from smalti.quantize.base import CountedQuantizer, Quantizer
from smalti.quantize.examples import Examples
from smalti.runtime.rng import Draws


class ResidualQuantizer(CountedQuantizer):
    """Stages of one code plane each.

        ResidualQuantizer([VectorQuantizer(512, 64) for _ in range(4)])    # a codebook for each stage
        ResidualQuantizer(VectorQuantizer(512, 64), depth=4)               # one codebook for all

    Args:
        layers: the stages' quantizers, or the one that all stages share.
        depth: P, the number of stages, where they share their quantizer.
        dropout: probability that an example in training uses a random shorter prefix of the stages.
        channel_last: latents are (B, *grid, D), in place of (B, D, *grid).

    Raises:
        ConfigError: no stage, or stages of unlike dimension or of several planes.
    """

    def __init__(
        self,
        layers: Sequence[Quantizer] | Quantizer,
        depth: int | None = None,
        *,
        dropout: float = 0.0,
        channel_last: bool = False,
    ) -> None:
        super().__init__(channel_last=channel_last)
        stages = [layers] * (depth or 0) if isinstance(layers, Quantizer) else list(layers)
        if not stages:
            raise ConfigError("a residual quantizer needs its stages: a list of quantizers, or one and a depth")
        if depth not in (None, len(stages)):
            raise ConfigError(f"depth is {depth}, but there are {len(stages)} quantizers, one for each stage")
        if {(stage.dimension, len(stage.codebook_sizes)) for stage in stages} != {(stages[0].dimension, 1)}:
            raise ConfigError("the stages of a residual quantizer must have one code plane and the same channels each")
        if not 0 <= dropout <= 1:
            raise ConfigError(f"dropout is {dropout}, but must be from 0 to 1")
        # Modules in use several times are stored once.
        self.layers = nn.ModuleList(stages[:1] if isinstance(layers, Quantizer) else stages)
        for number, stage in enumerate(stages):
            stage.stage = number if len(self.layers) > 1 else 0
        self.depth, self.dropout = len(stages), dropout
        self.dimension = stages[0].dimension
        self.codebook_sizes = tuple(stage.codebook_sizes[0] for stage in stages)

    @property
    def codes_in_latent_space(self) -> bool:
        return all(layer.codes_in_latent_space for layer in self.layers)

    def decode_prefix(self, codes: Tensor, depth: int) -> Tensor:
        """The values of the first `depth` planes alone.

        Args:
            codes: (B, P, *grid), or the first `depth` planes of it.

        Returns:
            (B, D, *grid) float32.

        Raises:
            ConfigError: a depth outside 1..P.
            CodeRangeError: too few planes, or a code outside its plane's alphabet.
        """
        if not 1 <= depth <= self.depth:
            raise ConfigError(f"depth is {depth}, but must be from 1 to {self.depth}")
        axis = self._channel_axis(codes)
        if codes.ndim >= 2:
            if codes.shape[axis] > self.depth:
                raise CodeRangeError(f"codes have {codes.shape[axis]} planes, but this model writes {self.depth}")
            codes = codes.narrow(axis, 0, min(depth, codes.shape[axis]))
        self.check_codes(codes, depth)
        return self.values_of(codes)

    def bound_rows(self, rows: Tensor) -> Tensor:
        return self._stage(0).bound_rows(rows)

    def quantize_rows(self, rows: Tensor, *, committed: Tensor, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        depths = self._sampled_depths(rows, examples)
        left, scale = rows, self._first_scale(rows)
        loss, values = rows.new_zeros(()), torch.zeros_like(rows)
        planes = []
        for number in range(self.depth):
            stage = self._stage(number)
            felt = committed - (rows - left).detach()  # left, with the gradient of z alone
            part, codes, stage_loss = stage.quantize_rows(left / scale, committed=felt / scale, examples=examples)
            part = part * scale
            left = left - part
            # An example that uses fewer stages is quantized by all of them all the same, and trains them.
            values = values + (part if depths is None else part * (depths > number))
            loss = loss + stage_loss
            planes.append(codes)
            scale = scale * stage.residual_scale()
        if self.learning:
            self.count_step()
        return values, torch.cat(planes, dim=1), loss

    def encode_rows(self, rows: Tensor) -> Tensor:
        left, scale, planes = rows, self._first_scale(rows), []
        for number in range(self.depth):
            stage = self._stage(number)
            planes.append(stage.encode_rows(left / scale))
            left = left - stage.decode_rows(planes[-1]) * scale
            scale = scale * stage.residual_scale()
        return torch.cat(planes, dim=1)

    def decode_rows(self, codes: Tensor) -> Tensor:
        values = torch.zeros((), device=codes.device)
        scale = self._first_scale(values)
        for number, plane in enumerate(torch.split(codes, 1, dim=1)):
            stage = self._stage(number)
            values = values + stage.decode_rows(plane) * scale
            scale = scale * stage.residual_scale()
        return values

    def fit_rows(self, rows: Tensor, *, latents_per_step: int) -> None:
        left, scale = rows, self._first_scale(rows)
        for number in range(len(self.layers)):  # a codebook that the stages share is placed for the first of them
            stage = self._stage(number)
            stage.fit_rows(left / scale, latents_per_step=latents_per_step)
            left = left - stage.decode_rows(stage.encode_rows(left / scale)) * scale
            scale = scale * stage.residual_scale()

    def _stage(self, number: int) -> Quantizer:
        return cast(Quantizer, self.layers[number if len(self.layers) > 1 else 0])

    @staticmethod
    def _first_scale(like: Tensor) -> Tensor:
        return torch.ones((), device=like.device)

    def _sampled_depths(self, rows: Tensor, examples: Examples) -> Tensor | None:
        """(N, 1) number of stages that each row's example uses; None: all of them."""
        if not self.learning or self.dropout == 0 or self.depth == 1:
            return None
        draws = Draws(self.stage, self.step_number(), device=rows.device).uniform(examples.count, 2)
        shorter = 1 + (draws[:, 1] * (self.depth - 1)).long()  # 1 to P - 1, for samples lie under 1
        depths = torch.where(draws[:, 0] < self.dropout, shorter, self.depth)
        return examples.per_row(depths)[:, None]
