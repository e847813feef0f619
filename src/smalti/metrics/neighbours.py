"""Exact k-nearest-neighbour search over feature vectors, without the full distance matrix.

Each block of pairs is searched with float32 dot products for a few more candidates than requested. The distances of
the candidates are then recomputed from differences, so that copies have distance exactly 0 and ties are exact.
Layout: features (N, D); Euclidean distances.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.metrics.vectors import Buffers, Centred, checked, mean_vector, pair_blocks, squared_distances

_SPARE = 3  # candidates beyond k, so that rounding does not lose a true neighbour


def nearest(
    queries: Tensor, references: Tensor, k: int = 1, *, exclude_self: bool = False, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The k nearest references of each query, in bounded memory beyond the features.

    Args:
        queries, references: (N, D) and (M, D) floats.
        k: number of neighbours.
        exclude_self: queries and references are the same set, and no vector is its own neighbour. Takes half the work
            of two different sets.
        own: (N,) int64, if the queries are a subset of the references: the index of each query in `references`, which
            is excluded from its neighbours.

    Returns:
        distances (N, k) float32 in ascending order, and the indices into `references` (N, k) int64.

    Raises:
        ConfigError: k is below 1.
        DataError: there are fewer than k references, D differs, or there are NaN or infinite values.
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
            exclude_columns(squared, own[block.rows] - block.columns.start)
        if exclude_self:
            offer_symmetric(found, squared, block.rows, block.columns)
        else:
            found.offer(squared, block.rows, block.columns)
    distances, indices = found.refined(queries, references)
    return distances[:, :k].sqrt(), indices[:, :k]


class Candidates:
    """The nearest candidates found so far for each query."""

    def __init__(self, queries: int, count: int) -> None:
        self.squared = torch.full((queries, count), torch.inf)
        self.indices = torch.zeros(queries, count, dtype=torch.int64)

    def offer(self, squared: Tensor, queries: slice, references: slice, *, transposed: bool = False) -> None:
        """Update with a block of squared distances, (queries, references); (references, queries) if `transposed`."""
        axis = 0 if transposed else 1
        count = min(self.squared.shape[1], squared.shape[axis])
        values, indices = squared.topk(count, dim=axis, largest=False, sorted=False)
        if transposed:
            values, indices = values.T, indices.T
        values = torch.cat([self.squared[queries], values], 1)
        indices = torch.cat([self.indices[queries], indices + references.start], 1)
        self.squared[queries], kept = values.topk(self.squared.shape[1], dim=1, largest=False, sorted=False)
        self.indices[queries] = indices.gather(1, kept)

    def refined(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N, count) squared distances recomputed from differences, ascending, and the indices in the same order."""
        rows = torch.arange(len(x)).repeat_interleave(self.indices.shape[1])
        exact = squared_distances(x, y, rows, self.indices.flatten()).view(self.indices.shape)
        # A slot that was never filled, because the query itself was excluded, must not come back as neighbour 0.
        exact[torch.isinf(self.squared)] = torch.inf
        exact, order = exact.sort(dim=1, stable=True)
        return exact, self.indices.gather(1, order)


def exclude_columns(squared: Tensor, column: Tensor) -> None:
    """Set one column of each row of (rows, columns) to infinity, in place; indices outside the block are ignored."""
    here = ((column >= 0) & (column < squared.shape[1])).nonzero().flatten()
    squared[here, column[here]] = torch.inf


def offer_symmetric(found: Candidates, squared: Tensor, rows: slice, columns: slice) -> None:
    """Offer a block of a symmetric distance matrix to its rows and, off the diagonal, to its columns as well."""
    if rows == columns:
        squared.fill_diagonal_(torch.inf)
    found.offer(squared, rows, columns)
    if rows != columns:
        found.offer(squared, columns, rows, transposed=True)
