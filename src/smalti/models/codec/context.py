"""Context net: the distribution of each coefficient of a tile, given those that were coded before it.

The coefficients of a tile, by falling variance, are cut into groups. One small net a group predicts its coefficients
from those of the earlier groups of the tile:

    x    f(q), |f(q)| of the earlier groups           f(q) = sign(q) log2(1 + |q|), piecewise linear
    h1   clip(W1 x + b1(quality))                     clip to [0, 8)
    h2   clip(W2 h1 + b2)
    m, log2 s, logit w = W3 h2 + b3(quality)          b(quality) = b0 + b1 t + b2 t^2, t = (quality - 50) / 32

With `neighbours` the tiles of the grid are coded in two phases, like the fields of a chessboard (He et al. 2021,
arXiv:2103.15306): group by group, first all even tiles, then all odd ones. A net, one for each group and phase, then
also sees the leading coefficients of the eight neighbouring tiles, as far as they are known, and m gets a linear
function of them.

All operations are such that they can be repeated with integers (codec/context.py): nothing but products, sums,
clipping, and a piecewise linear f whose slopes are powers of two.
Layout: codes (B, D, h, w), integers as float32; D coefficients, h x w tiles.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.codec import ContextConfig
from smalti.models.codec.distribution import Distribution

LARGEST = 255 / 32  # of a hidden unit: 8 bits with 5 of them behind the point
LINEAR = 16  # leading coefficients of the neighbours that the mean is a linear function of
LINEAR_SCALE = 1 / 64  # its weights are stored larger by this, so that they learn as fast as the others
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))  # (down, right)
EDGES = (1, 3, 4, 6)  # those that share an edge: of the other phase


def group_bounds(coefficients: int, groups: int) -> list[int]:
    """Boundaries of the groups, 0 to `coefficients`: sizes grow geometrically, since most energy comes first."""
    groups = min(groups, coefficients)
    first = min(4.0, coefficients / groups)
    ends = [round(first * (coefficients / first) ** (index / max(groups - 1, 1))) for index in range(groups)]
    bounds = [0]
    for index, end in enumerate(ends):
        bounds.append(min(max(end, bounds[-1] + 1), coefficients - (groups - 1 - index)))
    bounds[-1] = coefficients
    return bounds


def compressed(codes: Tensor) -> Tensor:
    """f(q) = sign(q) log2(1 + |q|), linear between powers of two, at most `LARGEST`."""
    exponent = torch.frexp(1 + codes.abs()).exponent.to(codes.dtype)  # without a gradient
    magnitude = exponent - 2 + 2 * ((1 + codes.abs()) / torch.exp2(exponent))
    return torch.sign(codes) * magnitude.clamp(max=LARGEST)


def quality_variable(quality: Tensor) -> Tensor:
    """t = (quality - 50) / 32, exact in binary."""
    return (quality.float() - 50) / 32


class QualityBias(nn.Module):
    """b0 + b1 t + b2 t^2 for each unit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, width))

    def forward(self, t: Tensor) -> Tensor:
        """(N,) -> (N, width)."""
        return torch.stack([torch.ones_like(t), t, t.square()], dim=1) @ self.weight


class GroupNet(nn.Module):
    """The net of one group (and phase).

    Args:
        known: inputs of its own tile.
        around: inputs of the neighbouring tiles, and `linear` of them for the linear part of the mean.
        count: coefficients in the group.
    """

    def __init__(self, known: int, around: int, linear: int, count: int, width: int) -> None:
        super().__init__()
        self.count, self.inputs = count, known + around
        self.first = nn.Linear(max(self.inputs, 1), width, bias=False)
        self.first_bias = QualityBias(width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, 3 * count, bias=False)
        self.last_bias = QualityBias(3 * count)
        self.linear = nn.Linear(linear, count, bias=False) if linear else None
        nn.init.normal_(self.first_bias.weight, std=0.5)
        nn.init.normal_(self.last.weight, std=0.1 * width**-0.5)
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)

    def forward(self, inputs: Tensor, linear_inputs: Tensor | None, t: Tensor) -> Tensor:
        """(N, inputs) -> (N, 3 * count): means, log scales, spikes."""
        hidden = self.first_bias(t)
        if self.inputs:
            hidden = hidden + self.first(inputs)
        hidden = F.relu(hidden).clamp(max=LARGEST)
        hidden = F.relu(self.second(hidden)).clamp(max=LARGEST)
        out = self.last(hidden) + self.last_bias(t)
        if self.linear is not None:
            mean = F.linear(cast(Tensor, linear_inputs), self.linear.weight * LINEAR_SCALE)
            out = torch.cat([out[:, : self.count] + mean, out[:, self.count :]], dim=1)
        return out


class ContextNet(nn.Module):
    """Distributions of all coefficients: codes (B, D, h, w) and qualities (B,) -> `Distribution` of (B, D, h, w)."""

    def __init__(self, config: ContextConfig, coefficients: int) -> None:
        super().__init__()
        self.bounds = group_bounds(coefficients, config.groups)
        self.neighbours, self.shared = config.neighbours, config.shared
        nets = []
        for start, end in zip(self.bounds[:-1], self.bounds[1:], strict=True):
            for _ in range(2 if self.neighbours else 1):
                around = len(NEIGHBOURS) * 2 * min(self.shared, end) + end - start if self.neighbours else 0
                linear = len(NEIGHBOURS) * min(LINEAR, end) if self.neighbours else 0
                nets.append(GroupNet(2 * start, around, linear, end - start, config.width))
        self.nets = nn.ModuleList(nets)

    @torch.no_grad()
    def fit(self, variances: Tensor) -> None:
        """Start from scales that fit coefficients of these variances, quantised with step 2^(1 - quality/16).

        Args:
            variances: (D,) in squared pixel values of [-1, 1].
        """
        for index, net in enumerate(self.nets):
            group = index // 2 if self.neighbours else index
            start, end = self.bounds[group], self.bounds[group + 1]
            bias = cast(GroupNet, net).last_bias.weight
            count = end - start
            # A logistic of scale s has the standard deviation 1.8 s; log2 step = 1 - 50/16 - 2 t.
            logs = torch.log2(variances[start:end].clamp_min(1e-12).to(bias)) / 2 - 0.85
            bias[0, count : 2 * count] = logs - (1 - 50 / 16)
            bias[1, count : 2 * count] = 2.0

    def forward(self, codes: Tensor, quality: Tensor) -> Distribution:
        batch, dimension, height, width = codes.shape
        rows = codes.permute(0, 2, 3, 1).reshape(-1, dimension)
        t = quality_variable(quality).repeat_interleave(height * width)
        features = compressed(rows)
        if not self.neighbours:
            parts = [net(self._own(features, group), None, t) for group, net in enumerate(self.nets)]
        else:
            parts = self._with_neighbours(codes, features, t)
        counts = [end - start for start, end in zip(self.bounds[:-1], self.bounds[1:], strict=True)]
        chunks = [part.split(count, dim=1) for part, count in zip(parts, counts, strict=True)]

        def joined(which: int) -> Tensor:
            flat = torch.cat([chunk[which] for chunk in chunks], dim=1)
            return flat.view(batch, height, width, dimension).permute(0, 3, 1, 2)

        return Distribution(joined(0), joined(1), joined(2))

    def _own(self, features: Tensor, group: int) -> Tensor:
        known = features[:, : self.bounds[group]]
        return torch.cat([known, known.abs()], dim=1)

    def _with_neighbours(self, codes: Tensor, features: Tensor, t: Tensor) -> list[Tensor]:
        batch, _, height, width = codes.shape
        around = surroundings(compressed(codes[:, : self.shared]))  # (N, 8, K)
        linear = surroundings(codes[:, :LINEAR])
        magnitudes = edge_sums(compressed(codes).abs())  # (N, D)
        odd = phases(height, width, codes.device).repeat(batch)
        parts = []
        for group in range(len(self.bounds) - 1):
            start, end = self.bounds[group], self.bounds[group + 1]
            out = features.new_empty(len(features), 3 * (end - start))
            for phase in range(2):
                rows = torch.nonzero(odd == phase)[:, 0]
                seen = masked(around[rows, :, :end], start, phase)
                inputs = [self._own(features[rows], group), seen.flatten(1), seen.abs().flatten(1)]
                inputs.append(magnitudes[rows, start:end] * phase)
                lows = masked(linear[rows, :, :end], start, phase).flatten(1)
                part = self.nets[2 * group + phase](torch.cat(inputs, dim=1), lows, t[rows])
                out = out.index_copy(0, rows, part.to(out.dtype))
            parts.append(out)
        return parts


def phases(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """(height * width,) 0 for even fields of the chessboard, 1 for odd ones."""
    down, right = torch.arange(height, device=device), torch.arange(width, device=device)
    return ((down[:, None] + right) % 2).flatten()


def surroundings(values: Tensor) -> Tensor:
    """The eight neighbours of each tile, zero outside: (B, K, h, w) -> (B * h * w, 8, K)."""
    height, width = values.shape[2:]
    padded = F.pad(values, (1, 1, 1, 1))
    parts = [padded[:, :, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in NEIGHBOURS]
    return torch.stack(parts, dim=1).permute(0, 3, 4, 1, 2).flatten(0, 2)


def edge_sums(values: Tensor) -> Tensor:
    """Sum over the four neighbours that share an edge: (B, D, h, w) -> (B * h * w, D)."""
    height, width = values.shape[2:]
    padded = F.pad(values, (1, 1, 1, 1))
    shifts = [NEIGHBOURS[index] for index in EDGES]
    total = sum(padded[:, :, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in shifts)
    return cast(Tensor, total).permute(0, 2, 3, 1).flatten(0, 2)


def masked(around: Tensor, start: int, phase: int) -> Tensor:
    """Zero what is not yet known of the neighbours: the group from `start` on, except across edges in phase 1."""
    known = torch.zeros(around.shape[1:], dtype=around.dtype, device=around.device)
    known[:, :start] = 1
    if phase == 1:
        known[list(EDGES)] = 1
    return around * known
