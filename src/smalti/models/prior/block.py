"""The transformer block of the priors, its cache of keys and values, and its context.

    block    x + attention([context, RMSNorm x]),  x + SwiGLU(RMSNorm x)

Tokens of the context are prepended to the keys and values of every block.
Sources: Vaswani et al. 2017, arXiv:1706.03762; Shazeer 2020, arXiv:2002.05202, for SwiGLU.  Layout: (B, T, width).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.nn.attention import attention
from smalti.nn.norm import RMSNorm
from smalti.runtime.rng import Draws


@dataclass(frozen=True)
class Context:
    """The condition of images: tokens (B, T, width), and which of them exist, (B, T) bool."""

    tokens: Tensor
    there: Tensor


class Cache:
    """Keys and values of the tokens so far, of one block and `count` images: (B, heads, up to `room`, d)."""

    def __init__(self, count: int, room: int) -> None:
        self.count, self.room, self.length = count, room, 0
        self.keys = self.values = torch.empty(0)

    def add(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, heads, t, d); returns everything so far."""
        if not self.length:
            shape = (self.count, key.shape[1], self.room, key.shape[3])
            self.keys, self.values = key.new_empty(shape), value.new_empty(shape)
        end = self.length + key.shape[2]
        self.keys[:, :, self.length : end], self.values[:, :, self.length : end] = key, value
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class Block(nn.Module):
    """x + attention([context, RMSNorm x]), then x + SwiGLU(RMSNorm x)."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        hidden = -(-8 * width // 3 // 32) * 32  # as many weights as four times the width without the gate
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attend = nn.Linear(width, 3 * width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.widen = nn.Linear(width, 2 * hidden, bias=False)
        self.narrow = nn.Linear(hidden, width, bias=False)

    def forward(
        self,
        x: Tensor,
        context: Context | None = None,
        mask: Tensor | None = None,
        draws: Draws | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """(B, T, width) -> (B, T, width).

        Args:
            mask: bool that fits to (B, heads, T, T), which query sees which key; None: all see all.
            cache: keys and values of earlier tokens, which all see.
        """
        query, key, value = self._split(self.attend(self.norm1(x)), 3)
        seen = mask
        if context is not None and (cache is None or not cache.length):
            beside = F.linear(context.tokens, self.attend.weight[x.shape[2] :])
            keys, values = self._split(beside, 2)
            key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        if cache is not None:
            key, value = cache.add(key, value)
        if context is not None:
            rest = key.shape[2] - context.there.shape[1]
            there = context.there[:, None, None, :]
            own = there.new_ones(1, 1, 1, rest) if seen is None else seen
            rows = (there.shape[0], 1, own.shape[2], -1)
            seen = torch.cat([there.expand(rows), own.expand(rows)], dim=3)
        mixed = attention(query, key, value, seen).transpose(1, 2).flatten(2)
        x = x + _dropped(self.merge(mixed), self.dropout, draws)
        gate, up = self.widen(self.norm2(x)).chunk(2, dim=2)
        return x + _dropped(self.narrow(F.silu(gate) * up), self.dropout, draws)

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, T, parts * width) -> parts of (B, heads, T, d)."""
        return tuple(x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4))


def _dropped(x: Tensor, rate: float, draws: Draws | None) -> Tensor:
    """Zero a share of the values and scale up the rest."""
    if draws is None or rate == 0:
        return x
    keep = 1 - rate
    return x * draws.keep(keep, *x.shape).to(x.dtype).mul_(1 / keep)
