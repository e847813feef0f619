"""PatchNCE: a patch of the result should be nearer to the patch of the input at its place than to all others there.

    l(s) = -log  exp(v_s . w_s / tau) / sum_t exp(v_s . w_t / tau)          s, t: places of one image
    v: unit vectors of the result's patches, w: of the input's, at the same places

The mean over places and images.  Source: Park, Efros, Zhang and Zhu 2020, arXiv:2007.15651, equations 2 and 3 (other
patches of the same image alone; tau is .07 there).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def patch_nce(found: Tensor, given: Tensor, *, temperature: float) -> Tensor:
    """The loss, ().

    Args:
        found: (B, S, D) unit vectors of the results' patches.
        given: (B, S, D) unit vectors of the inputs' patches at the same places; no gradient reaches them.
        temperature: tau.
    """
    logits = found.float() @ given.detach().float().transpose(1, 2) / temperature  # (B, S, S)
    wanted = torch.arange(logits.shape[1], device=logits.device).repeat(len(logits))
    return F.cross_entropy(logits.flatten(0, 1), wanted)
