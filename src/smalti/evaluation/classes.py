"""The classification accuracy score: a classifier trained on drawn images, tested on real ones, beside its ceiling."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from smalti.data import PackedImages
from smalti.errors import ConfigError, DataError
from smalti.evaluation.common import Generated, Options, batches, shape_of
from smalti.metrics.classification import ClassReport, classification_accuracy_score
from smalti.metrics.metric import MetricValue
from smalti.pipelines.base import Model


def check_classes(model: Model, reference: PackedImages, training: PackedImages | None) -> None:
    """That classifiers can be trained and tested, before anything goes through the extractor."""
    if model.labels([0]) is None:
        setting = "model.condition=class" if model.card.kind == "prior" else "model.conditional=true"
        raise ConfigError(
            f"{model.path} was trained without labels, so no classifier can be trained on its images; "
            f"leave --classifier-images out, or train with --set {setting}"
        )
    needed = [reference] if training is None or training.labels is None else [reference, training]
    for images in needed:  # training images without labels only make no ceiling
        if images.labels is None or images.classes != model.card.classes:
            raise DataError(f"the classes of {images.source} are not those of {model.path}: they must be the same")


def score_by_classes(
    judged: Generated, reference: PackedImages, training: PackedImages | None, images_seen: int, options: Options
) -> tuple[list[MetricValue], ClassReport, tuple[str, ...]]:
    """The classification accuracy score of a generator with labels, and that of real training images, its ceiling.

    Returns:
        The figures, those of the ceiling with `_ceiling` in their names; the report of the generator; warnings.
    """
    card = judged.model.card
    assert reference.labels is not None
    test = (reference, np.asarray(reference.labels))
    # Digits and letters must not be mirrored; whoever trained on them said so.
    flip = card.config.data.flip
    given: dict[str, Any] = {
        "images_seen": images_seen, "flip": flip, "seed": options.seed, "device": judged.model.device,
    }  # fmt: skip
    labels = np.asarray(judged.model.labels(range(len(judged))))  # those that `Model.generate` draws
    with tempfile.TemporaryDirectory() as folder:
        # The classifier reads its images many times over: they are drawn once, to the disk, however many there are.
        shape = (len(judged), *shape_of(card))
        drawn = np.lib.format.open_memmap(Path(folder) / "drawn.npy", "w+", np.uint8, shape)
        for rows, images in batches(judged, options.progress_for("drawing images to train on")):
            drawn[rows] = images
        report, figures = classification_accuracy_score(
            drawn, labels, *test, card.classes, progress=options.progress_for("training on generated images"), **given
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
