"""Samples against real images: a generator's, or anybody's; and whether they are copies of training images."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smalti.data import PackedImages
from smalti.data.order import evenly_spread
from smalti.errors import ConfigError, DataError
from smalti.evaluation.cases import degraded_copies
from smalti.evaluation.classes import check_classes, score_by_classes
from smalti.evaluation.common import (
    DEFAULTS,
    SHOWN,
    Generated,
    Options,
    ReportContent,
    check_same_shape,
    circumstances,
    described,
    model_subject,
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
from smalti.metrics.neighbours import nearest
from smalti.pipelines.base import Model
from smalti.report.evaluation_page import Histogram, Neighbours
from smalti.report.record import Evaluation, protocol_of

SUSPECTS = 8  # judged images shown beside their nearest training images
NEAREST = 4  # training images beside each
PLANTED = 500  # copies that calibrate the copy detector


def measure_folder(
    judged: PackedImages,
    reference: PackedImages,
    *,
    extractor: Extractor,
    training: PackedImages | None = None,
    options: Options = DEFAULTS,
) -> tuple[Evaluation, ReportContent]:
    """Anybody's images against anybody's.

    Args:
        judged: what is scored.
        reference: what it should look like.
        training: what the judged images may have been copied from; None: no memorisation figures.

    Raises:
        DataError: too few images, or images of another shape.
    """
    check_same_shape(judged, reference)
    subject = {"path": judged.source, "split": judged.split, "fingerprint": judged.fingerprint, "count": len(judged)}
    return _measure_samples("folder", judged, subject, reference, training, extractor, options)


def measure_generator(
    model: Model,
    reference: PackedImages,
    *,
    extractor: Extractor,
    training: PackedImages | None = None,
    count: int = 10_000,
    classifier_images: int = 0,
    options: Options = DEFAULTS,
) -> tuple[Evaluation, ReportContent]:
    """A generator's images against real ones.

    Args:
        model: any checkpoint of a generator.
        reference: held-out images it should be like.
        training: the images it was trained on, to look for copies; None: no memorisation figures.
        count: images drawn.
        classifier_images: images that each of the two classifiers of the classification accuracy score sees while it
            is trained, one on generated and one on real images; 0: no such score.

    Raises:
        CheckpointError: the model is no generator.
        ConfigError: a score by classes of a model that knows none.
        DataError: too few images, or images of another shape.
    """
    if count < 2:
        raise ConfigError(f"--count is {count}, but a distribution needs 2 images or more, and 10000 are usual")
    model.generate(1)  # a model that draws no images says so before the reference goes through the extractor
    height, width, channels = shape_of(model.card)
    if reference.shape != (channels, height, width):
        raise DataError(
            f"{model.path} makes images of {height}x{width}x{channels}, but {reference.source} holds "
            f"{size_in_words(reference)}; give --size {height}x{width} and --channels {channels}"
        )
    if classifier_images:
        check_classes(model, reference, training)
    judged = Generated(model, count, options.seed)
    subject = model_subject(model, judged) | {"seed": options.seed}
    evaluation, exhibits = _measure_samples("generator", judged, subject, reference, training, extractor, options)
    evaluation = dataclasses.replace(evaluation, warnings=(*warn_of_seen(model, reference), *evaluation.warnings))
    if not classifier_images:
        return evaluation, exhibits
    figures, report, warnings = score_by_classes(judged, reference, training, classifier_images, options)
    classifier = {"classifier_images": classifier_images, "classifier_flip": model.card.config.data.flip}
    protocol = {**evaluation.protocol, **classifier}
    classes = tuple(report.record()["classes"])
    both = (*evaluation.figures, *figures)
    evaluation = dataclasses.replace(
        evaluation, figures=both, classes=classes, protocol=protocol, warnings=(*evaluation.warnings, *warnings)
    )
    return evaluation, exhibits


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
    warnings = warn_of_few(extractor, len(judged), len(reference))
    if training is not None and training.fingerprint == reference.fingerprint:
        training = None
        warnings += (
            f"{reference.source} is both reference and training set, so copies cannot be told from images of the same "
            "kind: nothing was looked for that was copied; hold the figures against images that were not trained on",
        )
    if training is not None:
        check_same_shape(training, reference)
        if len(training) <= memorisation.NEIGHBOURS:
            raise DataError(
                f"{training.source} holds {len(training)} training images, but copies are told by the "
                f"{memorisation.NEIGHBOURS} neighbours of one; give all of them, or --training none"
            )
    real = collect(
        reference, extractor, cache=options.cache, progress=options.progress_for("features of the reference")
    )
    fake = collect(judged, extractor, cache=options.cache, progress=options.progress_for("features of what is judged"))
    figures = list(measure_distribution(real, fake, seed=options.seed, neighbours=options.neighbours))
    if extractor.classes:
        score = InceptionScore(_score_name(extractor))
        for part in fake.split(4096):
            score.update(extractor.probabilities(part))
        figures += score.compute()
    pictures = [
        ("Judged images, the first ones, not selected.", judged.pixels(np.arange(min(SHOWN, len(judged))))),
        ("Reference images.", sample(reference, SHOWN)),
    ]
    exhibits = ReportContent(pictures=pictures)
    if training is not None:
        found, neighbours = _memorisation(training, judged, real, fake, extractor, options)
        figures += found.figures
        exhibits = ReportContent(pictures=pictures, neighbours=neighbours, histograms=[_nearness(found)])
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
        **circumstances(options, extractor),
    )
    return evaluation, exhibits


def _memorisation(
    training: PackedImages, judged: Images, real: Tensor, fake: Tensor, extractor: Extractor, options: Options
) -> tuple[Memorisation, Neighbours]:
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


def _nearness(found: Memorisation) -> Histogram:
    return Histogram(
        "How near the nearest training image is",
        {"judged": found.ratios, "held out": found.held_out_ratios},
        "distance to the nearest training image, in units of that image's distance to its neighbours",
    )


def _score_name(extractor: Extractor) -> str:
    return "inception_score" if extractor.name == "inception" else "classifier_score"
