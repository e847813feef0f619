"""Vector quantization: each latent becomes the nearest of K learned vectors.

    k(z)   = argmin_k |z - e_k|
    q      = z + sg(e_k - z)                                   straight-through gradient
    loss   = mean |sg(z) - e_k|^2 + beta * mean |z - sg(e_k)|^2      codebook by gradient
    loss   =                        beta * mean |z - sg(e_k)|^2      codebook by EMA:
             n_k <- g n_k + (1 - g) #{z -> k},   m_k <- g m_k + (1 - g) sum_{z -> k} z,   e_k = m_k / n_k

beta weighs the commitment term: it is the encoder that is slowed down, not the codebook.
The first training batch gives the codebook its first vectors, and a code whose use falls under a small share of the
mean is moved onto a latent of the batch, so that the codebook is used whole.
Source: van den Oord et al. 2017, arXiv:1711.00937, equation 3 and appendix A.1.  Layout: (B, D, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config import QuantizerConfig
from smalti.layers.ranks import gather_rows, sum_over_ranks, world
from smalti.quantize.base import Quantized, Quantizer, count_codes
from smalti.quantize.search import nearest


class VectorQuantizer(Quantizer):
    """A codebook of `codes` vectors with `dimension` numbers each.

    Args:
        codes: K, the size of the codebook.
        dimension: D, the channels of the latents.
        update: "ema" (statistics of the latents) or "gradient" (codebook loss).
        commitment: beta, the weight of the commitment term.
        decay: g of the running statistics, per training step.
        revive_below: share of the mean use under which a code is re-seeded; 0 never re-seeds.
    """

    used: Tensor
    sums: Tensor
    steps: Tensor

    def __init__(
        self,
        codes: int = 512,
        dimension: int = 64,
        *,
        update: str = "ema",
        commitment: float = 0.25,
        decay: float = 0.99,
        revive_below: float = 0.05,
    ) -> None:
        super().__init__()
        assert update in ("ema", "gradient")
        self.alphabet = (codes,)
        self.update, self.commitment, self.decay, self.revive_below = update, commitment, decay, revive_below
        # Spread like the latents of a fresh encoder; the first training batch replaces these.
        generator = torch.Generator().manual_seed(0)
        vectors = torch.empty(codes, dimension).uniform_(-1 / codes, 1 / codes, generator=generator)
        if update == "gradient":
            self.codebook = nn.Parameter(vectors)
        else:
            self.register_buffer("codebook", vectors)
            self.register_buffer("sums", torch.zeros(codes, dimension))  # m
        self.register_buffer("used", torch.zeros(codes))  # n
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # training batches so far
        self._fresh: bool | None = None  # steps == 0, known on the host so that a GPU is asked once; None: ask
        self.register_load_state_dict_post_hook(_forget_freshness)

    @classmethod
    def from_config(cls, config: QuantizerConfig) -> VectorQuantizer:
        return cls(
            config.codes,
            config.dimension,
            update=config.update,
            commitment=config.commitment,
            decay=config.decay,
            revive_below=config.revive_below,
        )

    def forward(self, z: Tensor) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            latents = z.float()
            rows = _rows(latents)
            if self.training and self._is_fresh():
                self._start(rows.detach())
            codes = nearest(rows, self.codebook)
            chosen = F.embedding(codes, self.codebook)  # index_select with a gradient that needs no one-hot
            loss = self.commitment * F.mse_loss(rows, chosen.detach())
            if self.update == "gradient":
                loss = loss + F.mse_loss(chosen, rows.detach())
            values = rows + (chosen - rows).detach()
            if self.training:
                self._observe(rows.detach(), codes)
        batch, _, height, width = z.shape
        grid = codes.view(batch, 1, height, width)
        return Quantized(values.view(batch, height, width, -1).permute(0, 3, 1, 2), grid, loss)

    def encode(self, z: Tensor) -> Tensor:
        codes = nearest(_rows(z.float()), self.codebook)
        return codes.view(z.shape[0], 1, *z.shape[2:])

    def decode(self, codes: Tensor) -> Tensor:
        self.check_codes(codes)
        return F.embedding(codes[:, 0], self.codebook.detach()).permute(0, 3, 1, 2)

    def _is_fresh(self) -> bool:
        if self._fresh is None:
            self._fresh = int(self.steps) == 0
        return self._fresh

    @torch.no_grad()
    def _start(self, rows: Tensor) -> None:
        """Before the first batch: every code becomes one of the batch's latents."""
        self.codebook.copy_(self._latents_of_batch(rows))

    @torch.no_grad()
    def _observe(self, rows: Tensor, codes: Tensor) -> None:
        """After a batch: running use, the EMA codebook, and new places for dead codes."""
        count = count_codes(codes, len(self.used))
        decay = 0.0 if self._is_fresh() else self.decay  # the first batch is the whole history
        if self.update == "ema":
            batch_sums = torch.zeros_like(self.sums).index_add_(0, codes, rows)
            # One message for both statistics.
            total = sum_over_ranks(torch.cat([batch_sums, count[:, None]], dim=1))
            batch_sums, count = total[:, :-1], total[:, -1]
            self.sums.mul_(decay).add_(batch_sums * (1 - decay))
        else:
            count = sum_over_ranks(count)
        self.used.mul_(decay).add_(count * (1 - decay))
        mean_use = count.sum() / len(count)
        if self.update == "ema":
            seen = self.used > 1e-3 * mean_use  # below, the quotient is noise
            self.codebook.copy_(
                torch.where(seen[:, None], self.sums / self.used.clamp_min(1e-20)[:, None], self.codebook)
            )
        self.steps += 1
        self._fresh = False
        if self.revive_below > 0:
            self._revive(rows, mean_use)

    def _revive(self, rows: Tensor, mean_use: Tensor) -> None:
        dead = self.used < self.revive_below * mean_use
        seeds = self._latents_of_batch(rows)
        self.codebook.copy_(torch.where(dead[:, None], seeds, self.codebook))
        # Both statistics, or the old sum would pull the code straight back to where nothing is.
        self.used.copy_(torch.where(dead, mean_use, self.used))
        if self.update == "ema":
            self.sums.copy_(torch.where(dead[:, None], seeds * mean_use, self.sums))

    def _latents_of_batch(self, rows: Tensor) -> Tensor:
        """K latents of the whole batch, (K, D): which ones depends on the step alone, so no random state is kept."""
        numbers = torch.arange(len(self.used), device=rows.device)
        mixed = (numbers * 2654435761 + self.steps * 40503) * 2246822519 % 4294967291
        return gather_rows(rows, mixed % (len(rows) * world()))


def _forget_freshness(module: nn.Module, _keys: object) -> None:
    module._fresh = None  # type: ignore[assignment]


def _rows(z: Tensor) -> Tensor:
    """(B, D, H, W) -> (B*H*W, D); a view where the memory is channels_last."""
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
