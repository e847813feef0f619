"""NT-Xent: of all embeddings in the batch, the other view of the same image must be the nearest.

    l(i, j) = -log  exp(sim(z_i, z_j) / tau) / sum_{k != i} exp(sim(z_i, z_k) / tau),    sim = cosine

averaged over all 2B ordered positive pairs.  Source: Chen et al. 2020, arXiv:2002.05709, equation 1.
With several ranks every embedding is compared with those of the whole batch, so the loss is that of one process.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.runtime.distributed import all_gather_rows, rank


def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """The loss, and how often the other view was the nearest.

    Args:
        first, second: (B, D) floats, row i of both from views of the same image; any length of the vectors.
        temperature: tau.

    Returns:
        (loss, accuracy), both scalars and means over this rank's rows; accuracy carries no gradient.
    """
    count = len(first)
    mine = F.normalize(torch.stack([first.float(), second.float()], dim=1), dim=2).flatten(0, 1)  # a0, b0, a1, b1, ...
    everybody = all_gather_rows(mine)
    logits = mine @ everybody.T / temperature
    rows = torch.arange(2 * count, device=mine.device)
    own = rank() * 2 * count + rows
    logits = logits.scatter(1, own[:, None], float("-inf"))
    other = own ^ 1
    accuracy = (logits.argmax(dim=1) == other).float().mean()
    return F.cross_entropy(logits, other), accuracy
