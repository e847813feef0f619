"""NT-Xent contrastive loss: cross-entropy of picking the other view of the same image out of the batch.

    l(i, j) = -log  exp(sim(z_i, z_j) / tau) / sum_{k != i} exp(sim(z_i, z_k) / tau),    sim = cosine

averaged over all 2B ordered positive pairs.  Source: Chen et al. 2020, arXiv:2002.05709, equation 1.
With several ranks each embedding is compared with the embeddings of all ranks, so the loss equals that of one process
with the global batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.runtime.distributed import all_gather_rows, rank


def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """NT-Xent loss and top-1 accuracy.

    Args:
        first, second: (B, D) float embeddings; row i of both come from views of the same image. Need not be normalised.
        temperature: tau.

    Returns:
        (loss, accuracy), scalar means over the rows of this rank; accuracy, the proportion of rows whose most similar
        embedding is the other view, carries no gradient.
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
