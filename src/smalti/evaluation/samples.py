"""Evaluation of generated images, from a model or a folder, against real images, including memorisation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smalti.data import PackedImages
from smalti.data.order import evenly_spread
from smalti.errors import ConfigError, DataError, arg
from smalti.evaluation.cases import degraded_copies
from smalti.evaluation.classes import check_classes, score_by_classes
from smalti.evaluation.common import (
    DEFAULTS,
    SHOWN,
    Generated,
    Options,
    ReportContent,
    check_same_shape,
    described,
    model_subject,
    run_info,
    sample,
    shape_of,
    size_in_words,
    warn_of_few,
    warn_of_seen,
)
from smalti.features.cache import ArrayImages, Images, collect
from smalti.features.extractor import Extractor
from smalti.metrics import memorisation
from smalti.metrics.classification import InceptionScore
from smalti.metrics.distribution import measure_distribution
from smalti.metrics.memorisation import Memorisation, measure_memorisation
from smalti.metrics.metric import MetricValue
from smalti.metrics.neighbours import nearest
from smalti.pipelines.base import require
from smalti.pipelines.gan import GAN
from smalti.pipelines.prior import Prior
from smalti.report.evaluation_page import Histogram, Neighbours
from smalti.report.record import Evaluation, protocol_of

SUSPECTS = 8  # evaluated images shown with their nearest training images
NEAREST = 4  # training images shown with each
PLANTED = 500  # planted copies that calibrate the copy detector


def measure_folder(
    judged: PackedImages,
    reference: PackedImages,
    *,
    extractor: Extractor,
    training: PackedImages | None = None,
    options: Options = DEFAULTS,
) -> tuple[Evaluation, ReportContent]:
    """Evaluate any set of images against a reference set.

    Args:
        judged: images to evaluate.
        reference: the reference set.
        extractor: the feature extractor.
        training: training images to look for copies of; None: no memorisation metrics.
        options: see `Options`.

    Raises:
        DataError: too few images, or images of another shape.
    """
    check_same_shape(judged, reference)
    subject = {"path": judged.source, "split": judged.split, "fingerprint": judged.fingerprint, "count": len(judged)}
    return _measure_samples("folder", judged, subject, reference, training, extractor, options)


def measure_generator(
    model: GAN | Prior,
    reference: PackedImages,
    *,
    extractor: Extractor,
    training: PackedImages | None = None,
    count: int = 10_000,
    classifier_images: int = 0,
    options: Options = DEFAULTS,
) -> tuple[Evaluation, ReportContent]:
    """Evaluate the images of a generator against real images.

    Args:
        model: a GAN or a prior.
        reference: the reference set, of held-out images.
        extractor: the feature extractor.
        training: its training images, to look for copies; None: no memorisation metrics.
        count: number of generated images.
        classifier_images: training length, in images, of each of the two classifiers of the classification accuracy
            score, one on generated and one on real images; 0: no such score.
        options: see `Options`.

    Raises:
        CheckpointError: the model is no generator.
        ConfigError: count is below 2, or a classification accuracy score of an unconditional model.
        DataError: too few images, or images of another shape.
    """
    if count < 2:
        raise ConfigError(f"{arg('count')} is {count}, but a distribution needs 2 images or more, and 10000 are usual")
    if not isinstance(model, Prior):
        require(model, GAN)
    model.generate(1)  # a model that draws no images says so before the reference goes through the extractor
    height, width, channels = shape_of(model.card)
    if reference.shape != (channels, height, width):
        raise DataError(
            f"{model.path} makes images of {height}x{width}x{channels}, but {reference.source} holds "
            f"{size_in_words(reference)}; give {arg('size', f'{height}x{width}')} and {arg('channels', channels)}"
        )
    if classifier_images:
        check_classes(model, reference, training)
    judged = Generated(model, count, options.seed)
    subject = model_subject(model, judged) | {"seed": options.seed}
    evaluation, content = _measure_samples("generator", judged, subject, reference, training, extractor, options)
    evaluation = dataclasses.replace(evaluation, warnings=(*warn_of_seen(model, reference), *evaluation.warnings))
    if not classifier_images:
        return evaluation, content
    figures, report, warnings = score_by_classes(judged, reference, training, classifier_images, options)
    classifier = {"classifier_images": classifier_images, "classifier_flip": model.card.config.data.flip}
    protocol = {**evaluation.protocol, **classifier}
    classes = tuple(report.record()["classes"])
    both = (*evaluation.figures, *figures)
    evaluation = dataclasses.replace(
        evaluation, figures=both, classes=classes, protocol=protocol, warnings=(*evaluation.warnings, *warnings)
    )
    return evaluation, content


def _measure_samples(
    form: str,
    judged: Images,
    subject: dict[str, Any],
    reference: PackedImages,
    training: PackedImages | None,
    extractor: Extractor,
    options: Options,
) -> tuple[Evaluation, ReportContent]:
    for images, name in ((judged, subject["path"]), (reference, reference.source)):
        if len(images) < 2:
            raise DataError(f"{name} holds {len(images)} image; a distribution needs 2 or more")
    training, no_copies = _usable_training(training, reference)
    warnings = (*warn_of_few(extractor, len(judged), len(reference)), *no_copies)
    real = collect(
        reference, extractor, cache=options.cache, progress=options.progress_for("features of the reference")
    )
    fake = collect(judged, extractor, cache=options.cache, progress=options.progress_for("features of what is judged"))
    figures = [
        *measure_distribution(real, fake, seed=options.seed, neighbours=options.neighbours),
        *_classifier_score(extractor, fake),
    ]
    pictures = [
        ("Evaluated images, the first ones, not selected.", judged.pixels(np.arange(min(SHOWN, len(judged))))),
        ("Reference images.", sample(reference, SHOWN)),
    ]
    content = ReportContent(pictures=pictures)
    if training is not None:
        found, neighbours = _memorisation(training, judged, real, fake, extractor, options)
        figures += found.figures
        content = ReportContent(pictures=pictures, neighbours=neighbours, histograms=[_ratio_histogram(found)])
    evaluation = Evaluation(
        form=form,
        subject=subject,
        reference=described(reference),
        protocol=protocol_of(
            extractor=extractor.record(),
            reference_fingerprint=reference.fingerprint,
            reference_count=len(reference),
            judged_count=len(judged),
            neighbours=options.neighbours,
            seed=options.seed,
            image_size=size_in_words(reference),
            image_resize=options.resize,
            training_fingerprint=None if training is None else training.fingerprint,
        ),
        figures=tuple(figures),
        warnings=warnings,
        **run_info(options, extractor.device),
    )
    return evaluation, content


def _usable_training(
    training: PackedImages | None, reference: PackedImages
) -> tuple[PackedImages | None, tuple[str, ...]]:
    """The training set for the memorisation measures; None with a warning if it is also the reference set.

    Raises:
        DataError: the training images have another shape, or are too few.
    """
    if training is None:
        return None, ()
    if training.fingerprint == reference.fingerprint:
        return None, (
            f"{reference.source} is both reference and training set, so copies cannot be told from images of the same "
            "kind: copies were not looked for; use a reference set of images that were not trained on",
        )
    check_same_shape(training, reference)
    if len(training) <= memorisation.NEIGHBOURS:
        raise DataError(
            f"{training.source} holds {len(training)} training images, but copies are detected by comparison with the "
            f"{memorisation.NEIGHBOURS} nearest of them; give all of them, or {arg('training', 'none')}"
        )
    return training, ()


def _memorisation(
    training: PackedImages, judged: Images, real: Tensor, fake: Tensor, extractor: Extractor, options: Options
) -> tuple[Memorisation, Neighbours]:
    """Memorisation measures, and the most likely copies with their nearest training images."""
    known = collect(
        training, extractor, cache=options.cache, progress=options.progress_for("features of the training images")
    )
    copies = degraded_copies(training.pixels(evenly_spread(len(training), PLANTED)), PLANTED, seed=options.seed)
    planted = collect(
        ArrayImages(copies.images),
        extractor,
        cache=options.cache,
        progress=options.progress_for("features of planted copies"),
    )
    found = measure_memorisation(known, real, fake, planted=planted, seed=options.seed)
    suspects = np.array([suspect.fake for suspect in found.nearest_training[:SUSPECTS]])
    distances, indices = nearest(fake[torch.from_numpy(suspects)], known, min(NEAREST, len(known)))
    images = judged.pixels(suspects)
    beside = training.pixels(indices.flatten().numpy()).reshape(*indices.shape, *images.shape[1:])
    return found, Neighbours(images, beside, distances.numpy())


def _ratio_histogram(found: Memorisation) -> Histogram:
    return Histogram(
        "Distance to the nearest training image",
        {"evaluated": found.ratios, "held out": found.held_out_ratios},
        "distance to the nearest training image, relative to that image's distance to its neighbours",
    )


def _classifier_score(extractor: Extractor, fake: Tensor) -> tuple[MetricValue, ...]:
    """The Inception score, or the classifier score of another network; () if the extractor has no classifier."""
    if not extractor.classes:
        return ()
    score = InceptionScore("inception_score" if extractor.name == "inception" else "classifier_score")
    for part in torch.split(fake, 4096):
        score.update(extractor.probabilities(part))
    return score.compute()
