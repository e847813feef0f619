"""k-means over the latents of the first batch, which a codebook starts from.

    k(z) = argmin_k |z - e_k|,   e_k <- mean of {z: k(z) = k}        ten times (Lloyd's algorithm)

A code that no latent chooses stays where it is.  Source: Lloyd 1982; for codebooks Lancucki et al. 2020,
arXiv:2005.08520.  Layout: (N, D) rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.errors import ConfigError
from smalti.quantize.base import count_codes
from smalti.quantize.examples import Examples
from smalti.quantize.search import nearest

ITERATIONS = 10
LATENTS_PER_CODE = 64  # looked at most, spread evenly over the batch


@torch.no_grad()
def kmeans(
    rows: Tensor,
    codes: int,
    *,
    iterations: int = ITERATIONS,
    shared: bool = True,
    examples: Examples | None = None,
) -> Tensor:
    """Find the centres of the batch that all ranks share, the same on every rank.

    Args:
        rows: (N, D), this rank's share.
        codes: K, the number of centres.
        shared: whether the batch is what all ranks hold together; otherwise each has the whole of it.
        examples: the origin of the rows; None: all ranks hold equally many.

    Returns:
        (K, D).

    Raises:
        ConfigError: the batch holds fewer than K latents.
    """
    share = examples or Examples.equal(len(rows), len(rows))
    total = share.total if shared else len(rows)
    if total < codes:
        where, remedy = (
            ("the first batch has", "a larger batch or start=latents")
            if shared
            else ("the training images have", "more or larger images, or fewer codes")
        )
        raise ConfigError(
            f"k-means needs at least as many latents as codes: {where} {total}, the codebook {codes}; use {remedy}"
        )
    picked = _evenly(total, min(total, LATENTS_PER_CODE * codes), rows.device)
    sample = share.gather(rows, picked) if shared else rows[picked]
    centres = sample[_evenly(len(sample), codes, rows.device)]
    for _ in range(iterations):
        chosen = nearest(sample, centres)
        count = count_codes(chosen, codes)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, chosen, sample)
        centres = torch.where(count > 0, sums / count.clamp_min(1), centres)
    return centres


def _evenly(total: int, count: int, device: torch.device) -> Tensor:
    """`count` distinct numbers below `total`, evenly spread."""
    return torch.arange(count, device=device) * total // count
