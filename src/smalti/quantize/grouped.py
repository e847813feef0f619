"""Product quantization with many EMA codebooks, all groups computed in each operation.

    k_g(z) = argmin_k |z_g - e_gk|^2,   q = (e_1k_1, ..., e_Gk_G)                 z = (z_1, ..., z_G)

Formulas and results are those of one VectorQuantizer for each group (vector.py, product.py); with 64 groups of few
numbers each those would spend their time on calling functions.
Layout: (B, D, *grid), channels of the first group first; codebooks (G, K, d).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.config.quantizer import ProductConfig, VectorConfig
from smalti.quantize.base import CountedQuantizer
from smalti.quantize.examples import Examples
from smalti.quantize.gradients import straight_through
from smalti.quantize.kmeans import kmeans
from smalti.quantize.search import nearest_in_groups
from smalti.runtime.distributed import all_reduce_sum


class GroupedVectorQuantizer(CountedQuantizer):
    """`groups` codebooks of `codes` vectors with `dimension / groups` numbers each.

    Args:
        codes: K, the size of each codebook.
        dimension: D, the channels of the latents.
        groups: G, which share the channels evenly.
        commitment, decay, dead_code_threshold, channel_last: as those of VectorQuantizer.
    """

    codebooks: Tensor
    sums: Tensor
    used: Tensor

    def __init__(
        self,
        codes: int,
        dimension: int,
        groups: int,
        *,
        commitment: float = 0.25,
        decay: float = 0.99,
        dead_code_threshold: float = 0.25,
        channel_last: bool = False,
    ) -> None:
        super().__init__(channel_last=channel_last)
        layer = VectorConfig("vector", codes, dimension // groups, "ema", commitment, decay, dead_code_threshold)
        ProductConfig("product", layer, groups)
        assert dimension % groups == 0
        self.codebook_sizes, self.dimension, self.groups = (codes,) * groups, dimension, groups
        self.commitment, self.decay, self.dead_code_threshold = commitment, decay, dead_code_threshold
        generator = torch.Generator().manual_seed(0)
        vectors = torch.empty(codes, dimension // groups).uniform_(-1 / codes, 1 / codes, generator=generator)
        self.register_buffer("codebooks", vectors.repeat(groups, 1, 1))
        self.register_buffer("sums", torch.zeros_like(self.codebooks))  # m
        self.register_buffer("used", torch.zeros(groups, codes))  # n

    @staticmethod
    def covers(layer: object) -> bool:
        """Whether groups of such a layer can be done by this class."""
        return (
            isinstance(layer, VectorConfig)
            and layer.update == "ema"
            and layer.gradient == "straight-through"
            and layer.start == "latents"
            and layer.projection is None
            and not layer.normalize
        )

    @property
    def codes_in_latent_space(self) -> bool:
        return True

    @classmethod
    def from_config(cls, config: ProductConfig) -> GroupedVectorQuantizer:
        layer = config.layer
        assert isinstance(layer, VectorConfig)
        return cls(
            layer.codes,
            config.dimension,
            config.groups,
            commitment=layer.commitment,
            decay=layer.decay,
            dead_code_threshold=layer.dead_code_threshold,
        )

    def quantize_rows(self, rows: Tensor, *, committed: Tensor, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        if self.learning and self.step_number() == 0:
            seeds = self._latents_of_batch(rows.detach(), examples)
            self.codebooks.copy_(torch.where(seeds.isfinite(), seeds, self.codebooks))
        codes = self.encode_rows(rows)
        chosen = self.decode_rows(codes)
        loss = self.commitment * F.mse_loss(committed, chosen)
        if self.learning:
            self._observe(rows.detach(), codes, examples)
        return straight_through(rows, chosen), codes, loss

    def encode_rows(self, rows: Tensor) -> Tensor:
        return nearest_in_groups(self._in_groups(rows), self.codebooks).T.contiguous()

    def decode_rows(self, codes: Tensor) -> Tensor:
        return F.embedding(self._flat(codes), self.codebooks.flatten(0, 1)).flatten(1)

    @torch.no_grad()
    def fit_rows(self, rows: Tensor, *, latents_per_step: int) -> None:
        codes = self.used.shape[1]
        for group, part in enumerate(self._in_groups(rows)):
            self.codebooks[group] = kmeans(part, codes, shared=False)
        count, _ = self._statistics(rows, self.encode_rows(rows))
        self.used.copy_(count * latents_per_step / len(rows))
        self.sums.copy_(self.codebooks * self.used[..., None])
        self.count_step()  # the first training batch shall not begin anew

    @torch.no_grad()
    def _observe(self, rows: Tensor, codes: Tensor, examples: Examples) -> None:
        """Update the running use and the codebooks after a batch, and re-seed dead codes."""
        count, batch_sums = self._statistics(rows, codes)
        total = all_reduce_sum(torch.cat([batch_sums, count[..., None]], dim=2))  # one message for both
        # A batch with a number that is not finite counts as empty: whoever skips such steps keeps the codebooks.
        total = torch.where(total.isfinite().all(), total, 0.0)
        batch_sums, count = total[..., :-1], total[..., -1]
        decay = self.decay if self.step_number() else 0.0  # the first batch is the whole history
        self.sums.mul_(decay).add_(batch_sums * (1 - decay))
        self.used.mul_(decay).add_(count * (1 - decay))
        mean_use = count.sum() / count.numel()
        seen = self.used > 1e-3 * mean_use  # below, the quotient is noise
        means = self.sums / self.used.clamp_min(1e-20)[..., None]
        self.codebooks.copy_(torch.where(seen[..., None], means, self.codebooks))
        self.count_step()
        if self.dead_code_threshold > 0:
            seeds = self._latents_of_batch(rows, examples)
            dead = (self.used < self.dead_code_threshold * mean_use) & seeds.isfinite().all(dim=2)
            self.codebooks.copy_(torch.where(dead[..., None], seeds, self.codebooks))
            self.used.copy_(torch.where(dead, mean_use, self.used))
            self.sums.copy_(torch.where(dead[..., None], seeds * mean_use, self.sums))

    def _statistics(self, rows: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """(G, K) how often each code was chosen, and (G, K, d) the sum of what chose it."""
        flat = self._flat(codes).flatten()
        parts = rows.reshape(len(flat), self.sums.shape[2])  # row by row, group by group, as the codes are
        sums = torch.zeros_like(self.sums).flatten(0, 1).index_add_(0, flat, parts)
        count = torch.zeros_like(self.used).flatten().index_add_(0, flat, torch.ones_like(parts[:, 0]))
        return count.view_as(self.used), sums.view_as(self.sums)

    def _latents_of_batch(self, rows: Tensor, examples: Examples) -> Tensor:
        """(G, K, d) latents of all ranks' batch; which ones depends on the step alone."""
        numbers = torch.arange(self.used.shape[1], device=rows.device)
        mixed = (numbers * 2654435761 + self.steps * 40503 + self.stage * 2971215073) * 2246822519 % 4294967291
        return self._in_groups(examples.gather(rows, mixed % examples.total)).contiguous()

    def _in_groups(self, rows: Tensor) -> Tensor:
        """(N, D) -> (G, N, d), a view."""
        return torch.unflatten(rows, 1, (self.groups, -1)).transpose(0, 1)

    def _flat(self, codes: Tensor) -> Tensor:
        """(N, G) codes as indices into all codebooks one after the other."""
        return codes + torch.arange(self.groups, device=codes.device) * self.used.shape[1]
