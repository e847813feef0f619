"""Evaluation of an encoder by a linear probe on its features."""

from __future__ import annotations

import numpy as np

from smalti.data import PackedImages
from smalti.errors import DataError
from smalti.evaluation.common import DEFAULTS, SHOWN, Options, ReportContent, described, run_info, sample
from smalti.features.cache import collect
from smalti.features.extractor import Extractor
from smalti.metrics.probe import linear_probe
from smalti.report.record import Evaluation, protocol_of


def measure_encoder(
    train: PackedImages, test: PackedImages, *, extractor: Extractor, options: Options = DEFAULTS
) -> tuple[Evaluation, ReportContent]:
    """Accuracy of a linear classifier trained on the features of an extractor.

    Args:
        train, test: labelled images of the same classes.
        extractor: the encoder to evaluate.
        options: see `Options`.

    Raises:
        DataError: the images have no labels, or their classes differ.
    """
    if train.labels is None or test.labels is None:
        raise DataError(
            f"{train.source} has no labels, and a linear probe needs them; "
            "put each class's images in a folder of its own"
        )
    if train.classes != test.classes:
        raise DataError(f"the classes of {train.source} and {test.source} differ; a linear probe needs the same ones")
    if len(train.classes) < 2:
        raise DataError(f"{train.source} has {len(train.classes)} class; a linear probe takes two classes or more")
    features = [
        collect(images, extractor, cache=options.cache, progress=options.progress_for(f"features of the {what} images"))
        for images, what in ((train, "training"), (test, "test"))
    ]
    figure, report = linear_probe(
        features[0], np.asarray(train.labels), features[1], np.asarray(test.labels), classes=train.classes,
        seed=options.seed,
    )  # fmt: skip
    evaluation = Evaluation(
        form="encoder",
        subject={"path": extractor.name, "count": len(test), **extractor.record()},
        reference=described(test),
        protocol=protocol_of(
            extractor=None,
            reference_fingerprint=test.fingerprint,
            reference_count=len(test),
            judged_count=len(test),
            training_fingerprint=train.fingerprint,
            seed=options.seed,
        ),
        figures=(figure,),
        classes=tuple(report.record()["classes"]),
        **run_info(options, extractor.device),
    )
    return evaluation, ReportContent(pictures=[("Some of the test images.", sample(test, SHOWN))])
