"""Checks of the doctor: the expected reaction of each metric to each known case.

Where theory gives no exact value, the expectation is relative to the noise floor: real images against real images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smalti.evaluation import cases
from smalti.evaluation.doctor_classes import classes_to_drop
from smalti.features.extractor import Extractor
from smalti.metrics.distortion import PeakSignalToNoise
from smalti.metrics.distribution import measure_distribution
from smalti.metrics.memorisation import Memorisation, measure_memorisation
from smalti.metrics.metric import MetricValue, PairMetric
from smalti.metrics.perceptual import PerceptualDistance
from smalti.metrics.ssim import StructuralSimilarity, TooSmallError
from smalti.report.formatting import decimal_places, format_number
from smalti.runtime.rng import seeded_generator

SPLITS = 3  # random splits of the real images into halves that make up the noise floor
BLURS = (0.5, 1.0, 2.0)  # sigma of the blurred reconstructions, in pixels
Z_LIMIT = 4.0  # standard errors, for metrics with a known expectation and standard error
SIGNIFICANCE = 0.001  # p-values below it count as copies found
PERCEPTUAL_IMAGES = 32

Metrics = dict[str, MetricValue]


@dataclass(frozen=True)
class Check:
    """One expectation and the measured value.

    Attributes:
        case: name of the case.
        figure: the measured metric value.
        theory: the expectation in words, with the limit as a number.
        ok: whether the value meets it.
    """

    case: str
    figure: MetricValue
    theory: str
    ok: bool


def measure(real: Tensor, fake: Tensor, seed: int) -> Metrics:
    """`measure_distribution`, by the names of the metrics."""
    return {figure.name: figure for figure in measure_distribution(real, fake, seed=seed)}


class NoiseFloor:
    """Metric values of real images against real images, over several random splits into halves."""

    def __init__(self, first: Tensor, second: Tensor, seed: int) -> None:
        both = torch.cat([first, second])
        self.halves = measure(first, second, seed)
        self.others = []
        for number in range(1, SPLITS):
            order = torch.randperm(len(both), generator=seeded_generator(seed, 12, number))
            pair = both[order[: len(first)]], both[order[len(first) :]]
            self.others.append(measure(*pair, seed))

    def highest(self, name: str) -> float:
        """The highest upper end of the confidence intervals of a metric."""
        return max(_interval(figures[name])[1] for figures in (self.halves, *self.others))

    def lowest(self, name: str) -> float:
        """The lowest lower end of the confidence intervals of a metric."""
        return min(_interval(figures[name])[0] for figures in (self.halves, *self.others))


def check_two_halves(floor: NoiseFloor, count: int) -> Iterable[Check]:
    """Two halves of `count` real images each: no difference beyond sampling error."""
    case = "two real halves"
    distance, kernel = floor.halves["frechet_distance"], floor.halves["kernel_distance"]
    ends = [_interval(figures["frechet_distance"]) for figures in floor.others]
    yield Check(
        case,
        distance,
        f"as far apart as other halves are, {_number(min(low for low, _ in ends))} to "
        f"{_number(max(high for _, high in ends))}",
        any(_interval(distance)[0] <= high and low <= _interval(distance)[1] for low, high in ends),
    )
    error = _standard_error(kernel)
    yield Check(case, kernel, "0, to within chance", abs(kernel.value) <= Z_LIMIT * error)
    neighbours = 5
    expected = 1 - math.prod((count - i) / (2 * count - i) for i in range(1, neighbours + 1))
    for name, law in (("density", 1.0), ("coverage", expected)):
        figure = floor.halves[name]
        within = Z_LIMIT * _two_sided_error(figure)
        yield Check(case, figure, f"{law:.3f}, to within chance", abs(figure.value - law) <= within)
    precision, recall = floor.halves["precision"], floor.halves["recall"]
    within = Z_LIMIT * math.hypot(_two_sided_error(precision), _two_sided_error(recall))
    yield Check(
        case,
        precision,
        f"that of recall, {_number(recall.value)}, to within chance",
        abs(precision.value - recall.value) <= within,
    )


def check_farther(case: str, found: Metrics, floor: NoiseFloor, less: str) -> Iterable[Check]:
    """Degraded images: distances above the noise floor, and the metric `less` below it."""
    for name in ("frechet_distance", "kernel_distance"):
        yield _above(case, found[name], floor.highest(name), "above every pair of real halves")
    yield _below(case, found[less], floor.lowest(less), "below every pair of real halves")


def check_dropped_classes(known: dict[str, Tensor], classes: np.ndarray, seed: int) -> Iterable[Check]:
    """Missing classes, compared with random subsets of the same size.

    All are measured against the same training half and share its sampling error, so they differ by much less than their
    confidence intervals suggest. The limit is therefore the worst subset plus the range of the subsets.
    """
    kept = torch.from_numpy(~np.isin(classes, classes_to_drop(classes, known["fresh"])))
    left = known["fresh"][kept]
    samples = []
    for number in range(SPLITS):
        order = torch.randperm(len(kept), generator=seeded_generator(seed, 13, number))
        samples.append(measure(known["training"], known["fresh"][order[: len(left)]], seed))
    fair = {name: [sample[name].value for sample in samples] for name in samples[0]}
    found = measure(known["training"], left, seed)
    case = "classes dropped"
    words = f"beyond {SPLITS} random samples of {len(left):,} images, as many as are left"
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


def check_all_copied(found: Metrics, floor: NoiseFloor) -> Iterable[Check]:
    """The training images themselves: distances of 0 and full coverage."""
    case = "all copied from training"
    distance = floor.halves["frechet_distance"].value
    yield _below(case, found["frechet_distance"], 0.001 * distance, "0, to within a thousandth of the floor")
    kernel = found["kernel_distance"]
    # The unbiased estimate is lower for two equal sets than for two samples of the same distribution.
    yield Check(case, kernel, "at or below 0", kernel.value <= max(0.0, Z_LIMIT * _standard_error(kernel)))
    for name in ("precision", "recall", "coverage"):
        yield Check(
            case, found[name], "1, but for duplicates among the images", found[name].value >= floor.highest(name)
        )


def check_memorisation(known: dict[str, Tensor], seed: int) -> Iterable[Check]:
    """Half of the fresh images serve as the held-out set, the other half as the output of a generator."""
    middle = len(known["fresh"]) // 2
    held_out, fresh = known["fresh"][:middle], known["fresh"][middle:]
    copies = known["copies"]

    def memorisation_of(fake: Tensor) -> Memorisation:
        return measure_memorisation(known["training"], held_out, fake, planted=known["planted"], seed=seed)

    honest = memorisation_of(fresh)
    case = "generated anew"
    yield Check(
        case, _p_value(honest, len(fresh)), f"above {SIGNIFICANCE:g}: no copies found", honest.p_value > SIGNIFICANCE
    )
    figures = {figure.name: figure for figure in honest.figures}
    if "c_t" in figures:
        yield Check(case, figures["c_t"], f"within {Z_LIMIT:g} of 0", abs(figures["c_t"].value) < Z_LIMIT)
    authentic = figures["authenticity"]
    share = len(copies) / len(fresh)
    exact, honest_part = known["training"][: len(copies)], fresh[: len(fresh) - len(copies)]
    some = memorisation_of(torch.cat([honest_part, exact]))
    case = f"{100 * share:.0f} % copied"
    yield Check(case, _p_value(some, len(fresh)), f"below {SIGNIFICANCE:g}: copies found", some.p_value < SIGNIFICANCE)
    # The share is calibrated for copies degraded like the planted ones; exact copies are detected more often.
    some = memorisation_of(torch.cat([honest_part, copies]))
    yield _calibrated(f"{100 * share:.0f} % copied, changed", some.figures[0], share)
    whole = memorisation_of(known["training"][: len(fresh)])
    figures = {figure.name: figure for figure in whole.figures}
    case = "all copied from training"
    yield Check(
        case, _p_value(whole, len(fresh)), f"below {SIGNIFICANCE:g}: copies found", whole.p_value < SIGNIFICANCE
    )
    yield _above(case, figures["copied_share"], 0.9, "about 1")
    yield _below(case, figures["authenticity"], _interval(authentic)[0], "0, and below that of images that are new")
    if "c_t" in figures:
        yield _below(case, figures["c_t"], -Z_LIMIT, "far below 0")


def check_noise_images(found: Metrics, others: Sequence[Metrics]) -> Iterable[Check]:
    """Images of uniform noise: farther than all `others`, and almost no coverage."""
    case = "images of noise"
    for name in ("frechet_distance", "kernel_distance"):
        yield _above(
            case, found[name], max(_interval(figures[name])[1] for figures in others), "farther than blur and 5 % noise"
        )
    for name in ("coverage", "recall"):
        yield _below(case, found[name], 0.1, "about 0")


def check_reconstructions(images: np.ndarray, extractor: Extractor) -> Iterable[Check]:
    """Images against increasingly blurred versions of themselves: each step must be worse than the one before."""
    metrics: tuple[tuple[Callable[[], PairMetric], np.ndarray], ...] = (
        (PeakSignalToNoise, images),
        (StructuralSimilarity, images),
        (lambda: PerceptualDistance(extractor), images[:PERCEPTUAL_IMAGES]),
    )
    for make_metric, shown in metrics:
        before: MetricValue | None = None
        for sigma in (0.0, *BLURS):
            metric = make_metric()
            try:
                metric.update(shown, cases.blurred(shown, sigma))
            except TooSmallError:
                break  # SSIM is undefined for images smaller than its window
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
    """Whether the interval of a metric, widened to `Z_LIMIT` standard errors, contains the true proportion."""
    low, high = ((end - figure.value) * Z_LIMIT / 1.96 + figure.value for end in _interval(figure))
    return Check(case, figure, f"{share:.3f}, to within chance", low <= share <= high)


def _number(value: float) -> str:
    return format_number(value, decimal_places(value))


def _interval(figure: MetricValue) -> tuple[float, float]:
    """The confidence interval, extended to contain the value; of zero width if there is none."""
    return (
        figure.value if figure.low is None else min(figure.low, figure.value),
        figure.value if figure.high is None else max(figure.high, figure.value),
    )


def _standard_error(figure: MetricValue) -> float:
    """Standard error derived from the 95 % confidence interval."""
    low, high = _interval(figure)
    return (high - low) / (2 * 1.96)


def _two_sided_error(figure: MetricValue) -> float:
    """Standard error of a proportion of images with neighbours in the other set, with sampling error in both sets.

    The bootstrap keeps one set fixed, so the variance is doubled. At least 1 / N, because the interval of a proportion
    of 1 has zero width.
    """
    return max(math.sqrt(2) * _standard_error(figure), 1 / figure.count)


def _p_value(found: Memorisation, count: int) -> MetricValue:
    return MetricValue("p_value_of_copies", found.p_value, None, None, count)
