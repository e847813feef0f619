"""The gated PixelCNN over a grid of codes, the prior that published VQ-VAEs are sampled with.

    vertical    v = conv n x n of the rows above;            horizontal  h = conv 1 x n of what is left of it, + 1x1 v
    gate        tanh(a) sigmoid(b);                          h <- h + 1x1 gate(h), but in the first layer

Source: van den Oord et al. 2016, arXiv:1606.05328, section 2.  Layout: codes (B, h, w), logits (B, K, h, w).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GatedLayer(nn.Module):
    def __init__(self, width: int, size: int, first: bool) -> None:
        super().__init__()
        self.size, self.first = size, first
        half = size // 2
        self.vertical = nn.Conv2d(width, 2 * width, (half if first else half + 1, size))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, half if first else half + 1))
        self.down = nn.Conv2d(2 * width, 2 * width, 1)
        self.merge = nn.Conv2d(width, width, 1)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        half, (height, width) = self.size // 2, h.shape[2:]
        # Above: rows up to this one, in the first layer without it; left: columns likewise.
        above = self.vertical(F.pad(v, (half, half, half, 0)))[:, :, :height]
        left = self.horizontal(F.pad(h, (half, 0, 0, 0)))[:, :, :, :width]
        # The row above of the vertical stack: in the first layer it leaves out this row already.
        left = left + self.down(above)
        v, inside = _gate(above), self.merge(_gate(left))
        return v, inside if self.first else h + inside


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


class PixelCNN(nn.Module):
    """Logits of each code from those above it and to its left.

    Args:
        codes: K.
        width: channels.
        layers: the first one looks at 7 x 7 places, the others at 3 x 3.
    """

    def __init__(self, codes: int, width: int, layers: int = 15) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)
        self.layers = nn.ModuleList(GatedLayer(width, 3 if number else 7, not number) for number in range(layers))
        self.head = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.ReLU(), nn.Conv2d(2 * width, codes, 1))

    def forward(self, codes: Tensor) -> Tensor:
        v = h = self.embedding(codes).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            v, h = layer(v, h)
        return self.head(h)

    @torch.no_grad()
    def sample(self, count: int, grid: tuple[int, int], generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """(count, h, w), code after code."""
        found = torch.zeros(count, *grid, dtype=torch.int64)
        for row in range(grid[0]):
            for column in range(grid[1]):
                logits = self(found[:, : row + 1])[:, :, row, column]  # rows below change nothing
                shares = torch.softmax(logits.float() / temperature, dim=1)
                found[:, row, column] = torch.multinomial(shares, 1, generator=generator)[:, 0]
        return found
