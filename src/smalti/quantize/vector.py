"""Vector quantization: each latent is replaced by the nearest of K learned vectors.

    k(z)   = argmin_k |z - e_k|
    q      = e_k, with the gradient of one of the estimators in gradients.py
    loss   = mean |sg(z) - e_k|^2 + beta * mean |z - sg(e_k)|^2      codebook by gradient
    loss   =                        beta * mean |z - sg(e_k)|^2      codebook by EMA:
             n_k <- g n_k + (1 - g) #{z -> k},   m_k <- g m_k + (1 - g) sum_{z -> k} z,   e_k = m_k / n_k
    loss   = 0                                                       codebook by gradient, through DiVeQ

beta weighs the commitment term, which slows down the encoder and not the codebook.
The first training batch gives the codebook its first vectors, and a code whose use falls under a small share of the
mean is moved onto a latent of the batch, so that all codes stay in use. A code learned by gradient keeps the
moments its optimizer holds for it when it is moved; they fade within some tens of steps.
With a projection, z <- A z + a before all of this and q <- B q + b after it, where z in between has few numbers; with
normalization, z <- z / |z| and e <- e / |e|, after the projection (both: Yu et al. 2021, arXiv:2110.04627).
Source: van den Oord et al. 2017, arXiv:1711.00937, equation 3 and appendix A.1.  Layout: (B, D, *grid).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.quantizer import VectorConfig
from smalti.quantize.base import CountedQuantizer, count_codes
from smalti.quantize.examples import Examples
from smalti.quantize.gradients import ESTIMATORS, diveq, straight_through
from smalti.quantize.kmeans import kmeans
from smalti.quantize.search import nearest
from smalti.runtime.distributed import all_reduce_sum
from smalti.runtime.rng import Draws


class VectorQuantizer(CountedQuantizer):
    """A codebook of `codes` vectors.

    Args:
        codes: K, the size of the codebook.
        dimension: D, the channels of the latents.
        update: "ema" (statistics of the latents) or "gradient" (codebook loss).
        commitment: beta, the weight of the commitment term.
        decay: g of the running statistics, per training step.
        dead_code_threshold: share of the mean use under which a code is re-seeded; 0 never re-seeds.
        projection: numbers in a code, where a learned linear map leads to them and another one back; None: D.
        normalize: codes and latents are unit vectors.
        start: what the first training batch makes of the codebook, "latents" or "kmeans".
        gradient: "straight-through", "rotation" or "diveq"; the last one needs update "gradient".
        channel_last: latents are (B, *grid, D), in place of (B, D, *grid).

    Raises:
        ConfigError: an argument out of its range.
    """

    used: Tensor
    sums: Tensor

    def __init__(
        self,
        codes: int = 512,
        dimension: int = 64,
        *,
        update: str = "ema",
        commitment: float = 0.25,
        decay: float = 0.99,
        dead_code_threshold: float = 0.25,
        projection: int | None = None,
        normalize: bool = False,
        start: str = "latents",
        gradient: str = "straight-through",
        channel_last: bool = False,
    ) -> None:
        super().__init__(channel_last=channel_last)
        VectorConfig(
            "vector",
            codes,
            dimension,
            update,
            commitment,
            decay,
            dead_code_threshold,
            projection,
            normalize,
            start,
            gradient,
        )
        self.codebook_sizes, self.dimension = (codes,), dimension
        self.update, self.commitment, self.decay, self.dead_code_threshold = (
            update,
            commitment,
            decay,
            dead_code_threshold,
        )
        self.normalize, self.start, self.gradient = normalize, start, gradient
        size = dimension if projection is None else projection
        self.inward = nn.Identity() if projection is None else nn.Linear(dimension, size)
        self.outward = nn.Identity() if projection is None else nn.Linear(size, dimension)
        # Spread like the latents of a fresh encoder; the first training batch replaces these.
        generator = torch.Generator().manual_seed(0)
        vectors = torch.empty(codes, size).uniform_(-1 / codes, 1 / codes, generator=generator)
        if update == "gradient":
            self.codebook = nn.Parameter(vectors)
        else:
            self.register_buffer("codebook", vectors)
            self.register_buffer("sums", torch.zeros(codes, size))  # m
        self.register_buffer("used", torch.zeros(codes))  # n

    @property
    def codes_in_latent_space(self) -> bool:
        return not self.normalize and isinstance(self.inward, nn.Identity)

    @classmethod
    def from_config(cls, config: VectorConfig) -> VectorQuantizer:
        return cls(
            config.codes,
            config.dimension,
            update=config.update,
            commitment=config.commitment,
            decay=config.decay,
            dead_code_threshold=config.dead_code_threshold,
            projection=config.projection,
            normalize=config.normalize,
            start=config.start,
            gradient=config.gradient,
        )

    def quantize_rows(self, rows: Tensor, *, committed: Tensor, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        z = self._inside(rows)
        if self.learning and self.step_number() == 0:
            self._start(z.detach(), examples)
        vectors = self._vectors()
        codes = nearest(z, vectors)
        chosen = F.embedding(codes, vectors)  # index_select with a gradient that needs no one-hot
        if self.gradient == "diveq":
            if self.learning:
                draws = Draws(self.stage, self.step_number(), device=z.device)
                values = diveq(z, chosen, examples.normal(draws, z.shape[1]))
            else:
                values = straight_through(z, chosen)
            loss = z.new_zeros(())
        else:
            values = ESTIMATORS[self.gradient](z, chosen)
            felt = z if committed is rows else self._inside(committed)
            loss = self.commitment * F.mse_loss(felt, chosen.detach())
            if self.update == "gradient":
                loss = loss + F.mse_loss(chosen, z.detach())
        if self.learning:
            self._observe(z.detach(), codes, examples)
        return self.outward(values), codes[:, None], loss

    def encode_rows(self, rows: Tensor) -> Tensor:
        return nearest(self._inside(rows), self._vectors())[:, None]

    def decode_rows(self, codes: Tensor) -> Tensor:
        values: Tensor = self.outward(F.embedding(codes[:, 0], self._vectors()))
        return values

    def fit_rows(self, rows: Tensor, *, latents_per_step: int) -> None:
        z = self._inside(rows)
        centres = kmeans(z, len(self.used), shared=False)
        self.codebook.copy_(_on_sphere(centres) if self.normalize else centres)
        count = count_codes(nearest(z, self._vectors()), len(self.used))
        self.used.copy_(count * latents_per_step / len(z))
        if self.update == "ema":
            self.sums.copy_(self.codebook * self.used[:, None])
        self.count_step()  # the first training batch shall not begin anew

    def _inside(self, rows: Tensor) -> Tensor:
        """(N, D) rows to where the codebook is."""
        z = self.inward(rows)
        return _on_sphere(z) if self.normalize else z

    def _vectors(self) -> Tensor:
        # A copy, because the codebook may be moved in place before the gradient of the division needs it.
        return _on_sphere(self.codebook.clone()) if self.normalize else self.codebook

    @torch.no_grad()
    def _start(self, z: Tensor, examples: Examples) -> None:
        """Initialise the codes from the first batch: with its latents, or with centres of them."""
        if self.start == "kmeans":
            seeds = kmeans(z, len(self.used), examples=examples)
        else:
            seeds = self._latents_of_batch(z, examples)
        self.codebook.copy_(torch.where(seeds.isfinite(), seeds, self.codebook))

    @torch.no_grad()
    def _observe(self, z: Tensor, codes: Tensor, examples: Examples) -> None:
        """Update the running use and the EMA codebook after a batch, and re-seed dead codes."""
        count = count_codes(codes, len(self.used))
        decay = self.decay if self.step_number() else 0.0  # the first batch is the whole history
        if self.update == "ema":
            batch_sums = torch.zeros_like(self.sums).index_add_(0, codes, z)
            # One message for both statistics.
            total = all_reduce_sum(torch.cat([batch_sums, count[:, None]], dim=1))
            # A batch with a number that is not finite counts as empty: whoever skips such steps keeps the codebook.
            total = torch.where(total.isfinite().all(), total, 0.0)
            batch_sums, count = total[:, :-1], total[:, -1]
            self.sums.mul_(decay).add_(batch_sums * (1 - decay))
        else:
            count = all_reduce_sum(count)
        self.used.mul_(decay).add_(count * (1 - decay))
        mean_use = count.sum() / len(count)
        if self.update == "ema":
            seen = self.used > 1e-3 * mean_use  # below, the quotient is noise
            means = self.sums / self.used.clamp_min(1e-20)[:, None]
            self.codebook.copy_(
                torch.where(seen[:, None], _on_sphere(means) if self.normalize else means, self.codebook)
            )
        self.count_step()
        if self.dead_code_threshold > 0:
            self._revive(z, mean_use, examples)

    def _revive(self, z: Tensor, mean_use: Tensor, examples: Examples) -> None:
        seeds = self._latents_of_batch(z, examples)
        dead = (self.used < self.dead_code_threshold * mean_use) & seeds.isfinite().all(dim=1)
        self.codebook.copy_(torch.where(dead[:, None], seeds, self.codebook))
        # Both statistics, or the old sum would pull the code straight back to where nothing is.
        self.used.copy_(torch.where(dead, mean_use, self.used))
        if self.update == "ema":
            self.sums.copy_(torch.where(dead[:, None], seeds * mean_use, self.sums))

    def _latents_of_batch(self, z: Tensor, examples: Examples) -> Tensor:
        """Return K latents of all ranks' batch; which ones depends on the step alone, so no random state is kept."""
        numbers = torch.arange(len(self.used), device=z.device)
        # Another stage takes other latents: of those that became codes in the stage before, nothing is left.
        numbers = numbers * (2654435761 + self.stage * 1640531527) + self.steps * 40503 + self.stage * 2971215073
        mixed = numbers * 2246822519 % 4294967291
        return examples.gather(z, mixed % examples.total)


def _on_sphere(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=1, eps=1e-6)
