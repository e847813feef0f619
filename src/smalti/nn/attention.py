"""Attention, and attention among the positions of a feature map. Layout: (B, C, H, W)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.nn.blocks import group_norm
from smalti.nn.export import is_exporting

FEW_POSITIONS = 64
MOST_HEADS = 65_535  # of all images together, in one launch of a kernel on a GPU


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over (B, heads, T, d).  Vaswani et al. 2017, arXiv:1706.03762, equation 1.

    Args:
        mask: bool that fits to (B, heads, T, S), true where a query sees a key; None: each sees all.
    """
    # torch's fused kernel works through one head of one image at a time: at 16 tokens it takes seven times as long; at
    # one token, as keys and values are kept for, a fifth of the time, since it copies nothing.
    if query.device.type != "cpu" or query.shape[2] > FEW_POSITIONS or query.shape[2] == 1:
        return _fused(query, key, value, mask)
    scale = query.shape[3] ** -0.5
    if mask is not None and (is_exporting() or len(mask) * mask.shape[1] > 1):  # not the same one for every head
        scores = (query @ key.transpose(2, 3) * scale).masked_fill(~mask, -math.inf)
        return torch.softmax(scores, dim=3) @ value
    hidden = (
        query.new_zeros(1, 1) if mask is None else query.new_zeros(mask.shape[2:]).masked_fill(~mask[0, 0], -math.inf)
    )
    scores = torch.baddbmm(hidden, query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), alpha=scale)
    return (torch.softmax(scores, dim=2) @ value.flatten(0, 1)).view(query.shape)


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    rows = max(1, MOST_HEADS // query.shape[1])
    if is_exporting() or len(query) <= rows:  # an exported program takes any batch
        return F.scaled_dot_product_attention(query, key, value, mask)
    masks = [mask] * -(-len(query) // rows) if mask is None or len(mask) == 1 else mask.split(rows)
    parts = zip(query.split(rows), key.split(rows), value.split(rows), masks, strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part) for part in parts])


class SpatialAttention(nn.Module):
    """x + attention over all positions: one head, normalised first (Esser et al. 2021, arXiv:2012.09841, table 7)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.attend = nn.Conv2d(width, 3 * width, 1)
        self.merge = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.merge.weight)
        nn.init.zeros_(self.merge.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        positions = self.attend(self.norm(x)).flatten(2).transpose(1, 2)[:, None]  # (B, 1, H*W, 3*C)
        mixed = attention(*positions.chunk(3, dim=3))[:, 0].transpose(1, 2)
        grid = mixed.reshape(x.shape).contiguous(memory_format=torch.channels_last)
        return x + self.merge(grid)
