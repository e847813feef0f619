"""Binary quantization: the sign of every channel, on the unit sphere (BSQ) or not (LFQ).

    u      = z/|z|, c = 1/sqrt(D)   spherical;   u = z, c = 1   otherwise
    q_d    = c if u_d > 0 else -c,  with a straight-through gradient
    code   = sum_d [u_d > 0] 2^(d-1)
    loss   = beta mean |u - sg(q)|^2 + w (E[H(p(.|u))] - H(E[p(.|u)]))
    p(k|u) = softmax_k(-t |u - q_k|^2),   so that bit d is set with probability sigmoid(4 t c u_d)

The entropy term, in nats, wants every latent sure of its code and all codes in use. The bits of one latent are
independent under p, so the first entropy is a sum over bits. The mean over latents is not: its entropy is taken jointly
over groups of at most ten bits and summed over the groups. A group's table of 2^10 means is one product of two
N x 2^5 matrices; neither codes x latents nor all codes are ever built.
Sources: Yu et al. 2023 (LFQ), arXiv:2310.05737; Zhao et al. 2024 (BSQ), arXiv:2406.07548.
Layout: (B, D, *grid), one code plane.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.config.quantizer import BinaryConfig
from smalti.quantize.base import Quantizer
from smalti.quantize.examples import Examples
from smalti.quantize.gradients import straight_through
from smalti.runtime.distributed import all_reduce_sum_with_gradient, world

GROUP_BITS = 10


class BinaryQuantizer(Quantizer):
    """One bit for each channel.

    Args:
        bits: D, the channels of the latents.
        spherical: BSQ rather than LFQ.
        commitment: beta, the weight of the commitment term.
        entropy: w, the weight of the entropy term.
        inverse_temperature: t of the soft assignment in the entropy term.
        channel_last: latents are (B, *grid, D), in place of (B, D, *grid).

    Raises:
        ConfigError: an argument out of its range.
    """

    def __init__(
        self,
        bits: int = 9,
        *,
        spherical: bool = True,
        commitment: float = 0.25,
        entropy: float = 0.1,
        inverse_temperature: float = 1.0,
        channel_last: bool = False,
    ) -> None:
        super().__init__(channel_last=channel_last)
        BinaryConfig("binary", bits, spherical, commitment, entropy, inverse_temperature)
        self.codebook_sizes, self.dimension = (2**bits,), bits
        self.spherical, self.commitment, self.entropy = spherical, commitment, entropy
        self.inverse_temperature = inverse_temperature
        self.size = bits**-0.5 if spherical else 1.0  # c

    @classmethod
    def from_config(cls, config: BinaryConfig) -> BinaryQuantizer:
        return cls(
            config.bits,
            spherical=config.spherical,
            commitment=config.commitment,
            entropy=config.entropy,
            inverse_temperature=config.inverse_temperature,
        )

    def bound_rows(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=1, eps=1e-6) if self.spherical else rows

    def quantize_rows(self, rows: Tensor, *, committed: Tensor, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        codes = self.encode_rows(rows)
        chosen = self.decode_rows(codes)
        loss = self.commitment * F.mse_loss(committed, chosen)
        if self.entropy > 0:
            loss = loss + self.entropy * self._entropy_loss(committed, examples)
        return straight_through(rows, chosen), codes, loss

    def encode_rows(self, rows: Tensor) -> Tensor:
        return ((rows > 0) * self._bit_values(rows.device)).sum(dim=1, keepdim=True)

    def decode_rows(self, codes: Tensor) -> Tensor:
        set_bits = (codes & self._bit_values(codes.device)) != 0
        return (set_bits * 2.0 - 1.0) * self.size

    def residual_scale(self) -> Tensor | float:
        return 0.5  # of numbers in [-2c, 2c], signs leave numbers in [-c, c]

    def _bit_values(self, device: torch.device) -> Tensor:
        return 2 ** torch.arange(self.dimension, device=device)

    def _entropy_loss(self, rows: Tensor, examples: Examples) -> Tensor:
        """E[H(p(.|u))] - H(E[p(.|u)]), over the latents of all ranks in training."""
        logits = 4 * self.inverse_temperature * self.size * rows
        # h = -p log p - (1-p) log(1-p), from the logit so that a sure bit has the entropy 0 and not NaN.
        each = F.softplus(logits) - logits * torch.sigmoid(logits)
        sure = each.sum(dim=1).mean()
        diverse = rows.new_zeros(())
        groups = -(-self.dimension // GROUP_BITS)
        for part in torch.sigmoid(logits).tensor_split(groups, dim=1):
            first, second = part.tensor_split(2, dim=1)
            joint = _products(first).T @ _products(second) / max(rows.shape[0], 1)
            if self.training and world() > 1:
                joint = all_reduce_sum_with_gradient(joint * examples.weight) / world()
            diverse = diverse - (joint * joint.clamp_min(1e-30).log()).sum()
        return sure - diverse


def _products(probabilities: Tensor) -> Tensor:
    """(N, b) probabilities of independent bits -> (N, 2^b) of their combinations."""
    table = (
        torch.ones_like(probabilities[:, :1])
        if probabilities.shape[1]
        else probabilities.new_ones(len(probabilities), 1)
    )
    for bit in probabilities.unbind(dim=1):
        table = torch.cat([table * (1 - bit[:, None]), table * bit[:, None]], dim=1)
    return table
