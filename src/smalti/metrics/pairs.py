"""Kernel distance (KID), precision, recall, density and coverage, from one pass over all pairs of two sets.

    kernel distance   mean k(x, x') + mean k(y, y') - 2 mean k(x, y),   k(x, y) = (x.y / D + 1)^3,  x != x', y != y'
    precision         proportion of generated y that lie in the ball of at least one real x
    recall            proportion of real x that lie in the ball of at least one generated y
    density           number of real balls that contain a generated y, divided by k, averaged over y; may exceed 1
    coverage          proportion of real x whose ball contains at least one generated y

The ball of a vector has the distance to its k-th nearest neighbour in its own set as radius. "In" means strictly nearer
than the radius, as in the authors' package, so ties lie outside.
Sources: Binkowski et al. 2018, arXiv:1801.01401 (KID) with the unbiased estimate of Gretton et al. 2012;
Kynkaanniemi et al. 2019, arXiv:1904.06991 (precision, recall); Naeem et al. 2020, arXiv:2002.09797 (density, coverage).
Each block of dot products is computed once for all five metrics. Layout: features (N, D), one row per image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.metrics.bootstrap import interval, mean_interval
from smalti.metrics.metric import FeatureMetric, MetricValue
from smalti.metrics.neighbours import Candidates, offer_symmetric
from smalti.metrics.vectors import (
    TOLERANCE,
    Buffers,
    Centred,
    PairBlock,
    at_least_two,
    checked,
    mean_vector,
    pair_blocks,
    squared_distances,
)

NEIGHBOURS = 5  # as in Naeem et al.; Kynkaanniemi et al. use 3 for precision and recall
_SPARE = 3
_EXACT_PAIRS = 2**19  # near-ties recomputed exactly; beyond this number, near-ties count as outside


@dataclass(frozen=True)
class Kernels:
    """Mean of the cubic kernel between each image and each set, all minus the same constant.

    Attributes:
        real_real, fake_fake: (N,), (M,) float64 means over the other images of the same set.
        real_fake, fake_real: (N,), (M,) float64 means over all images of the other set.
    """

    real_real: np.ndarray
    fake_fake: np.ndarray
    real_fake: np.ndarray
    fake_real: np.ndarray


@dataclass(frozen=True)
class Balls:
    """Membership of the images of one set in the k-nearest-neighbour balls of the other.

    Attributes:
        neighbours: k.
        inside: (M,) int64, the number of real balls that contain each generated image.
        covered: (N,) bool, whether the ball of each real image contains a generated image.
        recalled: (N,) bool, whether each real image lies in the ball of a generated image.
    """

    neighbours: int
    inside: np.ndarray
    covered: np.ndarray
    recalled: np.ndarray


def compare_pairs(
    real: Tensor, fake: Tensor, *, neighbours: int = NEIGHBOURS, kernel: bool = True, balls: bool = True
) -> tuple[Kernels | None, Balls | None]:
    """Kernel means and ball memberships from one pass over the pairs of two sets.

    Args:
        real, fake: (N, D) and (M, D) floats.
        neighbours: k of the balls; limited to one less than the size of the smaller set.
        kernel: whether to compute the kernel means.
        balls: whether to compute the ball memberships.

    Returns:
        The kernel means and the ball memberships; None for the one not computed.

    Raises:
        DataError: a set has fewer than 2 images, D differs, or there are NaN or infinite values.
        ConfigError: neighbours is below 1.
    """
    real = checked(real, what="real features").float().contiguous()
    fake = checked(fake, dimension=real.shape[1], what="generated features").float().contiguous()
    at_least_two(len(real), "real")
    at_least_two(len(fake), "generated")
    if neighbours < 1:
        raise ConfigError(f"{neighbours} neighbours asked for; give at least 1")
    k = min(neighbours, len(real) - 1, len(fake) - 1)
    centre = mean_vector(real)
    x, y = Centred(real, centre), Centred(fake, centre)
    x_kernel, y_kernel = (_KernelSums(vectors) if kernel else None for vectors in (x, y))
    x_radii = _compare_within(x, k if balls else 0, x_kernel)
    y_radii = _compare_within(y, k if balls else 0, y_kernel)
    counts = _BallCounts(x, y, x_radii, y_radii) if balls else None
    buffers = Buffers(2)
    for block in pair_blocks(x, y):
        if x_kernel is not None and y_kernel is not None:
            values = x_kernel.values(block, y_kernel, buffers)
            x_kernel.other[block.rows] += values.sum(1)
            y_kernel.other[block.columns] += values.sum(0)
        if counts is not None:
            counts.add(block)
    kernels = _means(x_kernel, y_kernel) if x_kernel is not None and y_kernel is not None else None
    return kernels, counts.result(k) if counts is not None else None


class _KernelSums:
    """Kernel sums of the vectors of one set, over their own set and over the other.

    With u = x'.y' / D + p + q, where p = m.x' / D and q = m.y' / D, and c = 1 + m.m / D, the kernel is (c + u)^3. A
    constant cancels between the three means, so c^3 is subtracted, which leaves values of the size of the differences
    and avoids cancellation error.
    """

    def __init__(self, vectors: Centred) -> None:
        centre = vectors.centre.double()
        self.dimension = len(centre)
        self.constant = 1 + float(centre @ centre) / self.dimension
        shift = torch.cat([vectors.rows(start).double() @ centre for start in vectors.starts()])
        self.offset = (shift / self.dimension).float()
        self.own = torch.zeros(vectors.count, dtype=torch.float64)
        self.other = torch.zeros(vectors.count, dtype=torch.float64)

    def values(self, block: PairBlock, columns: _KernelSums, buffers: Buffers) -> Tensor:
        """(rows, columns) of (x.y / D + 1)^3 - c^3 = u (3c^2 + u (3c + u)), in buffer 0."""
        u, value = buffers.take(1, block), buffers.take(0, block)
        torch.add(columns.offset[block.columns], block.products, alpha=1 / self.dimension, out=u)
        u += self.offset[block.rows, None]
        torch.add(u, 3 * self.constant, out=value)
        torch.addcmul(torch.tensor(3 * self.constant**2), value, u, out=value)
        return value.mul_(u)


def _means(x: _KernelSums, y: _KernelSums) -> Kernels:
    found = [x.own / (len(x.own) - 1), y.own / (len(y.own) - 1), x.other / len(y.own), y.other / len(x.own)]
    if not all(bool(torch.isfinite(means).all()) for means in found):
        raise DataError("features are too large for the cubic kernel in float32; divide them by a constant")
    return Kernels(*(means.numpy() for means in found))


def _compare_within(x: Centred, k: int, kernel: _KernelSums | None) -> Tensor:
    """Add all pairs of one set to the kernel sums; returns the (N,) squared distances to the k-th neighbours."""
    if k == 0 and kernel is None:
        return torch.empty(0)
    found = Candidates(x.count, min(k + _SPARE, x.count - 1))
    buffers = Buffers(2)
    for block in pair_blocks(x, x):
        diagonal = block.rows == block.columns
        if kernel is not None:
            values = kernel.values(block, kernel, buffers)
            if diagonal:
                values.fill_diagonal_(0)
            else:
                kernel.own[block.columns] += values.sum(0)
            kernel.own[block.rows] += values.sum(1)
        if k:
            squared = torch.add(x.squares[block.columns], block.products, alpha=-2, out=buffers.take(0, block))
            offer_symmetric(found, squared.add_(x.squares[block.rows, None]), block.rows, block.columns)
    if k == 0:
        return torch.empty(0)
    exact, _ = found.refined(x.features, x.features)
    return exact[:, k - 1].contiguous()


class _BallCounts:
    """Counts of the pairs inside balls; pairs too close to call in float32 products are recomputed from differences."""

    def __init__(self, x: Centred, y: Centred, x_radii: Tensor, y_radii: Tensor) -> None:
        self.x, self.y = x, y
        self.x_radii, self.y_radii = x_radii, y_radii  # squared
        self.inside = torch.zeros(y.count, dtype=torch.int64)
        self.covered = torch.zeros(x.count, dtype=torch.bool)
        self.recalled = torch.zeros(x.count, dtype=torch.bool)
        self.buffers = Buffers(1)
        self.exact_left = _EXACT_PAIRS

    def add(self, block: PairBlock) -> None:
        rows, columns = block.rows, block.columns
        # A lower bound on each squared distance: a pair whose bound is not below the radius is certainly outside.
        least = self.buffers.take(0, block)
        torch.add(self.y.squares[columns] * (1 - TOLERANCE), block.products, alpha=-2, out=least)
        least += self.x.squares[rows, None] * (1 - TOLERANCE)
        row, column = self._confirmed(least, least < self.x_radii[rows, None], block, self.x_radii[rows], 0)
        self.inside[columns] += torch.bincount(column, minlength=least.shape[1])
        self.covered[rows.start + row] = True
        row, _ = self._confirmed(least, least < self.y_radii[columns], block, self.y_radii[columns], 1)
        self.recalled[rows.start + row] = True

    def _confirmed(
        self, least: Tensor, candidate: Tensor, block: PairBlock, radii: Tensor, axis: int
    ) -> tuple[Tensor, Tensor]:
        """Rows and columns, within the block, of the candidates whose distance is below the radius."""
        pair = candidate.nonzero()
        row, column = pair[:, 0], pair[:, 1]
        if not len(pair):
            return row, column
        radius = radii[pair[:, axis]]
        global_row, global_column = row + block.rows.start, column + block.columns.start
        slack = 2 * TOLERANCE * (self.x.squares[global_row] + self.y.squares[global_column])
        surely = least[row, column] + slack < radius
        # A ball of radius 0 contains nothing, so its candidates need no check.
        doubtful = (~surely & (radius > 0)).nonzero().flatten()[: self.exact_left]
        self.exact_left -= len(doubtful)
        exact = squared_distances(self.x.features, self.y.features, global_row[doubtful], global_column[doubtful])
        surely[doubtful] = exact < radius[doubtful]
        return row[surely], column[surely]

    def result(self, k: int) -> Balls:
        return Balls(k, self.inside.numpy(), self.covered.numpy(), self.recalled.numpy())


def kernel_figures(kernels: Kernels, *, seed: int = 0) -> tuple[MetricValue, ...]:
    """The metric value `kernel_distance`, with its standard error as the note.

    The standard error and the interval come from the contribution of each image to the estimate (its Hoeffding
    projection). For two samples of the same distribution the contributions are themselves noise, which makes the
    interval up to 1.4 times too wide.
    """
    value = kernels.real_real.mean() + kernels.fake_fake.mean() - 2 * kernels.real_fake.mean()
    shares = [2 * (kernels.real_real - kernels.real_fake), 2 * (kernels.fake_fake - kernels.fake_real)]
    shares = [share - share.mean() for share in shares]
    error = float(np.sqrt(sum(share.var(ddof=1) / len(share) for share in shares)))
    low, high = interval(shares, lambda means: value + means[0] + means[1], seed=seed)
    count = len(kernels.fake_fake)
    note = f"standard error {error:.2g}"
    return (MetricValue("kernel_distance", float(value), low, high, count, better="lower", note=note),)


def ball_figures(balls: Balls, *, seed: int = 0) -> tuple[MetricValue, ...]:
    """The metric values `precision`, `recall`, `density` and `coverage`; the bootstrap keeps the balls fixed."""
    note = f"k = {balls.neighbours}"
    samples = {
        "precision": balls.inside > 0,
        "recall": balls.recalled,
        "density": balls.inside / balls.neighbours,
        "coverage": balls.covered,
    }
    return tuple(
        MetricValue(
            name, float(np.mean(sample)), *mean_interval(sample, seed=seed), len(sample), better="higher", note=note
        )
        for name, sample in samples.items()
    )


class _StoredFeatures(FeatureMetric):
    """A metric that stores all features: N x D x 4 bytes per set (51 MB for 10,000 of 1,280 dimensions)."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self.real: list[Tensor] = []
        self.fake: list[Tensor] = []

    def update(self, features: Tensor, *, real: bool) -> None:
        seen = self.real or self.fake
        what = "real features" if real else "generated features"
        features = checked(features, dimension=seen[0].shape[1] if seen else None, what=what)
        (self.real if real else self.fake).append(features.float().clone())

    def merge(self: S, other: S) -> None:
        if type(other) is not type(self) or other._settings() != self._settings():
            raise ConfigError(f"{self._settings()} cannot take in {other._settings()}; set both up alike")
        for features in other.real:
            self.update(features, real=True)
        for features in other.fake:
            self.update(features, real=False)

    def _settings(self) -> str:
        return f"{type(self).__name__}(seed={self.seed})"

    def _sets(self) -> tuple[Tensor, Tensor]:
        at_least_two(sum(map(len, self.real)), "real")
        at_least_two(sum(map(len, self.fake)), "generated")
        self.real, self.fake = [torch.cat(self.real)], [torch.cat(self.fake)]
        return self.real[0], self.fake[0]


S = TypeVar("S", bound=_StoredFeatures)


class KernelDistance(_StoredFeatures):
    """KID over all pairs, as `kernel_distance`; stores the features (N x D x 4 bytes per set)."""

    def compute(self) -> tuple[MetricValue, ...]:
        kernels, _ = compare_pairs(*self._sets(), balls=False)
        assert kernels is not None
        return kernel_figures(kernels, seed=self.seed)


class PrecisionRecall(_StoredFeatures):
    """Improved precision and recall, density and coverage; stores the features (N x D x 4 bytes per set)."""

    def __init__(self, *, neighbours: int = NEIGHBOURS, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.neighbours = neighbours

    def _settings(self) -> str:
        return f"PrecisionRecall(neighbours={self.neighbours}, seed={self.seed})"

    def compute(self) -> tuple[MetricValue, ...]:
        _, balls = compare_pairs(*self._sets(), neighbours=self.neighbours, kernel=False)
        assert balls is not None
        return ball_figures(balls, seed=self.seed)
