"""Classification accuracy score of a generator, and its ceiling: the same classifier trained on real images."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from smalti.data import PackedImages
from smalti.errors import ConfigError, DataError, arg
from smalti.evaluation.common import Generated, Options, batches, shape_of
from smalti.metrics.classification import ClassReport, classification_accuracy_score
from smalti.metrics.metric import MetricValue
from smalti.pipelines.gan import GAN
from smalti.pipelines.prior import Prior


def check_classes(model: GAN | Prior, reference: PackedImages, training: PackedImages | None) -> None:
    """Check that the classes allow a classification accuracy score, before any features are computed.

    Raises:
        ConfigError: the model has no labels.
        DataError: the classes of the model and of the images differ.
    """
    if model.labels([0]) is None:
        setting = "model.condition=class" if model.card.kind == "prior" else "model.conditional=true"
        raise ConfigError(
            f"{model.path} was trained without labels, so no classifier can be trained on its images; "
            f"leave {arg('classifier_images')} out, or train with {arg(*setting.split('=', 1))}"
        )
    needed = [reference] if training is None or training.labels is None else [reference, training]
    for images in needed:  # without labels of the training images, only the ceiling is missing
        if images.labels is None or images.classes != model.card.classes:
            raise DataError(f"the classes of {images.source} are not those of {model.path}: they must be the same")


def score_by_classes(
    judged: Generated, reference: PackedImages, training: PackedImages | None, images_seen: int, options: Options
) -> tuple[list[MetricValue], ClassReport, tuple[str, ...]]:
    """Classification accuracy score of a class-conditional generator and, with labelled training images, its ceiling.

    Args:
        judged: the generated images.
        reference: real test images.
        training: real training images for the ceiling, if they have labels.
        images_seen: length of the training of each classifier, in images.
        options: see `Options`.

    Returns:
        The metric values, those of the ceiling with the suffix `_ceiling`; the report for the generator; warnings.
    """
    card = judged.model.card
    assert reference.labels is not None
    test = (reference, np.asarray(reference.labels))
    # Flips follow the training of the generator, because digits and letters must not be mirrored.
    flip = card.config.data.flip
    given: dict[str, Any] = {
        "images_seen": images_seen, "flip": flip, "seed": options.seed, "device": judged.model.device,
    }  # fmt: skip
    labels = np.asarray(judged.model.labels(range(len(judged))))  # those that `generate` samples
    with tempfile.TemporaryDirectory() as folder:
        # Sampled once and stored on disk, because the classifier reads the images many times.
        shape = (len(judged), *shape_of(card))
        samples = np.lib.format.open_memmap(Path(folder) / "samples.npy", "w+", np.uint8, shape)
        for rows, images in batches(judged, options.progress_for("sampling images to train on")):
            samples[rows] = images
        report, figures = classification_accuracy_score(
            samples, labels, *test, card.classes, progress=options.progress_for("training on generated images"), **given
        )
    if training is None or training.labels is None:
        missing = (
            "there are no labelled training images, so the classification accuracy score stands without its ceiling"
        )
        return list(figures), report, (missing,)
    _, ceiling = classification_accuracy_score(
        training, np.asarray(training.labels), *test, card.classes,
        progress=options.progress_for("training on real images"), **given,
    )  # fmt: skip
    named = [dataclasses.replace(figure, name=f"{figure.name}_ceiling") for figure in ceiling]
    return [*figures, *named], report, ()
