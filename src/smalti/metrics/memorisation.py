"""Does a generator copy its training images? Three answers from nearest neighbours in feature space.

    d(x)           distance of x to its nearest training image t(x)
    C_T            z of the Mann-Whitney test of d(generated) against d(held-out), within cells of the feature space,
                   averaged with the held-out images' shares; below 0: nearer to the training set than new images are
    authenticity   share of generated y with d(y) > distance of t(y) to its own nearest other training image
    copied share   (H - F) / (T - F), with H, F, T the shares of generated, held-out and planted images with
                   r(x) = d(x) / (mean distance of t(x) to its k nearest other training images) below a threshold

Sources: Meehan, Chaudhuri and Dasgupta 2020, arXiv:2004.05675 (C_T); Alaa et al. 2022, arXiv:2102.08921 (authenticity).
The copied share is ours: C_T sees that all images are a little too near, the share sees that a few are copies. The
planted copies are features of training images after slight damage, as a generator's copies are; they say how many
copies the threshold misses, and held-out images how many it invents: photographs of the same scene, or near
duplicates between training and test set. Layout: features (N, D), one row an image.
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

NEIGHBOURS = 5  # of a training image, for the scale of its surroundings
SUSPECTS = 64  # generated images listed with their nearest training image
SIGNIFICANT = 0.01  # a p-value below counts as copies found
_CELLS = 10
_CELL_IMAGES = 50  # wanted in a cell, of held-out and of generated images, on average
_FEWEST = 20  # a cell with fewer of either says nothing
_QUANTILE = 0.001  # share of held-out images below the threshold where no copies are planted


@dataclass(frozen=True)
class SuspectedCopy:
    """A generated image, the training image nearest to it, and r: the smaller, the more of a copy."""

    fake: int
    training: int
    ratio: float


@dataclass(frozen=True)
class Memorisation:
    """What was found.

    Attributes:
        figures: `copied_share`, `authenticity`, `c_t`; the last is missing where no cell has enough images.
        p_value: how likely as many or more hits are among the generated images if they copy no more than held-out
            images seem to (Fisher's exact test, one-sided).
        detected: p_value < SIGNIFICANT.
        threshold: of the ratio.
        hits, false_hits, true_hits: shares of generated, held-out and planted images below it; true_hits is None
            where no copies were planted.
        ratios: (M,) float32, r of every generated image, for a histogram.
        held_out_ratios: (N,) float32, r of every held-out image.
        nearest_training: the most suspicious generated images, the worst first.
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
    """Look for copies of training images.

    Args:
        training: (T, D) floats, the images that the generator learned from, all of them: a copy of one that is left
            out is not found.
        held_out: (N, D) floats, images of the same kind that it never saw.
        fake: (M, D) floats, what it generated.
        planted: (P, D) floats, features of some training images after slight damage; without them the share counts
            only copies nearer than almost every held-out image, and is a lower bound.
        seed: of the cells and the intervals.
        neighbours: k of the ratio.

    Returns:
        Figures, test and suspects.

    Raises:
        DataError: fewer than 2 images in a set, no more than `neighbours` training images, unlike D, NaN.
    """
    training = checked(training, what="training features").float().contiguous()
    sets = {"held-out": held_out, "generated": fake} | ({} if planted is None else {"planted": planted})
    for what, features in sets.items():
        sets[what] = checked(features, dimension=training.shape[1], what=f"{what} features").float().contiguous()
        at_least_two(len(features), what)
    if len(training) <= neighbours:
        raise DataError(f"{len(training)} training images given, expected more than their {neighbours} neighbours")
    near = _Nearness.of(training, sets, neighbours)
    ratios = near.ratios["generated"]
    threshold = _threshold(near.ratios["held-out"], near.ratios.get("planted"))
    hits = {what: (values < threshold).astype(np.float64) for what, values in near.ratios.items()}
    copied = _copied_share(hits, seed)
    p_value = _exceeds_by_chance(hits["generated"], hits["held-out"])
    authentic = near.distances["generated"] > near.closest["generated"]
    figures = [
        copied,
        MetricValue("authenticity", float(authentic.mean()), *mean_interval(authentic, seed=seed), len(fake), "higher"),
    ]
    cells = _cells(training, sets, seed)
    c_t = _c_t(near.distances["generated"], near.distances["held-out"], cells["generated"], cells["held-out"], seed)
    order = np.argsort(ratios, kind="stable")[:SUSPECTS]
    return Memorisation(
        figures=(*figures, c_t) if c_t is not None else tuple(figures),
        p_value=p_value,
        detected=p_value < SIGNIFICANT,
        threshold=threshold,
        hits=float(hits["generated"].mean()),
        false_hits=float(hits["held-out"].mean()),
        true_hits=float(hits["planted"].mean()) if planted is not None else None,
        ratios=ratios,
        held_out_ratios=near.ratios["held-out"],
        nearest_training=tuple(
            SuspectedCopy(int(row), int(near.numbers["generated"][row]), float(ratios[row])) for row in order
        ),
    )


@dataclass(frozen=True)
class _Nearness:
    """Of each set: distance to the nearest training image, which it is, how near that one's nearest is, and r."""

    distances: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    closest: dict[str, np.ndarray]
    ratios: dict[str, np.ndarray]

    @classmethod
    def of(cls, training: Tensor, sets: dict[str, Tensor], neighbours: int) -> _Nearness:
        found = {what: nearest(features, training) for what, features in sets.items()}
        numbers = {what: index[:, 0] for what, (_, index) in found.items()}
        # Only training images that are somebody's nearest need neighbours of their own.
        used, place = torch.cat(list(numbers.values())).unique(return_inverse=True)
        if 2 * len(used) < len(training):
            around, _ = nearest(training[used], training, neighbours, own=used)
        else:
            around = nearest(training, training, neighbours, exclude_self=True)[0][used]
        distances, closest, ratios = {}, {}, {}
        for what, rows in zip(sets, place.split([len(rows) for rows in numbers.values()]), strict=True):
            distance = found[what][0][:, 0]
            distances[what], closest[what] = distance.numpy(), around[rows, 0].numpy()
            # Among duplicates in the training set 0 / 0 is a copy, and anything else over 0 is none.
            ratio = torch.where(distance == 0, torch.zeros(()), distance / around[rows].mean(1))
            ratios[what] = ratio.numpy()
        return cls(distances, {what: index.numpy() for what, index in numbers.items()}, closest, ratios)


def _threshold(held_out: np.ndarray, planted: np.ndarray | None) -> float:
    """The ratio below which an image counts as a copy.

    With planted copies the one that makes few copies stand out most: greatest (T - F) / sqrt(F + 1/N), their number
    over the noise in counting what held-out images invent; the 1/N stands for what N images are too few to show.
    """
    if planted is None:
        return float(np.quantile(held_out, _QUANTILE))
    steps = np.unique(np.quantile(planted, np.linspace(0.02, 1, 99)))
    steps = np.nextafter(steps.astype(np.float32), np.float32(np.inf))
    false_hits = np.searchsorted(np.sort(held_out), steps) / len(held_out)
    true_hits = np.searchsorted(np.sort(planted), steps) / len(planted)
    return float(steps[np.argmax((true_hits - false_hits) / np.sqrt(false_hits + 1 / len(held_out)))])


def _copied_share(hits: dict[str, np.ndarray], seed: int) -> MetricValue:
    names = [name for name in ("generated", "held-out", "planted") if name in hits]

    def share(means: list[np.ndarray]) -> np.ndarray:
        seen, invented = means[0], means[1]
        found = means[2] if len(means) > 2 else np.ones_like(seen)
        return np.clip((seen - invented) / np.maximum(found - invented, 0.01), 0, 1)

    value = float(share([np.array([hits[name].mean()]) for name in names])[0])
    low, high = interval([hits[name] for name in names], lambda means: share(list(means)), seed=seed)
    if not hits["generated"].any():  # nothing to draw, but a few copies may not have come up
        found = hits["planted"].mean() if "planted" in hits else 1.0
        high = min(1.0, unseen_share(len(hits["generated"])) / max(found - hits["held-out"].mean(), 0.01))
    note = ""
    if "planted" not in hits:
        note = "no copies were planted: only copies nearer than almost every held-out image count"
    elif hits["planted"].mean() - hits["held-out"].mean() < 0.2:
        note = "these features tell few of the planted copies from new images: take the share with care"
    return MetricValue("copied_share", value, low, high, len(hits["generated"]), better="lower", note=note)


def _exceeds_by_chance(fake: np.ndarray, held_out: np.ndarray) -> float:
    """Fisher's exact test: the chance that a random draw of as many images has as many hits as `fake`, or more."""
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
    """Which cell each held-out and generated image is in: k-means of the training set, 20 rounds of Lloyd's."""
    count = min(len(sets["held-out"]), len(sets["generated"])) // _CELL_IMAGES
    count = max(1, min(_CELLS, count))
    generator = seeded_generator(seed, count)
    sample = training[torch.randperm(len(training), generator=generator)[: 500 * count]]
    centres = sample[:1].clone()
    for _ in range(1, min(count, len(sample))):  # k-means++: far points are likelier to begin a cell
        far = torch.cdist(sample, centres).amin(1).square()
        if not float(far.sum()):
            break
        centres = torch.cat([centres, sample[torch.multinomial(far, 1, generator=generator)]])
    for _ in range(20):
        cell = torch.cdist(sample, centres).argmin(1)
        sizes = torch.bincount(cell, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, cell, sample)
        centres = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp_min(1), centres)
    return {
        what: torch.cat([torch.cdist(rows, centres).argmin(1) for rows in sets[what].split(BLOCK)]).numpy()
        for what in ("held-out", "generated")
    }


def _c_t(
    fake: np.ndarray, held_out: np.ndarray, fake_cells: np.ndarray, held_out_cells: np.ndarray, seed: int
) -> MetricValue | None:
    """C_T from distances to the training set (M,), (N,) and the cells they fall in."""
    fake_parts, held_out_parts = np.zeros(len(fake)), np.zeros(len(held_out))
    value = weights = 0.0
    for cell in np.unique(held_out_cells):
        x, y = held_out_cells == cell, fake_cells == cell
        n, m = int(x.sum()), int(y.sum())
        if min(n, m) < _FEWEST:
            continue
        # How many held-out images each generated one lies farther out than, ties by half; and the other way round.
        above = _placement(fake[y], held_out[x])
        below = 1 - _placement(held_out[x], fake[y])
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


def _placement(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of the others below each value, ties counted by half."""
    others = np.sort(others)
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * len(others))
