"""Self-test of the metrics: does each one react to known cases as theory says, for given images and an extractor?

    two real halves    nothing to find: KID's interval contains 0, density is 1, coverage 1 - prod_i (n - i)/(n + m - i)
    blurred            distances above the noise floor (two real halves of the same size), lower recall
    noisy              distances above the noise floor, lower coverage
    classes dropped    larger distances, lower coverage; precision falls less, because the rest is as real as before
    copies             distance 0, and every memorisation measure reacts; a share of 20 % copies is estimated correctly
    noise images       larger distances than any other case, no coverage
    reconstructions    PSNR, SSIM and perceptual distance get worse with each step of blur

Metrics without a known expectation are compared with the noise floor: a value must lie beyond the ends of the
confidence intervals over three random splits into halves. No limit is tuned to a data set. A metric can only react to a
flaw that the extractor sees: an extractor that fails for dropped classes only does not separate the classes. The
dropped classes are adjacent in feature space.

Some plausible reactions are not checked, because theory does not guarantee them. Precision and coverage need not fall
under blur, which moves images towards the centre of the reference (on photographs precision rises); precision need not
fall for noise images, because the ball of a single outlier can contain half of them; recall need not fall for dropped
classes.

Layout: images (N, H, W, C) uint8.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smalti.errors import DataError
from smalti.evaluation import cases
from smalti.evaluation.doctor_checks import (
    Check,
    NoiseFloor,
    check_all_copied,
    check_dropped_classes,
    check_farther,
    check_memorisation,
    check_noise_images,
    check_reconstructions,
    check_two_halves,
    measure,
)
from smalti.evaluation.doctor_classes import classes_or_clusters
from smalti.features.cache import ArrayImages, Progress, collect
from smalti.features.extractor import Extractor
from smalti.report.formatting import decimal_places, format_interval, format_number
from smalti.report.record import TITLES
from smalti.runtime.rng import mix

FEWEST = 400  # images; the halves of fewer images are too noisy
PLANTED = 0.2  # proportion of copies in the output of the simulated generator
RECONSTRUCTED = 200  # images of the fresh half
_BATCH = 64


@dataclass(frozen=True)
class DoctorReport:
    """Results of all checks, in the order of the cases.

    Attributes:
        checks: at least one per case.
        images: number of images used.
        extractor: name of the extractor.
        seed: the seed.
    """

    checks: tuple[Check, ...]
    images: int
    extractor: str
    seed: int

    @property
    def ok(self) -> bool:
        """Whether all checks passed."""
        return all(check.ok for check in self.checks)

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Header and rows as text: case, metric, value with its confidence interval, theory, verdict."""
        rows: list[tuple[str, ...]] = []
        for check in self.checks:
            figure = check.figure
            digits = decimal_places(figure.value, figure.low, figure.high)
            interval = format_interval(figure.low, figure.high, digits)
            value = format_number(figure.value, digits) + (f" ({interval})" if interval else "")
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
    """Measure the known cases and check each metric against theory.

    Args:
        images: (N, H, W, C) uint8 of one kind, in any order; N is at least 400, better 1,000. The extractor processes
            each image about two and a half times.
        labels: (N,) integers, for the dropped classes; None uses clusters of features instead.
        extractor: the feature extractor to test with.
        seed: non-negative integer, for the splits and all other random choices.
        progress: called with (images done by the extractor, total).
        cache: the cache folder for features; None disables the cache.

    Raises:
        DataError: too few images, labels that do not match, features that are all equal or not finite.
    """
    if labels is not None and labels.shape != (len(images),):
        raise DataError(f"{len(images)} images need as many labels, but these have shape {labels.shape}")
    if len(images) < FEWEST:
        raise DataError(f"{len(images)} images are too few to see how figures react; give at least {FEWEST}")
    order = np.random.default_rng([seed, 10]).permutation(len(images))
    half = len(images) // 2
    training, fresh = images[order[:half]], images[order[half : 2 * half]]
    known = _extract_features(training, fresh, extractor, seed, progress, cache)
    if float(known["training"].var(dim=0).sum()) == 0:
        raise DataError("all images have the same features; the cases can show nothing on them")
    classes = classes_or_clusters(None if labels is None else labels[order[half : 2 * half]], known["fresh"], seed)
    floor = NoiseFloor(known["training"], known["fresh"], seed)
    changed = {
        name: measure(known["training"], known[name], seed) for name in ("blurred", "noisy", "random", "training")
    }
    checks = [
        *check_two_halves(floor, half),
        *check_farther("blurred, sigma 1", changed["blurred"], floor, "recall"),
        *check_farther("5 % noise", changed["noisy"], floor, "coverage"),
        *check_dropped_classes(known, classes, seed),
        *check_all_copied(changed["training"], floor),
        *check_memorisation(known, seed),
        *check_noise_images(changed["random"], (changed["blurred"], changed["noisy"])),
        *check_reconstructions(fresh[:RECONSTRUCTED], extractor),
    ]
    return DoctorReport(tuple(checks), 2 * half, extractor.name, seed)


def _extract_features(
    training: np.ndarray,
    fresh: np.ndarray,
    extractor: Extractor,
    seed: int,
    progress: Progress | None,
    cache: Path | None,
) -> dict[str, Tensor]:
    """The features of all sets of images that the cases need, by the name of the set."""
    few = max(2, round(PLANTED * len(fresh) / 2))  # of the half of `fresh` that serves as the output of a generator
    generator = np.random.default_rng([seed, 11])
    sets = {
        "training": training,
        "fresh": fresh,
        "blurred": cases.blurred(fresh, 1.0),
        "noisy": cases.noisy(fresh, std=0.05, seed=seed),
        "random": generator.integers(0, 256, fresh.shape, dtype=np.uint8)[: max(FEWEST // 4, len(fresh) // 4)],
        # The copies to detect and the planted copies that calibrate the detector are of different images.
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
