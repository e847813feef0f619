"""Validation of feature vectors, and iteration over all pairs of two sets in blocks.

    |x - y|^2 = |x'|^2 + |y'|^2 - 2 x'.y'        x' = x - m, m the mean of the reference set

One matrix product per block gives the dot products, and the squared distances follow from them. Subtracting m first
keeps the rounding error small, because the features of real networks lie far from the origin. Products are float32 in
blocks of 1024 x 1024, so memory does not grow with the number of pairs.
Layout: features (N, D), one row per image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smalti.errors import DataError

BLOCK = 1024  # rows and columns of a block of pairs: 4 MB of float32
TOLERANCE = 4e-6  # error bound of a float32 squared distance, relative to |x'|^2 + |y'|^2
_GATHERED = 2**22  # values gathered at once for exact distances


def checked(features: Tensor, *, dimension: int | None = None, what: str = "features") -> Tensor:
    """Validated features, on the CPU.

    Args:
        features: (N, D) floats.
        dimension: required D; None accepts any.
        what: name of the features in error messages.

    Raises:
        DataError: not a matrix of floats, a D other than `dimension`, or NaN or infinite values.
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise DataError(
            f"{what}: {features.dtype} of shape {tuple(features.shape)} given, expected floats of shape (N, D), "
            "one row an image"
        )
    if dimension is not None and features.shape[1] != dimension:
        raise DataError(
            f"{what} have {features.shape[1]} dimensions, the others {dimension}; take both from the same extractor"
        )
    features = features.detach().cpu()
    # A finite sum implies finite terms and costs no memory; a non-finite sum may also be an overflow.
    if not bool(torch.isfinite(features.sum())):
        broken = ~torch.isfinite(features).all(dim=1)
        if bool(broken.any()):
            row = int(broken.int().argmax())
            raise DataError(f"{what}: NaN or infinite values in row {row}; check the images or the extractor's weights")
    return features


def mean_vector(features: Tensor) -> Tensor:
    """(N, D) floats -> (D,) float32: the mean, accumulated in float64 block by block."""
    total = torch.zeros(features.shape[1], dtype=torch.float64)
    for start in range(0, len(features), BLOCK):
        total += features[start : start + BLOCK].double().sum(0)
    return (total / len(features)).float()


def at_least_two(count: int, what: str) -> None:
    """Raise DataError if there are fewer than 2 images."""
    if count < 2:
        raise DataError(f"{count} {what} image{'s' * (count != 1)} given, at least 2 are needed to compare two sets")


class Centred:
    """A set of vectors centred at a point, one block at a time, without a second copy in memory."""

    def __init__(self, features: Tensor, centre: Tensor) -> None:
        """
        Args:
            features: (N, D) float32, contiguous.
            centre: (D,) float32.
        """
        self.features = features
        self.centre = centre
        self.count = len(features)
        self.squares = torch.cat([self.rows(start).square_().sum(1) for start in self.starts()])
        if not bool(torch.isfinite(self.squares).all()):
            raise DataError("features are too large for squared distances in float32; divide them by a constant")

    def starts(self) -> range:
        return range(0, self.count, BLOCK)

    def rows(self, start: int) -> Tensor:
        """The centred block that begins at row `start`: (up to BLOCK, D)."""
        return self.features[start : start + BLOCK] - self.centre

    def part(self, start: int) -> slice:
        """The rows of that block."""
        return slice(start, min(start + BLOCK, self.count))


@dataclass(frozen=True)
class PairBlock:
    """A block of the pairwise matrix of two sets.

    Attributes:
        rows, columns: the vectors of the first and of the second set that it covers.
        products: (rows, columns) float32 dot products of the centred vectors; overwritten by the next block.
    """

    rows: slice
    columns: slice
    products: Tensor


class Buffers:
    """Scratch memory reused for every block: allocating it anew would cost as much as a pass over the block."""

    def __init__(self, count: int) -> None:
        self._flat = [torch.empty(BLOCK * BLOCK) for _ in range(count)]

    def take(self, index: int, like: PairBlock) -> Tensor:
        """An uninitialised float32 matrix of the block's size."""
        height, width = like.products.shape
        return self._flat[index][: height * width].view(height, width)


def pair_blocks(x: Centred, y: Centred) -> Iterator[PairBlock]:
    """All blocks of pairs of x with y; if `x is y`, only those on and above the diagonal."""
    memory = torch.empty(BLOCK * BLOCK)
    for first in x.starts():
        rows = x.rows(first)
        for second in y.starts():
            if x is y and second < first:
                continue
            columns = rows if x is y and second == first else y.rows(second)
            products = memory[: len(rows) * len(columns)].view(len(rows), len(columns))
            torch.mm(rows, columns.T, out=products)
            yield PairBlock(x.part(first), y.part(second), products)


def squared_distances(x: Tensor, y: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Squared distances of selected pairs, computed from differences: relative error 1e-6, exactly 0 for equal vectors.

    Args:
        x, y: (N, D) and (M, D) float32.
        rows, columns: (P,) int64 indices of the pairs into x and y.

    Returns:
        (P,) float32.
    """
    found = torch.empty(len(rows))
    step = max(1, _GATHERED // max(1, x.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        difference = x[rows[part]].sub_(y[columns[part]])
        found[part] = difference.square_().sum(1)
    return found
