"""Sets of feature vectors: what is accepted, and how all pairs of two sets are walked through in blocks.

    |x - y|^2 = |x'|^2 + |y'|^2 - 2 x'.y'        x' = x - m, m the reference's mean

One matrix product a block gives the dot products; the squares follow from them. Subtracting m first keeps the rounding
small: features of real networks lie far from the origin. Products are float32, blocks of 1024 x 1024, so memory does
not grow with the number of pairs.
Layout: features (N, D), one row an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smalti.errors import DataError

BLOCK = 1024  # rows and columns of a block of pairs: 4 MB of float32
TOLERANCE = 4e-6  # of |x'|^2 + |y'|^2: what float32 products may get wrong in a squared distance
_GATHERED = 2**22  # values gathered at once for exact distances


def checked(features: Tensor, *, dimension: int | None = None, what: str = "features") -> Tensor:
    """The features on the CPU, if they can be measured.

    Args:
        features: (N, D) floats.
        dimension: the D they must have, None for any.
        what: the word for them in an error.

    Raises:
        DataError: not a matrix of floats, another D, NaN or infinite values.
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
    # A finite sum has only finite terms, and takes no memory; an infinite one may just be large terms.
    if not bool(torch.isfinite(features.sum())):
        broken = ~torch.isfinite(features).all(dim=1)
        if bool(broken.any()):
            row = int(broken.int().argmax())
            raise DataError(f"{what}: NaN or infinite values in row {row}; check the images or the extractor's weights")
    return features


def mean_vector(features: Tensor) -> Tensor:
    """(N, D) floats -> (D,) float32: the mean, summed in float64 a block at a time."""
    total = torch.zeros(features.shape[1], dtype=torch.float64)
    for start in range(0, len(features), BLOCK):
        total += features[start : start + BLOCK].double().sum(0)
    return (total / len(features)).float()


def at_least_two(count: int, what: str) -> None:
    """Raises DataError where there are fewer than 2 images."""
    if count < 2:
        raise DataError(f"{count} {what} image{'s' * (count != 1)} given, at least 2 are needed to compare two sets")


class Centred:
    """A set of vectors with a point subtracted, a block at a time; no second copy is held."""

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
        """(up to BLOCK, D), those from `start` on."""
        return self.features[start : start + BLOCK] - self.centre

    def part(self, start: int) -> slice:
        return slice(start, min(start + BLOCK, self.count))


@dataclass(frozen=True)
class PairBlock:
    """All pairs of some rows with some columns.

    Attributes:
        rows, columns: which they are.
        products: (rows, columns) float32 dot products of the centred vectors; overwritten by the next block.
    """

    rows: slice
    columns: slice
    products: Tensor


class Buffers:
    """Memory for blocks, taken once: fresh memory for every block costs as much as a pass over it."""

    def __init__(self, count: int) -> None:
        self._flat = [torch.empty(BLOCK * BLOCK) for _ in range(count)]

    def take(self, number: int, like: PairBlock) -> Tensor:
        """A float32 matrix of the block's size, with anything in it."""
        height, width = like.products.shape
        return self._flat[number][: height * width].view(height, width)


def pair_blocks(x: Centred, y: Centred) -> Iterator[PairBlock]:
    """All blocks of pairs of x with y; of x with itself (`x is y`) only those on and above the diagonal."""
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
    """Squared distances of chosen pairs from their differences, to 1e-6 of themselves; 0 for equal vectors.

    Args:
        x, y: (N, D) and (M, D) float32.
        rows, columns: (P,) int64, which pairs.

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
