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
        above = self.above(v)
        return _gate(above), self.along(h, self.down(above))

    def above(self, v: Tensor) -> Tensor:
        """Of every row from those above it, in the first layer without the row itself."""
        half = self.size // 2
        return self.vertical(F.pad(v, (half, half, half, 0)))[:, :, : v.shape[2]]

    def along(self, h: Tensor, down: Tensor) -> Tensor:
        """Of every column from those to its left, in the first layer without the column itself."""
        left = self.horizontal(F.pad(h, (self.size // 2, 0, 0, 0)))[:, :, :, : h.shape[3]]
        inside = self.merge(_gate(left + down))
        return inside if self.first else h + inside


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
        v = h = self._embed(codes)
        for layer in self.layers:
            v, h = layer(v, h)
        return self.head(h)

    def _embed(self, codes: Tensor) -> Tensor:
        return self.embedding(codes).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def sample(self, count: int, grid: tuple[int, int], generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """(count, h, w), code after code."""
        found = torch.zeros(count, *grid, dtype=torch.int64)
        for row in range(grid[0]):
            # What comes from above is the same for all codes of a row.
            v, downs = self._embed(found[:, : row + 1]), []
            for layer in self.layers:
                above = layer.above(v)
                downs.append(layer.down(above[:, :, row : row + 1]))
                v = _gate(above)
            for column in range(grid[1]):
                h = self._embed(found[:, row : row + 1])
                for layer, down in zip(self.layers, downs, strict=True):
                    h = layer.along(h, down)
                shares = torch.softmax(self.head(h[..., column : column + 1]).flatten(1).float() / temperature, dim=1)
                found[:, row, column] = torch.multinomial(shares, 1, generator=generator)[:, 0]
        return found
