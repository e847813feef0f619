"""Known cases: does each figure react as its theory says, on these images and with this extractor?

    two real halves    nothing to find: KID's interval holds 0, density is 1 and coverage 1 - prod_i (n - i)/(n + m - i)
    blurred            farther than the floor (two real halves of as many images), and less variety
    noisy              farther than the floor, and fewer images covered
    classes dropped    farther, less coverage; precision falls by less, for what is left is as real as before
    copies             distance 0, and every memorisation figure sees it; a fifth of copies is found
    noise images       farther than every other case; covers nothing
    reconstructions    PSNR, SSIM and perceptual distance get worse with each step of blur

What has no law is held against the floor: a figure must lie beyond the ends of its interval in each of three random
pairs of halves. No limit is tuned to a data set, but an extractor must see a flaw for a figure to react: one that fails
for dropped classes alone does not see the classes. Those that are dropped lie together in its features.

Some reactions that one might expect are not asked for, because theory does not promise them. Precision and coverage
need not fall under blur, which draws images towards the middle of the reference (on photographs precision rises), nor
precision for noise images, because one outlier's ball can hold half of them, nor recall with every dropped class.

Layout: images (N, H, W, C) uint8.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smalti.errors import DataError
from smalti.evaluation import cases
from smalti.features.cache import ArrayImages, Progress, collect
from smalti.features.extractor import Extractor
from smalti.metrics.distortion import PeakSignalToNoise
from smalti.metrics.distribution import measure_distribution
from smalti.metrics.memorisation import Memorisation, measure_memorisation
from smalti.metrics.metric import MetricValue, PairMetric
from smalti.metrics.perceptual import PerceptualDistance
from smalti.metrics.ssim import StructuralSimilarity, TooSmallError
from smalti.report.record import TITLES, decimals, span, written
from smalti.runtime.rng import mix, seeded_generator

FEWEST = 400  # images; with fewer, nothing much can be seen in their halves
HALVES = 3  # random pairs of halves that make the floor
BLURS = (0.5, 1.0, 2.0)  # sigma of the reconstructions, in pixels
PLANTED = 0.2  # share of copies in a generator's output
CLUSTERS = 6  # in place of classes, where there are none
ENOUGH = 0.2  # share of the images in the classes that are dropped
ALARM = 4.0  # standard errors, where a figure has a standard error and a law
CHANCE = 0.001  # p-values below it are no chance
RECONSTRUCTED = 200  # images, of the fresh half
PERCEPTUAL_IMAGES = 32
_BATCH = 64

Figures = dict[str, MetricValue]


@dataclass(frozen=True)
class Check:
    """One expectation.

    Attributes:
        case: what was done to the images.
        figure: what was measured.
        theory: what must be so, in words, with the limit as a number.
        ok: whether it is.
    """

    case: str
    figure: MetricValue
    theory: str
    ok: bool


@dataclass(frozen=True)
class DoctorReport:
    """All checks, in the order of the cases.

    Attributes:
        checks: at least one a case.
        images: how many were used.
        extractor: its name.
        seed: as given.
    """

    checks: tuple[Check, ...]
    images: int
    extractor: str
    seed: int

    @property
    def ok(self) -> bool:
        """Whether everything is as theory says."""
        return all(check.ok for check in self.checks)

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Header and rows as text: case, figure, value with its interval, theory, verdict."""
        rows: list[tuple[str, ...]] = []
        for check in self.checks:
            figure = check.figure
            digits = decimals(figure.value, figure.low, figure.high)
            interval = span(figure.low, figure.high, digits)
            value = written(figure.value, digits) + (f" ({interval})" if interval else "")
            name = TITLES.get(figure.name, figure.name.replace("_", " "))
            rows.append((check.case, name, value, check.theory, "ok" if check.ok else "NOT as theory says"))
        return ("case", "figure", "value", "theory", "verdict"), rows


def run_doctor(
    images: np.ndarray,
    labels: np.ndarray | None,
    extractor: Extractor,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> DoctorReport:
    """Measure the known cases and hold each figure against its theory.

    Args:
        images: (N, H, W, C) uint8, N from 400, of one kind and in any order; the extractor sees each about two and a
            half times. With 1,000 or more the figures have room to react.
        labels: (N,) integers, for the classes that are dropped; None takes clusters of features instead.
        extractor: what looks at the images.
        seed: any integer from 0, of the halves and of everything that is drawn.
        progress: called with (images the extractor has seen, images it will see).
        cache: the cache folder for features; None keeps none.

    Raises:
        DataError: too few images, labels that do not fit, all images alike, or features that are not finite.
    """
    if labels is not None and labels.shape != (len(images),):
        raise DataError(f"{len(images)} images need as many labels, but these have shape {labels.shape}")
    if len(images) < FEWEST:
        raise DataError(f"{len(images)} images are too few to see how figures react; give at least {FEWEST}")
    order = np.random.default_rng([seed, 10]).permutation(len(images))
    half = len(images) // 2
    training, fresh = images[order[:half]], images[order[half : 2 * half]]
    known = _look(training, fresh, extractor, seed, progress, cache)
    if float(known["training"].var(dim=0).sum()) == 0:
        raise DataError("all images have the same features; the cases can show nothing on them")
    groups = _groups(None if labels is None else labels[order[half : 2 * half]], known["fresh"], seed)
    floor = _Floor(known["training"], known["fresh"], seed)
    changed = {
        name: _measured(known["training"], known[name], seed) for name in ("blurred", "noisy", "random", "training")
    }
    checks = [
        *_two_halves(floor, half),
        *_farther("blurred, sigma 1", changed["blurred"], floor, "recall"),
        *_farther("5 % noise", changed["noisy"], floor, "coverage"),
        *_dropped(known, groups, seed),
        *_copied(changed["training"], floor),
        *_memorised(known, seed),
        *_noise_images(changed["random"], (changed["blurred"], changed["noisy"])),
        *_reconstructions(fresh[:RECONSTRUCTED], extractor),
    ]
    return DoctorReport(tuple(checks), 2 * half, extractor.name, seed)


def _look(
    training: np.ndarray,
    fresh: np.ndarray,
    extractor: Extractor,
    seed: int,
    progress: Progress | None,
    cache: Path | None,
) -> dict[str, Tensor]:
    """The features of every set of images that the cases need."""
    few = max(2, round(PLANTED * len(fresh) / 2))  # of the half of `fresh` that stands for a generator's output
    generator = np.random.default_rng([seed, 11])
    sets = {
        "training": training,
        "fresh": fresh,
        "blurred": cases.blurred(fresh, 1.0),
        "noisy": cases.noisy(fresh, std=0.05, seed=seed),
        "random": generator.integers(0, 256, fresh.shape, dtype=np.uint8)[: max(FEWEST // 4, len(fresh) // 4)],
        # What is planted, and what the detector is calibrated by, are copies of different images.
        "copies": cases.degraded_copies(training[::2], few, seed=mix(seed, 1)).images,
        "planted": cases.degraded_copies(training[1::2], max(few, 50), seed=mix(seed, 2)).images,
    }
    total, done, found = sum(map(len, sets.values())), 0, {}
    for name, pixels in sets.items():

        def report(seen: int, _: int | None, before: int = done) -> None:
            if progress is not None:
                progress(before + seen, total)

        if cache is not None:
            found[name] = collect(ArrayImages(pixels), extractor, cache=cache, batch=_BATCH, progress=report)
        else:
            parts = []
            for start in range(0, len(pixels), _BATCH):
                parts.append(extractor.features(pixels[start : start + _BATCH]))
                report(min(start + _BATCH, len(pixels)), None)
            found[name] = torch.cat(parts)
        done += len(pixels)
    return found


def _measured(real: Tensor, fake: Tensor, seed: int) -> Figures:
    return {figure.name: figure for figure in measure_distribution(real, fake, seed=seed)}


class _Floor:
    """The figures of real images against real images: of the two halves, and of other random pairs of halves."""

    def __init__(self, first: Tensor, second: Tensor, seed: int) -> None:
        both = torch.cat([first, second])
        self.halves = _measured(first, second, seed)
        self.others = []
        for number in range(1, HALVES):
            order = torch.randperm(len(both), generator=seeded_generator(seed, 12, number))
            pair = both[order[: len(first)]], both[order[len(first) :]]
            self.others.append(_measured(*pair, seed))

    def highest(self, name: str) -> float:
        """The upper end of a figure's intervals."""
        return max(_ends(figures[name])[1] for figures in (self.halves, *self.others))

    def lowest(self, name: str) -> float:
        """The lower end of a figure's intervals."""
        return min(_ends(figures[name])[0] for figures in (self.halves, *self.others))


# The cases


def _two_halves(floor: _Floor, count: int) -> Iterable[Check]:
    case = "two real halves"
    distance, kernel = floor.halves["frechet_distance"], floor.halves["kernel_distance"]
    ends = [_ends(figures["frechet_distance"]) for figures in floor.others]
    yield Check(
        case,
        distance,
        f"as far apart as other halves are, {_number(min(low for low, _ in ends))} to "
        f"{_number(max(high for _, high in ends))}",
        any(_ends(distance)[0] <= high and low <= _ends(distance)[1] for low, high in ends),
    )
    error = _error(kernel)
    yield Check(case, kernel, "0, to within chance", abs(kernel.value) <= ALARM * error)
    neighbours = 5
    expected = 1 - math.prod((count - i) / (2 * count - i) for i in range(1, neighbours + 1))
    for name, law in (("density", 1.0), ("coverage", expected)):
        figure = floor.halves[name]
        within = ALARM * _share_error(figure)
        yield Check(case, figure, f"{law:.3f}, to within chance", abs(figure.value - law) <= within)
    precision, recall = floor.halves["precision"], floor.halves["recall"]
    within = ALARM * math.hypot(_share_error(precision), _share_error(recall))
    yield Check(
        case,
        precision,
        f"that of recall, {_number(recall.value)}, to within chance",
        abs(precision.value - recall.value) <= within,
    )


def _farther(case: str, found: Figures, floor: _Floor, less: str) -> Iterable[Check]:
    for name in ("frechet_distance", "kernel_distance"):
        yield _above(case, found[name], floor.highest(name), "above every pair of real halves")
    yield _below(case, found[less], floor.lowest(less), "below every pair of real halves")


def _dropped(known: dict[str, Tensor], groups: np.ndarray, seed: int) -> Iterable[Check]:
    """A part of the classes missing, against random samples of as many images.

    Held against the same training half, the samples share its luck, and differ by far less than their intervals say:
    the limit is the worst of them, and as much again as they differ.
    """
    kept = torch.from_numpy(~np.isin(groups, _to_drop(groups, known["fresh"])))
    left = known["fresh"][kept]
    samples = []
    for number in range(HALVES):
        order = torch.randperm(len(kept), generator=seeded_generator(seed, 13, number))
        samples.append(_measured(known["training"], known["fresh"][order[: len(left)]], seed))
    fair = {name: [sample[name].value for sample in samples] for name in samples[0]}
    found = _measured(known["training"], left, seed)
    case = "classes dropped"
    words = f"beyond {HALVES} random samples of {len(left):,} images, as many as are left"
    for name in ("frechet_distance", "kernel_distance"):
        yield _above(case, found[name], 2 * max(fair[name]) - min(fair[name]), words)
    yield _below(case, found["coverage"], 2 * min(fair["coverage"]) - max(fair["coverage"]), words)
    lost = {name: float(np.mean(fair[name])) - found[name].value for name in ("coverage", "precision")}
    yield Check(
        case,
        found["precision"],
        f"falls by less than coverage, which falls by {_number(lost['coverage'])}",
        lost["precision"] < lost["coverage"],
    )


def _copied(found: Figures, floor: _Floor) -> Iterable[Check]:
    case = "all copied from training"
    distance = floor.halves["frechet_distance"].value
    yield _below(case, found["frechet_distance"], 0.001 * distance, "0, to within a thousandth of the floor")
    kernel = found["kernel_distance"]
    # Without bias, two equal sets come out nearer than two samples of one distribution.
    yield Check(case, kernel, "at or below 0", kernel.value <= max(0.0, ALARM * _error(kernel)))
    for name in ("precision", "recall", "coverage"):
        yield Check(
            case, found[name], "1, but for duplicates among the images", found[name].value >= floor.highest(name)
        )


def _memorised(known: dict[str, Tensor], seed: int) -> Iterable[Check]:
    """Half of the fresh images stand for those held out, the other half for a generator's output."""
    middle = len(known["fresh"]) // 2
    held_out, fresh = known["fresh"][:middle], known["fresh"][middle:]
    copies = known["copies"]

    def look(fake: Tensor) -> Memorisation:
        return measure_memorisation(known["training"], held_out, fake, planted=known["planted"], seed=seed)

    honest = look(fresh)
    case = "generated anew"
    yield Check(case, _chance(honest, len(fresh)), f"above {CHANCE:g}: no copies found", honest.p_value > CHANCE)
    figures = {figure.name: figure for figure in honest.figures}
    if "c_t" in figures:
        yield Check(case, figures["c_t"], f"within {ALARM:g} of 0", abs(figures["c_t"].value) < ALARM)
    authentic = figures["authenticity"]
    share = len(copies) / len(fresh)
    exact, honest_part = known["training"][: len(copies)], fresh[: len(fresh) - len(copies)]
    some = look(torch.cat([honest_part, exact]))
    case = f"{100 * share:.0f} % copied"
    yield Check(case, _chance(some, len(fresh)), f"below {CHANCE:g}: copies found", some.p_value < CHANCE)
    # Only copies as damaged as the planted ones can be counted; of exact ones more are found than those foretell.
    some = look(torch.cat([honest_part, copies]))
    yield _calibrated(f"{100 * share:.0f} % copied, changed", some.figures[0], share)
    whole = look(known["training"][: len(fresh)])
    figures = {figure.name: figure for figure in whole.figures}
    case = "all copied from training"
    yield Check(case, _chance(whole, len(fresh)), f"below {CHANCE:g}: copies found", whole.p_value < CHANCE)
    yield _above(case, figures["copied_share"], 0.9, "about 1")
    yield _below(case, figures["authenticity"], _ends(authentic)[0], "0, and below that of images that are new")
    if "c_t" in figures:
        yield _below(case, figures["c_t"], -ALARM, "far below 0")


def _noise_images(found: Figures, others: Sequence[Figures]) -> Iterable[Check]:
    case = "images of noise"
    for name in ("frechet_distance", "kernel_distance"):
        yield _above(
            case, found[name], max(_ends(figures[name])[1] for figures in others), "farther than blur and 5 % noise"
        )
    for name in ("coverage", "recall"):
        yield _below(case, found[name], 0.1, "about 0")


def _reconstructions(images: np.ndarray, extractor: Extractor) -> Iterable[Check]:
    """Images against themselves, blurred more and more: each step must be worse than the one before."""
    metrics: tuple[tuple[str, type[PairMetric] | None, np.ndarray], ...] = (
        ("PSNR", PeakSignalToNoise, images),
        ("SSIM", StructuralSimilarity, images),
        ("perceptual distance", None, images[:PERCEPTUAL_IMAGES]),
    )
    for _, kind, shown in metrics:
        before: MetricValue | None = None
        for sigma in (0.0, *BLURS):
            metric = PerceptualDistance(extractor) if kind is None else kind()
            try:
                metric.update(shown, cases.blurred(shown, sigma))
            except TooSmallError:
                break  # SSIM has no window for such images, and so no theory
            (figure,) = metric.compute()
            if before is not None:
                worse = figure.value < before.value if figure.better == "higher" else figure.value > before.value
                way = "below" if figure.better == "higher" else "above"
                theory = f"{way} that of the step before, {_number(before.value)}"
                yield Check(f"reconstruction, sigma {sigma:g}", figure, theory, worse)
            before = figure


# Helpers


def _above(case: str, figure: MetricValue, limit: float, words: str) -> Check:
    return Check(case, figure, f"{words}: > {_number(limit)}", figure.value > limit)


def _below(case: str, figure: MetricValue, limit: float, words: str) -> Check:
    return Check(case, figure, f"{words}: < {_number(limit)}", figure.value < limit)


def _calibrated(case: str, figure: MetricValue, share: float) -> Check:
    """Whether a share lies where it should, its interval made wide enough for `ALARM` standard errors."""
    low, high = ((end - figure.value) * ALARM / 1.96 + figure.value for end in _ends(figure))
    return Check(case, figure, f"{share:.3f}, to within chance", low <= share <= high)


def _number(value: float) -> str:
    return written(value, decimals(value))


def _ends(figure: MetricValue) -> tuple[float, float]:
    """An interval, of no width where there is none."""
    return (
        figure.value if figure.low is None else min(figure.low, figure.value),
        figure.value if figure.high is None else max(figure.high, figure.value),
    )


def _error(figure: MetricValue) -> float:
    """The standard error that an interval of 95 % amounts to."""
    low, high = _ends(figure)
    return (high - low) / (2 * 1.96)


def _share_error(figure: MetricValue) -> float:
    """`_error` of a share of images with neighbours in the other set, drawn again on both sides.

    An interval holds one side fixed, so as much again is added; and a share of 1 has an interval of no width.
    """
    return max(math.sqrt(2) * _error(figure), 1 / figure.count)


def _chance(found: Memorisation, count: int) -> MetricValue:
    return MetricValue("p_value_of_copies", found.p_value, None, None, count)


def _to_drop(groups: np.ndarray, features: Tensor) -> list[int]:
    """Groups that lie together: the one farthest from the middle, then those nearest to it.

    They hold a third of the images or a little more, never more than half, as far as the groups' sizes allow.
    """
    labels, places, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(labels), features.shape[1]).index_add_(0, torch.from_numpy(places.reshape(-1)), features)
    means = sums / torch.from_numpy(sizes)[:, None]
    away = (means - features.mean(dim=0)).norm(dim=1).numpy()
    small = 2 * sizes <= len(groups)
    if not small.any():
        return []
    first = np.where(small, away, -1.0).argmax()
    dropped: list[int] = []
    gone = 0
    for place in np.argsort((means - means[first]).norm(dim=1).numpy(), kind="stable"):
        if 2 * (gone + sizes[place]) <= len(groups) and 3 * gone < len(groups):
            dropped.append(int(labels[place]))
            gone += int(sizes[place])
    return dropped


def _groups(labels: np.ndarray | None, features: Tensor, seed: int) -> np.ndarray:
    """Classes, or clusters of features where there are no labels, or none that could be dropped and leave enough."""
    if labels is not None and np.isin(labels, _to_drop(labels, features)).mean() >= ENOUGH:
        return labels
    return _clusters(features, seed)


def _clusters(features: Tensor, seed: int) -> np.ndarray:
    """(N,) the cluster of each vector: k-means, 20 rounds of Lloyd's from random vectors."""
    generator = seeded_generator(seed, 14)
    centres = features[torch.randperm(len(features), generator=generator)[:CLUSTERS]].clone()
    nearest = torch.zeros(len(features), dtype=torch.int64)
    for _ in range(20):
        nearest = torch.cdist(features, centres).argmin(dim=1)
        for number in range(len(centres)):
            if (nearest == number).any():
                centres[number] = features[nearest == number].mean(dim=0)
    return nearest.numpy()
