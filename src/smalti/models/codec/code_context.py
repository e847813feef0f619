"""Context net for the codes of a VQ-VAE: the distribution of each code, given those that were coded before it.

The S symbols of a position (models/codec/code_symbols.py) are coded one after another. T_s has a row for each value of
symbol s, and one for positions outside of the grid.

    e_j   clip(sum_s T_s[c_s at neighbour j])               j = W, NW, N, NE, WW, NN;  clip to (-8, 8)
    h1    clip(W1 [e_1 .. e_6] + sum_(r < s) V_r T_r[c_r] + b1_s)                       clip to [0, 8)
    h2    clip(W2 h1 + b2_s)
    p     softmax(W3_s h2 + b3_s)

The sum over the earlier symbols of the position grows by one term with each symbol, as in NADE, so the cost is linear
in S. The last hidden layer is narrowed so that W3 has at most 2^20 weights over all symbols. All operations are such
that they can be repeated with integers (codec/code_context.py).
Sources: Larochelle and Murray 2011, "The neural autoregressive distribution estimator"; van den Oord et al. 2016,
arXiv:1601.06759 (neighbours). Layout: codes (B, P, h, w) int64 on a grid of any size; rows of the net are positions in
the order (b, y, x).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.code_context import CodeContextConfig
from smalti.data.spec import ImageSpec
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.codec.code_symbols import (
    ABOVE,
    LARGEST_ALPHABET,
    LEFT,
    NEIGHBOURS,
    RIGHT,
    code_ranks,
    low_size,
    symbol_sizes,
)
from smalti.models.codec.context import LARGEST

LARGEST_OUTPUT = 2**20  # weights
NARROWEST = 16  # hidden units of the last layer


class CodeContextNet(nn.Module):
    """Distributions of codes.

    Args:
        codebook_sizes: number of codes of each plane.

    Attributes:
        codebook_sizes: as given.
        sizes: number of values of each symbol.
        ranks: of the codes of the planes that are two symbols, plane after plane, (K + ...,) int64; None without any.
    """

    ranks: Tensor | None

    def __init__(self, config: CodeContextConfig, codebook_sizes: Sequence[int]) -> None:
        super().__init__()
        self.codebook_sizes, self.sizes = tuple(codebook_sizes), symbol_sizes(codebook_sizes)
        count, total, width = len(self.sizes), sum(self.sizes), config.width
        last_width = min(width, max(NARROWEST, LARGEST_OUTPUT // total))
        self.table = nn.Parameter(torch.randn(total + count, config.embedding))
        self.around = nn.Linear(len(NEIGHBOURS) * config.embedding, width, bias=False)
        self.own = nn.Parameter(torch.randn(count - 1, width, config.embedding) * config.embedding**-0.5)
        self.first_bias = nn.Parameter(0.5 * torch.randn(count, width))
        self.second = nn.Linear(width, last_width, bias=False)
        self.second_bias = nn.Parameter(0.5 * torch.randn(count, last_width))
        self.last = nn.Parameter(torch.randn(total, last_width) * 0.1 * last_width**-0.5)
        self.last_bias = nn.Parameter(torch.zeros(total))
        large = [torch.arange(size) for size in codebook_sizes if size > LARGEST_ALPHABET]
        self.register_buffer("ranks", torch.cat(large) if large else None)

    @torch.no_grad()
    def fit(self, values: Sequence[Tensor], counts: Sequence[Tensor]) -> None:
        """Rank the codes of large planes by similarity, and start from similar rows for similar codes and frequencies.

        Args:
            values: (K, D) codebook of each plane, on the CPU.
            counts: (K,) positive, how often each code occurs, for each plane.
        """
        large = [code_ranks(plane.double().numpy()) for plane in values if len(plane) > LARGEST_ALPHABET]
        if self.ranks is not None:
            self.ranks.copy_(torch.from_numpy(np.concatenate(large)))
        scale, logits, first = len(self.sizes) ** -0.25, [], 0
        sizes = iter(self.sizes)
        for vectors, count, digits in zip(values, counts, self._digits(), strict=True):
            for digit in digits:
                size = next(sizes)
                shares = torch.zeros(size, device=digit.device).index_add_(0, digit, count.float().to(digit.device))
                logits.append((shares / shares.sum()).log())
                members = torch.bincount(digit.cpu(), minlength=size)[:, None]
                means = torch.zeros(size, vectors.shape[1]).index_add_(0, digit.cpu(), vectors.float()) / members
                rows = self.table[first : first + size]
                axes = _principal_components(means)[:, : rows.shape[1]].to(rows)
                rows.mul_(scale)
                rows[:, : axes.shape[1]] = axes * scale
                first += size + 1
        self.last_bias.copy_(torch.cat(logits))

    def _digits(self) -> list[list[Tensor]]:
        """For each plane and each of its symbols, the values that the codes have, (K,) int64."""
        found, start = [], 0
        for size in self.codebook_sizes:
            if self.ranks is None or size <= LARGEST_ALPHABET:
                found.append([torch.arange(size, device=self.table.device)])
                continue
            ranks = self.ranks[start : start + size]
            found.append([ranks // low_size(size), ranks % low_size(size)])
            start += size
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights by name, for `smalti.codec.code_context.CodeContext`."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}

    def symbols(self, codes: Tensor) -> Tensor:
        """(B, P, h, w) codes -> (B, S, h, w) symbols."""
        planes = zip(codes.unbind(dim=1), self._digits(), strict=True)
        return torch.stack([digit[plane] for plane, digits in planes for digit in digits], dim=1)

    def forward(self, codes: Tensor) -> Tensor:
        """Bits of each code, -log2 p(code | those before it): (B, P, h, w) -> the same shape, float32."""
        batch, _, height, width = codes.shape
        symbols = self.symbols(codes)
        sums, nats, first = self._around(symbols), [], 0
        for index, size in enumerate(self.sizes):
            known = symbols[:, index].flatten()
            hidden = F.relu(sums + self.first_bias[index]).clamp(max=LARGEST)
            hidden = F.relu(self.second(hidden) + self.second_bias[index]).clamp(max=LARGEST)
            logits = F.linear(hidden, self.last[first : first + size], self.last_bias[first : first + size])
            nats.append(F.cross_entropy(logits, known, reduction="none").view(batch, height, width))
            if index < len(self.sizes) - 1:
                sums = sums + F.linear(F.embedding(known + first + index, self._rows()), self.own[index])
            first += size
        return self._per_plane(nats) / math.log(2)

    def _around(self, symbols: Tensor) -> Tensor:
        """What the neighbours contribute to the first layer: (B, S, h, w) symbols -> (B * h * w, width)."""
        batch, count, height, width = symbols.shape
        ends = torch.tensor(self.sizes, device=symbols.device).cumsum(0) + torch.arange(count, device=symbols.device)
        outside = ends[:, None, None]  # row of the table
        rows = outside.expand(batch, -1, height + ABOVE, width + LEFT + RIGHT).clone()
        starts = outside - torch.tensor(self.sizes, device=symbols.device)[:, None, None]
        rows[:, :, ABOVE:, LEFT : LEFT + width] = symbols + starts
        features = F.embedding(rows, self._rows()).sum(dim=1).clamp(-LARGEST, LARGEST)
        parts = [features[:, ABOVE + y : ABOVE + y + height, LEFT + x : LEFT + x + width] for y, x in NEIGHBOURS]
        return self.around(torch.cat(parts, dim=3).flatten(0, 2))

    def _rows(self) -> Tensor:
        return self.table.clamp(-LARGEST, LARGEST)

    def _per_plane(self, nats: list[Tensor]) -> Tensor:
        """Sum over the symbols of each plane: S of (B, h, w) -> (B, P, h, w)."""
        rest = iter(nats)
        planes = [next(rest) if size <= LARGEST_ALPHABET else next(rest) + next(rest) for size in self.codebook_sizes]
        return torch.stack(planes, dim=1)


def _principal_components(vectors: Tensor) -> Tensor:
    """(K, D) vectors in the basis of their principal axes, with mean 0 and mean square 1."""
    centred = vectors - vectors.mean(dim=0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    rotated = left * sizes
    return rotated / rotated.square().mean().sqrt().clamp_min(torch.finfo(rotated.dtype).tiny)


class CompressedAutoencoder(nn.Module):
    """A VQ-VAE and the context net of its codes.

    Args:
        tokenizer: whose codes they are.
    """

    def __init__(self, config: CodeContextConfig, tokenizer: Autoencoder) -> None:
        super().__init__()
        self.context = CodeContextNet(config, tokenizer.quantizer.codebook_sizes)
        self.tokenizer = tokenizer


def build_code_context(
    config: CodeContextConfig, spec: ImageSpec, classes: int, tokenizer: nn.Module | None
) -> CompressedAutoencoder:
    """The network of the kind `context`, without its weights; it includes its tokenizer."""
    assert isinstance(tokenizer, Autoencoder)
    return CompressedAutoencoder(config, tokenizer)
