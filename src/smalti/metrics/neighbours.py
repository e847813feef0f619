"""Nearest neighbours of feature vectors, exact, without a matrix of all pairs.

Each block of pairs is searched for a few more neighbours than asked for, by float32 dot products; the distances of
those are then computed again from differences, so that a copy has distance 0 and ties are ties.
Layout: features (N, D), Euclidean distances in the features' own unit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.metrics.vectors import Buffers, Centred, checked, mean_vector, pair_blocks, squared_distances

_SPARE = 3  # candidates beyond k, so that rounding does not push out a true neighbour


def nearest(
    queries: Tensor, references: Tensor, k: int = 1, *, exclude_self: bool = False, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The k nearest references of every query; memory beyond the features is bounded.

    Args:
        queries, references: (N, D) and (M, D) floats.
        k: neighbours wanted.
        exclude_self: the two are the same set, and no vector is its own neighbour. Half the work of two sets.
        own: (N,) int64, for queries that are some of the references: the number of each, which is not its neighbour.

    Returns:
        distances (N, k) float32, from near to far, and their numbers in `references` (N, k) int64.

    Raises:
        ConfigError: k below 1.
        DataError: fewer than k references, another D, NaN.
    """
    references = checked(references, what="reference features").float().contiguous()
    available = len(references) - int(exclude_self or own is not None)
    if k < 1:
        raise ConfigError(f"{k} neighbours asked for; give at least 1")
    if available < k:
        raise DataError(f"{k} nearest neighbours asked for, but there are {available} vectors to search; give more")
    if exclude_self:
        queries = references
    else:
        queries = checked(queries, dimension=references.shape[1], what="query features").float().contiguous()
    centre = mean_vector(references)
    found = Candidates(len(queries), min(k + _SPARE, available))
    y = Centred(references, centre)
    x = y if exclude_self else Centred(queries, centre)
    buffers = Buffers(1)
    for block in pair_blocks(x, y):
        squared = torch.add(y.squares[block.columns], block.products, alpha=-2, out=buffers.take(0, block))
        squared += x.squares[block.rows, None]
        if own is not None:
            leave_out(squared, own[block.rows] - block.columns.start)
        if exclude_self:
            within_one_set(found, squared, block.rows, block.columns)
        else:
            found.offer(squared, block.rows, block.columns)
    distances, numbers = found.refined(queries, references)
    return distances[:, :k].sqrt(), numbers[:, :k]


class Candidates:
    """The nearest seen so far of every query."""

    def __init__(self, queries: int, count: int) -> None:
        self.squared = torch.full((queries, count), torch.inf)
        self.numbers = torch.zeros(queries, count, dtype=torch.int64)

    def offer(self, squared: Tensor, queries: slice, references: slice, *, columns_ask: bool = False) -> None:
        """Take in a block of squared distances, (queries, references) or with `columns_ask` the other way round."""
        axis = 0 if columns_ask else 1
        count = min(self.squared.shape[1], squared.shape[axis])
        values, numbers = squared.topk(count, dim=axis, largest=False, sorted=False)
        if columns_ask:
            values, numbers = values.T, numbers.T
        values = torch.cat([self.squared[queries], values], 1)
        numbers = torch.cat([self.numbers[queries], numbers + references.start], 1)
        self.squared[queries], kept = values.topk(self.squared.shape[1], dim=1, largest=False, sorted=False)
        self.numbers[queries] = numbers.gather(1, kept)

    def refined(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N, count) squared distances from differences, from near to far, and the numbers, also ordered."""
        rows = torch.arange(len(x)).repeat_interleave(self.numbers.shape[1])
        exact = squared_distances(x, y, rows, self.numbers.flatten()).view(self.numbers.shape)
        # A place that was never filled (its own copy was the only one left) must not come back as neighbour 0.
        exact[torch.isinf(self.squared)] = torch.inf
        exact, order = exact.sort(dim=1, stable=True)
        return exact, self.numbers.gather(1, order)


def leave_out(squared: Tensor, column: Tensor) -> None:
    """Sets to infinity, in place, one column in each row of (rows, columns); numbers outside are none of this block."""
    here = ((column >= 0) & (column < squared.shape[1])).nonzero().flatten()
    squared[here, column[here]] = torch.inf


def within_one_set(found: Candidates, squared: Tensor, rows: slice, columns: slice) -> None:
    """Offers a block of a symmetric matrix to its rows and, off the diagonal, to its columns."""
    if rows == columns:
        squared.fill_diagonal_(torch.inf)
    found.offer(squared, rows, columns)
    if rows != columns:
        found.offer(squared, columns, rows, columns_ask=True)
