"""Encoders of the condition of images, a class or the bytes of a text, as context tokens.

A condition that is left out has a token of its own, which guidance needs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smalti.config.prior import PriorConfig
from smalti.models.prior.block import Block, Context
from smalti.nn.norm import RMSNorm
from smalti.runtime.rng import Draws

PADDING = 256  # after the last byte of a text
WEIGHT_STD = 0.02


def context_encoder(config: PriorConfig, classes: int) -> nn.Module | None:
    """Build the encoder of a prior's condition; None without one."""
    if config.condition == "text":
        return TextEncoder(config)
    return ClassEncoder(classes, config.width) if config.condition == "class" else None


class TextEncoder(nn.Module):
    """Bytes of texts to context tokens."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(PADDING + 1, config.width)
        self.positions = nn.Parameter(WEIGHT_STD * torch.randn(config.text_bytes, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.dropout) for _ in range(config.text_depth))
        self.norm = RMSNorm(config.width)
        self.nothing = nn.Parameter(WEIGHT_STD * torch.randn(config.width))

    def forward(self, text: Tensor, dropped: Tensor, draws: Draws | None = None) -> Context:
        """(B, T) int64 bytes, PADDING after the end, and (B,) bool, whose text is left out."""
        there = text != PADDING
        x = self.embedding(text) + self.positions
        # A first token that always exists, for texts that are empty or left out.
        first = self.nothing.to(x.dtype).expand(x.shape[0], 1, -1)
        there = torch.cat([there.new_ones(there.shape[0], 1), there & ~dropped[:, None]], dim=1)
        x = torch.cat([first, x], dim=1)
        for block in self.blocks:
            x = block(x, None, there[:, None, None, :], draws)
        return Context(self.norm(x), there)


class ClassEncoder(nn.Module):
    """Labels to one context token.

    Attributes:
        shares: (classes,), the share of each label in the training images.
    """

    shares: Tensor

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = nn.Embedding(classes + 1, width)  # the last one is for a label that is left out
        self.register_buffer("shares", torch.full((classes,), 1 / max(classes, 1)))

    def forward(self, labels: Tensor, dropped: Tensor, draws: Draws | None = None) -> Context:
        """(B,) int64 and (B,) bool."""
        tokens = self.embedding(torch.where(dropped, self.classes, labels))[:, None]
        return Context(tokens, dropped.new_ones(labels.shape[0], 1))
