"""Memorisation of training images by a generator: three measures from nearest neighbours in feature space.

    d(x)           distance from x to its nearest training image t(x)
    C_T            z statistic of the Mann-Whitney test of d(generated) against d(held-out), per cell of the feature
                   space, averaged with the held-out images as weights; negative: nearer to the training set than
                   held-out images are
    authenticity   proportion of generated y for which d(y) exceeds the distance from t(y) to its nearest other
                   training image
    copied share   (H - F) / (T - F), with H, F, T the proportions of generated, held-out and planted images whose
                   r(x) = d(x) / (mean distance from t(x) to its k nearest other training images) is below a threshold

Sources: Meehan, Chaudhuri and Dasgupta 2020, arXiv:2004.05675 (C_T); Alaa et al. 2022, arXiv:2102.08921 (authenticity).
The copied share is our own: C_T detects that all images are slightly too near, the copied share that a few are copies.
Planted copies are training images with slight degradations, like those of a generator. They give the true positive rate
of the threshold; held-out images give its false positive rate, caused by photographs of the same scene or by
near-duplicates between the training and the test set. Layout: features (N, D), one row per image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smalti.errors import DataError
from smalti.metrics.bootstrap import interval, mean_interval, unseen_share
from smalti.metrics.metric import MetricValue
from smalti.metrics.neighbours import nearest
from smalti.metrics.vectors import BLOCK, at_least_two, checked
from smalti.runtime.rng import seeded_generator

NEIGHBOURS = 5  # k, for the local scale around a training image
SUSPECTS = 64  # generated images listed with their nearest training image
SIGNIFICANT = 0.01  # significance level of the test for copies
_CELLS = 10  # at most
_CELL_IMAGES = 50  # target mean number of held-out and of generated images per cell
_FEWEST = 20  # cells with fewer images of either set are skipped
_QUANTILE = 0.001  # quantile of the held-out images that sets the threshold if no copies are planted


@dataclass(frozen=True)
class SuspectedCopy:
    """A generated image that may be a copy.

    Attributes:
        fake: index of the generated image.
        training: index of its nearest training image.
        ratio: r; the smaller, the more likely a copy.
    """

    fake: int
    training: int
    ratio: float


@dataclass(frozen=True)
class Memorisation:
    """The memorisation measures of a generator.

    Attributes:
        figures: the metric values `copied_share`, `authenticity` and `c_t`; the last is absent if no cell has enough
            images.
        p_value: of a one-sided Fisher's exact test of whether more generated than held-out images lie below the
            threshold.
        detected: p_value < SIGNIFICANT.
        threshold: value of r below which an image counts as a copy.
        hits, false_hits, true_hits: proportions of generated, held-out and planted images below the threshold;
            true_hits is None if no copies were planted.
        ratios: (M,) float32, r of each generated image, for a histogram.
        held_out_ratios: (N,) float32, r of each held-out image.
        nearest_training: the generated images most likely to be copies, in ascending order of r.
    """

    figures: tuple[MetricValue, ...]
    p_value: float
    detected: bool
    threshold: float
    hits: float
    false_hits: float
    true_hits: float | None
    ratios: np.ndarray
    held_out_ratios: np.ndarray
    nearest_training: tuple[SuspectedCopy, ...]


def measure_memorisation(
    training: Tensor,
    held_out: Tensor,
    fake: Tensor,
    *,
    planted: Tensor | None = None,
    seed: int = 0,
    neighbours: int = NEIGHBOURS,
) -> Memorisation:
    """Measure how far a generator copies its training images.

    Args:
        training: (T, D) floats, features of the complete training set; copies of images left out are not found.
        held_out: (N, D) floats, features of images from the same distribution that were not trained on.
        fake: (M, D) floats, features of generated images.
        planted: (P, D) floats, features of slightly degraded training images; without them the copied share counts
            only images nearer than almost every held-out image, and is a lower bound.
        seed: seed of the cells and of the bootstrap.
        neighbours: k of the ratio r.

    Returns:
        The metric values, the test and the most likely copies.

    Raises:
        DataError: a set has fewer than 2 images, there are no more than `neighbours` training images, D differs, or
            there are NaN or infinite values.
    """
    training = checked(training, what="training features").float().contiguous()
    sets = {"held-out": held_out, "generated": fake} | ({} if planted is None else {"planted": planted})
    for what, features in sets.items():
        sets[what] = checked(features, dimension=training.shape[1], what=f"{what} features").float().contiguous()
        at_least_two(len(features), what)
    if len(training) <= neighbours:
        raise DataError(f"{len(training)} training images given, expected more than their {neighbours} neighbours")
    near = _TrainingNeighbours.of(training, sets, neighbours)
    threshold = _threshold(near.ratios["held-out"], near.ratios.get("planted"))
    hits = {what: (values < threshold).astype(np.float64) for what, values in near.ratios.items()}
    cells = _cells(training, sets, seed)
    c_t = _c_t(near.distances["generated"], near.distances["held-out"], cells["generated"], cells["held-out"], seed)
    values = (_copied_share(hits, seed), _authenticity(near, seed))
    p_value = _fisher_p_value(hits["generated"], hits["held-out"])
    return Memorisation(
        figures=values if c_t is None else (*values, c_t),
        p_value=p_value,
        detected=p_value < SIGNIFICANT,
        threshold=threshold,
        hits=float(hits["generated"].mean()),
        false_hits=float(hits["held-out"].mean()),
        true_hits=float(hits["planted"].mean()) if planted is not None else None,
        ratios=near.ratios["generated"],
        held_out_ratios=near.ratios["held-out"],
        nearest_training=_suspects(near),
    )


@dataclass(frozen=True)
class _TrainingNeighbours:
    """The nearest training image of each image, by the name of the set.

    Attributes:
        distances: (N,) distance d to the nearest training image.
        indices: (N,) index of that training image.
        spacings: (N,) distance from that training image to its own nearest other training image.
        ratios: (N,) r.
    """

    distances: dict[str, np.ndarray]
    indices: dict[str, np.ndarray]
    spacings: dict[str, np.ndarray]
    ratios: dict[str, np.ndarray]

    @classmethod
    def of(cls, training: Tensor, sets: dict[str, Tensor], neighbours: int) -> _TrainingNeighbours:
        found = {what: nearest(features, training) for what, features in sets.items()}
        indices = {what: index[:, 0].numpy() for what, (_, index) in found.items()}
        # Only training images that are the nearest of some image need neighbours of their own.
        used, position = np.unique(np.concatenate(list(indices.values())), return_inverse=True)
        own = torch.from_numpy(used)
        if 2 * len(used) < len(training):
            around, _ = nearest(training[own], training, neighbours, own=own)
        else:
            around = nearest(training, training, neighbours, exclude_self=True)[0][own]
        distances, spacings, ratios = {}, {}, {}
        ends = np.cumsum([len(rows) for rows in indices.values()])
        for what, rows in zip(sets, np.split(position, ends[:-1]), strict=True):
            distance, local = found[what][0][:, 0], around[torch.from_numpy(rows)]
            distances[what], spacings[what] = distance.numpy(), local[:, 0].numpy()
            # Around duplicates in the training set, 0 / 0 means a copy and a positive distance over 0 does not.
            ratio = torch.where(distance == 0, torch.zeros(()), distance / local.mean(1))
            ratios[what] = ratio.numpy()
        return cls(distances, indices, spacings, ratios)


def _authenticity(near: _TrainingNeighbours, seed: int) -> MetricValue:
    authentic = near.distances["generated"] > near.spacings["generated"]
    ends = mean_interval(authentic, seed=seed)
    return MetricValue("authenticity", float(authentic.mean()), *ends, len(authentic), "higher")


def _suspects(near: _TrainingNeighbours) -> tuple[SuspectedCopy, ...]:
    ratios, indices = near.ratios["generated"], near.indices["generated"]
    order = np.argsort(ratios, kind="stable")[:SUSPECTS]
    return tuple(SuspectedCopy(int(row), int(indices[row]), float(ratios[row])) for row in order)


def _threshold(held_out: np.ndarray, planted: np.ndarray | None) -> float:
    """Value of r below which an image counts as a copy.

    With planted copies it maximises (T - F) / sqrt(F + 1/N), the excess of true over false positives relative to the
    standard error of the number of false positives; 1/N is the resolution of F over N held-out images. Without planted
    copies it is a low quantile of the held-out images.
    """
    if planted is None:
        return float(np.quantile(held_out, _QUANTILE))
    steps = np.unique(np.quantile(planted, np.linspace(0.02, 1, 99)))
    steps = np.nextafter(steps.astype(np.float32), np.float32(np.inf))
    false_hits = np.searchsorted(np.sort(held_out), steps) / len(held_out)
    true_hits = np.searchsorted(np.sort(planted), steps) / len(planted)
    best = np.argmax((true_hits - false_hits) / np.sqrt(false_hits + 1 / len(held_out)))
    return float(steps[best])


def _copied_share(hits: dict[str, np.ndarray], seed: int) -> MetricValue:
    names = [name for name in ("generated", "held-out", "planted") if name in hits]

    def share(means: list[np.ndarray]) -> np.ndarray:
        hit_rate, false_rate = means[0], means[1]
        true_rate = means[2] if len(means) > 2 else np.ones_like(hit_rate)
        ratio: np.ndarray = np.clip((hit_rate - false_rate) / np.maximum(true_rate - false_rate, 0.01), 0, 1)
        return ratio

    value = float(share([np.array([hits[name].mean()]) for name in names])[0])
    low, high = interval([hits[name] for name in names], lambda means: share(list(means)), seed=seed)
    if not hits["generated"].any():  # all resamples would be 0, although rare copies may be missing from the sample
        true_rate = hits["planted"].mean() if "planted" in hits else 1.0
        high = min(1.0, unseen_share(len(hits["generated"])) / max(true_rate - hits["held-out"].mean(), 0.01))
    note = ""
    if "planted" not in hits:
        note = "no copies were planted: only copies nearer than almost every held-out image count"
    elif hits["planted"].mean() - hits["held-out"].mean() < 0.2:
        note = "these features tell few of the planted copies from new images: take the share with care"
    return MetricValue("copied_share", value, low, high, len(hits["generated"]), better="lower", note=note)


def _fisher_p_value(fake: np.ndarray, held_out: np.ndarray) -> float:
    """One-sided Fisher's exact test of whether `fake` has a higher rate of hits than `held_out`."""
    draws, others = len(fake), len(held_out)
    seen = int(fake.sum())
    total = seen + int(held_out.sum())

    def log_choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    whole = log_choose(draws + others, total)
    terms = [
        log_choose(draws, hits) + log_choose(others, total - hits) - whole
        for hits in range(max(seen, total - others), min(total, draws) + 1)
    ]
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def _cells(training: Tensor, sets: dict[str, Tensor], seed: int) -> dict[str, np.ndarray]:
    """Cell of each held-out and generated image, from k-means of the training set (20 Lloyd iterations)."""
    count = min(len(sets["held-out"]), len(sets["generated"])) // _CELL_IMAGES
    count = max(1, min(_CELLS, count))
    generator = seeded_generator(seed, count)
    sample = training[torch.randperm(len(training), generator=generator)[: 500 * count]]
    centres = sample[:1].clone()
    for _ in range(1, min(count, len(sample))):  # k-means++: sampled in proportion to the squared distance
        squared = torch.cdist(sample, centres).amin(1).square()
        if not float(squared.sum()):
            break
        centres = torch.cat([centres, sample[torch.multinomial(squared, 1, generator=generator)]])
    for _ in range(20):
        cell = torch.cdist(sample, centres).argmin(1)
        sizes = torch.bincount(cell, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, cell, sample)
        centres = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp_min(1), centres)
    return {
        what: torch.cat([torch.cdist(rows, centres).argmin(1) for rows in torch.split(sets[what], BLOCK)]).numpy()
        for what in ("held-out", "generated")
    }


def _c_t(
    fake: np.ndarray, held_out: np.ndarray, fake_cells: np.ndarray, held_out_cells: np.ndarray, seed: int
) -> MetricValue | None:
    """C_T from the distances to the training set, (M,) and (N,), and the cell of each image; None without any cell."""
    fake_parts, held_out_parts = np.zeros(len(fake)), np.zeros(len(held_out))
    value = weights = 0.0
    for cell in np.unique(held_out_cells):
        x, y = held_out_cells == cell, fake_cells == cell
        n, m = int(x.sum()), int(y.sum())
        if min(n, m) < _FEWEST:
            continue
        # Proportion of held-out images that each generated one is farther out than, and vice versa; ties count half.
        above = _fraction_below(fake[y], held_out[x])
        below = 1 - _fraction_below(held_out[x], fake[y])
        _, ties = np.unique(np.concatenate([fake[y], held_out[x]]), return_counts=True)
        total = n + m
        variance = n * m / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
        scale = n * m / math.sqrt(variance) if variance > 0 else 0.0
        value += n * scale * (above.mean() - 0.5)
        weights += n
        fake_parts[y] = n * scale * (above - above.mean()) * len(fake) / m
        held_out_parts[x] = n * scale * (below - below.mean()) * len(held_out) / n
    if not weights:
        return None
    value /= weights
    low, high = interval(
        [fake_parts / weights, held_out_parts / weights], lambda means: value + means[0] + means[1], seed=seed
    )
    return MetricValue(
        "c_t", value, low, high, len(fake), note="below 0: nearer to the training images than held-out images are"
    )


def _fraction_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Fraction of the others below each value; ties count half."""
    others = np.sort(others)
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * len(others))
