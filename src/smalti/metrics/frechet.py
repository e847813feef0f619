"""Frechet distance between Gaussians fitted to two sets of features, and its extrapolation to infinite sample size.

    FD = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)

For any A with A A^T = S1, the trace of the last term is the sum of the square roots of the eigenvalues of A^T S2 A, so
one symmetric eigenvalue problem suffices; A is the Cholesky factor, or comes from the eigenvectors if S1 is singular.
Means and covariances (with N - 1) are float64. Source: Heusel et al. 2017, arXiv:1706.08500; with Inception features
this is the FID.

The estimate from N images is biased upwards by about c / N. `frechet_distance_infinity` removes the bias: it is the
intercept at 1/N = 0 of a line in 1/N fitted to the FD of all images and of two disjoint halves of both sets. Source:
Chong and Forsyth 2020, arXiv:1911.07023, who subsample only the generated set; subsampling both sets also removes the
bias of a small reference set.

The confidence interval resamples the influence values of the images: resampling the images themselves would add the
bias a second time. In the canonical coordinates a(x), b(y), in which both covariances are the identity and the cross
term is diag(s),

    influence of x:  2 (m1 - m2).(x - m1) + |x - m1|^2 - sum_j s_j a_j(x)^2, minus its mean; of y likewise with b

(the derivative of FD along a point mass; sum_j s_j a_j^2 is the quadratic form of the optimal transport map).
Layout: features (N, D), one row per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.metrics.bootstrap import interval
from smalti.metrics.metric import FeatureMetric, MetricValue
from smalti.metrics.vectors import at_least_two, checked
from smalti.runtime.hashing import STEP, hashes
from smalti.runtime.threads import one_torch_thread

RESERVOIR = 5000  # features kept per set for the confidence interval
_ROWS = 1024  # features buffered before a matrix product
_TILE = 320  # columns of the scatter matrix computed by one product
_RANK = 1e-13  # eigenvalues below D times this fraction of the largest are rounding error


class Moments:
    """Running count, mean and scatter matrix of a stream of vectors, in float64 (Chan et al. 1983).

    Attributes:
        count: number of vectors.
        mean: (D,) float64.
        scatter: (D, D) float64, the sum of (x - mean)(x - mean)^T; only tiles on and above the diagonal are filled.
    """

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dimension, dtype=torch.float64)
        self.scatter = torch.zeros(dimension, dimension, dtype=torch.float64)

    def update(self, rows: Tensor) -> None:
        """Add (B, D) floats; any B."""
        if not len(rows):
            return
        rows = rows.double()
        mean = rows.mean(0)
        between = (mean - self.mean) * (self.count * len(rows) / (self.count + len(rows))) ** 0.5
        rows = torch.cat([rows - mean, between[None]])
        for start in range(0, len(mean), _TILE):
            tile = slice(start, start + _TILE)
            self.scatter[tile, start:].addmm_(rows[:, tile].T, rows[:, start:])
        self._move(mean, len(rows) - 1)

    def merge(self, other: Moments) -> None:
        """Add the vectors of another stream."""
        if not other.count:
            return
        between = (other.mean - self.mean) * (self.count * other.count / (self.count + other.count)) ** 0.5
        self.scatter += other.scatter
        self.scatter.addr_(between, between)
        self._move(other.mean, other.count)

    def _move(self, mean: Tensor, count: int) -> None:
        self.mean = self.mean + (mean - self.mean) * (count / (self.count + count))
        self.count += count

    def covariance(self) -> Tensor:
        """Unbiased covariance: (D, D) float64, with divisor count - 1."""
        assert self.count > 1
        return (self.scatter.triu() + self.scatter.triu(1).T).div_(self.count - 1)


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Squared Frechet (2-Wasserstein) distance between two Gaussians.

    Args:
        mean1, mean2: (D,) floats.
        cov1, cov2: (D, D) floats, symmetric positive semi-definite.

    Returns:
        FD, in squared units of the features.

    Raises:
        DataError: the shapes do not match, or there are NaN or infinite values.
    """
    dimension = len(mean1)
    shapes = [tuple(part.shape) for part in (mean1, cov1, mean2, cov2)]
    if shapes != [(dimension,), (dimension, dimension)] * 2:
        raise DataError(f"means and covariances have shapes {shapes}, expected (D,), (D, D), (D,), (D, D)")
    mean1, cov1, mean2, cov2 = (part.double() for part in (mean1, cov1, mean2, cov2))
    if not all(bool(torch.isfinite(part).all()) for part in (mean1, cov1, mean2, cov2)):
        raise DataError("NaN or infinite values in a mean or covariance; check the features they come from")
    factor, _ = _factor(cov1)
    # One thread is faster for about a thousand rows: 0.17 s at D = 1280; two took 0.9 s, on a busy machine many.
    with one_torch_thread():
        squares = torch.linalg.eigvalsh(_symmetric(factor, cov2))
    return _distance(mean1, cov1, mean2, cov2, squares)


def _distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor, squares: Tensor) -> float:
    cross = squares.clamp_min(0).sqrt().sum()
    value = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return max(0.0, float(value))


def _factor(covariance: Tensor) -> tuple[Tensor, Tensor | None]:
    """A (D, R) with A A^T = covariance; if the covariance is singular, also the pseudo-inverse (A^+)^T (D, R)."""
    lower, failed = torch.linalg.cholesky_ex(covariance)
    diagonal = lower.diagonal()
    if not failed and float(diagonal.min()) ** 2 > len(lower) * _RANK * float(diagonal.max()) ** 2:
        return lower, None
    with one_torch_thread():
        values, vectors = torch.linalg.eigh(covariance)
    kept = values > len(values) * _RANK * values[-1]
    roots = values[kept].sqrt()
    return vectors[:, kept] * roots, vectors[:, kept] / roots


def _symmetric(factor: Tensor, covariance: Tensor) -> Tensor:
    """A^T S A, made exactly symmetric."""
    product = factor.T @ covariance @ factor
    return (product + product.T) / 2


@dataclass(frozen=True)
class Influence:
    """Influence function of the Frechet distance: how much each image changes it.

    Attributes:
        value: FD.
        real_map, fake_map: (D, R) float32; the squared entries of (x - m1) @ real_map are s_j a_j(x)^2.
        difference: (D,) float64, m1 - m2.
    """

    value: float
    real_map: Tensor
    fake_map: Tensor
    difference: Tensor

    @classmethod
    def between(cls, mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Influence:
        """Influence function at float64 means (D,) and covariances (D, D)."""
        factor, inverse = _factor(cov1)
        cross = _symmetric(factor, cov2)
        with one_torch_thread():
            squares, vectors = torch.linalg.eigh(cross)
        value = _distance(mean1, cov1, mean2, cov2, squares)
        kept = squares > len(squares) * _RANK * squares[-1:]
        vectors, roots = vectors[:, kept], squares[kept].sqrt()
        if inverse is None:
            whitened = torch.linalg.solve_triangular(factor.T, vectors, upper=True)
        else:
            whitened = inverse @ vectors
        real_map, fake_map = whitened * roots.sqrt(), factor @ vectors / roots.sqrt()
        return cls(value, real_map.float(), fake_map.float(), mean1 - mean2)

    def real(self, features: Tensor, mean: Tensor) -> np.ndarray:
        """(N,) influences of real images, with mean 0; features (N, D), mean (D,) of the real set."""
        return self._of(features, mean, self.real_map, self.difference)

    def fake(self, features: Tensor, mean: Tensor) -> np.ndarray:
        """(M,) influences of generated images, with mean 0; features (M, D), mean (D,) of the generated set."""
        return self._of(features, mean, self.fake_map, -self.difference)

    @staticmethod
    def _of(features: Tensor, mean: Tensor, transport: Tensor, difference: Tensor) -> np.ndarray:
        found = []
        for rows in torch.split(features, _ROWS):
            centred = (rows - mean).float()
            spread = centred.square().sum(1) - (centred @ transport).square_().sum(1)
            found.append(spread + 2 * centred @ difference.float())
        values = torch.cat(found).double()
        return (values - values.mean()).numpy()


class _Side:
    """One set of images: the moments of its even and its odd images, and a uniform random sample of its features."""

    def __init__(self, dimension: int, reservoir: int, seed: int) -> None:
        self.halves = (Moments(dimension), Moments(dimension))
        self.size, self.seed = reservoir, seed
        self.seen = 0
        self.kept = torch.empty(0, dimension)
        self.priorities = np.empty(0, np.uint64)
        self._buffer: list[Tensor] = []

    def update(self, rows: Tensor) -> None:
        self._buffer.append(rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows.clone())
        if sum(map(len, self._buffer)) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Add the buffered rows to the moments and the reservoir."""
        if not self._buffer:
            return
        rows = torch.cat(self._buffer)
        self._buffer = []
        for part in torch.split(rows, _ROWS):
            # Alternate images, because the two halves of a sorted set would have different distributions.
            for half in (0, 1):
                self.halves[(self.seen + half) % 2].update(part[half::2])
            priorities = _priorities(self.seed, self.seen, len(part))
            self.seen += len(part)
            self._keep(part, priorities)

    def _keep(self, rows: Tensor, priorities: np.ndarray) -> None:
        if len(self.priorities) == self.size:
            better = np.flatnonzero(priorities < self.priorities[-1])
            rows, priorities = rows[better], priorities[better]
        both = np.concatenate([self.priorities, priorities])
        order = np.argsort(both, kind="stable")[: self.size]
        self.kept = torch.cat([self.kept, rows.float()])[order]
        self.priorities = both[order]

    def merge(self, other: _Side) -> None:
        self.flush()
        other.flush()
        for mine, theirs in zip(self.halves, other.halves, strict=True):
            mine.merge(theirs)
        self.seen += other.seen
        self._keep(other.kept, other.priorities)

    def whole(self) -> Moments:
        both = Moments(len(self.halves[0].mean))
        for half in self.halves:
            both.merge(half)
        return both


def _priorities(seed: int, first: int, count: int) -> np.ndarray:
    """(count,) uint64: a random priority for each image, a function of its index in the stream and not of the batch."""
    return hashes(seed - STEP, first, count)


F = TypeVar("F", bound="FrechetDistance")


class FrechetDistance(FeatureMetric):
    """Computes `frechet_distance` and `frechet_distance_infinity` in memory that does not grow with N.

    Holds four scatter matrices (13 MB each for D = 1280) and `reservoir` features per set. Merging is exact.
    """

    def __init__(self, *, seed: int = 0, reservoir: int = RESERVOIR) -> None:
        """
        Args:
            seed: seed of the feature sample and of the bootstrap.
            reservoir: number of features kept per set for the confidence interval, which is scaled to all images.
        """
        if seed < 0 or reservoir < 2:
            raise ConfigError(
                f"seed {seed} and reservoir {reservoir} given; give a seed from 0 and at least 2 features"
            )
        self.seed, self.reservoir = seed, reservoir
        self._sides: dict[bool, _Side] = {}

    def update(self, features: Tensor, *, real: bool) -> None:
        dimension = next((side.kept.shape[1] for side in self._sides.values()), None)
        features = checked(features, dimension=dimension, what="real features" if real else "generated features")
        if real not in self._sides:
            self._sides[real] = _Side(features.shape[1], self.reservoir, self.seed)
        self._sides[real].update(features)

    def merge(self: F, other: F) -> None:
        if (self.seed, self.reservoir) != (other.seed, other.reservoir):
            raise ConfigError(
                f"seed {self.seed} and reservoir {self.reservoir} cannot take in seed {other.seed} and reservoir "
                f"{other.reservoir}; set both up alike"
            )
        dimensions = {side.kept.shape[1] for each in (self, other) for side in each._sides.values()}
        if len(dimensions) > 1:
            raise DataError(f"features of {sorted(dimensions)} dimensions; take all from the same extractor")
        for real, side in other._sides.items():
            if real not in self._sides:
                self._sides[real] = _Side(side.kept.shape[1], self.reservoir, self.seed)
            self._sides[real].merge(side)

    def compute(self) -> tuple[MetricValue, ...]:
        for which, what in ((True, "real"), (False, "generated")):
            if which in self._sides:
                self._sides[which].flush()
            at_least_two(self._sides[which].seen if which in self._sides else 0, what)
        real, fake = self._sides[True], self._sides[False]
        first, second = real.whole(), fake.whole()
        influence = Influence.between(first.mean, first.covariance(), second.mean, second.covariance())
        low, high = self._spread(influence, first.mean, second.mean)
        value, limit = influence.value, _limit(influence.value, first.count, second.count, real.halves, fake.halves)
        note = _note(first, second, value, limit)
        ends = (max(0.0, value + low), value + high)
        figures = (MetricValue("frechet_distance", value, *ends, second.count, better="lower", note=note),)
        if limit is None:
            return figures
        ends = (limit + low, limit + high)
        note = "extrapolated to endless images on both sides"
        return (
            *figures,
            MetricValue("frechet_distance_infinity", limit, *ends, second.count, better="lower", note=note),
        )

    def _spread(self, influence: Influence, mean1: Tensor, mean2: Tensor) -> tuple[float, float]:
        """The ends of the confidence interval relative to the value."""
        real, fake = self._sides[True], self._sides[False]
        samples = [influence.real(real.kept, mean1), influence.fake(fake.kept, mean2)]
        # The mean of the kept sample has a larger standard error than the mean of all images.
        samples = [s * (len(s) / side.seen) ** 0.5 for s, side in zip(samples, (real, fake), strict=True)]
        return interval(samples, lambda means: means[0] + means[1], seed=self.seed)


def _limit(
    value: float, real_count: int, fake_count: int, real: Sequence[Moments], fake: Sequence[Moments]
) -> float | None:
    """Intercept of the line in 1/N; None if a set has fewer than 4 images, whose halves have no covariance."""
    points = [(1.0, value)]
    for x, y in zip(real, fake, strict=True):
        if min(x.count, y.count) < 2:
            return None
        inverse = (real_count / x.count + fake_count / y.count) / 2  # 1/N relative to that of all images
        points.append((inverse, frechet_distance(x.mean, x.covariance(), y.mean, y.covariance())))
    inverses, distances = np.array(points).T
    centred = inverses - inverses.mean()
    slope = float(centred @ distances / (centred @ centred))
    return float(distances.mean()) - slope * float(inverses.mean())


def _note(real: Moments, fake: Moments, value: float, limit: float | None) -> str:
    dimension = len(real.mean)
    for moments, what in ((real, "real"), (fake, "generated")):
        if float(moments.scatter.diagonal().sum()) == 0:
            return f"all {moments.count:,} {what} images have the same features"
    fewest = min(real.count, fake.count)
    if fewest > dimension:
        return ""
    excess = f"by about {value - limit:.3g}" if limit is not None else "by an unknown amount"
    return (
        f"{fewest:,} images are not more than the {dimension:,} feature dimensions: a covariance is singular, "
        f"and the distance too large {excess}"
    )
