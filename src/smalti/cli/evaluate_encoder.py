"""`smalti evaluate encoder`: what a linear classifier reads off features."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from smalti.cli.apps import evaluate_app, examples
from smalti.cli.evaluation import FEATURES, OUTPUT, READING, check_request, finish, measurement
from smalti.cli.options import FeatureOptions, OutputOptions, ReadingOptions
from smalti.errors import ConfigError, DataError


@evaluate_app.command(
    name="encoder",
    help_epilogue=examples(
        "smalti evaluate encoder runs/eye --on cifar10 --out eye.json",
        "smalti evaluate encoder --features efficientnet-lite0 --on cifar10 --out imagenet.json",
    ),
)
def evaluate_encoder(
    model: Path | None = None,
    /,
    *,
    on: str,
    reading: ReadingOptions = READING,
    features: FeatureOptions = FEATURES,
    output: OutputOptions = OUTPUT,
) -> int:
    """Score features with a linear probe: what a linear classifier reads off them, with the figures of every class.

    Parameters
    ----------
    model:
        A run folder, a checkpoint or zoo:NAME of the preset smalti-vit. Default: the network that --features names.
    on:
        Source of labelled images with a training and a test split.
    """
    from smalti.checkpoint.find import find_checkpoint
    from smalti.evaluation import measure_encoder

    check_request(output, features)
    if model is not None:
        if features.weights is not None:
            raise ConfigError(f"the network is given twice, as {model} and as --weights {features.weights}; give one")
        features = dataclasses.replace(features, features="smalti-vit", weights=find_checkpoint(model))
    with measurement(features, reading) as work:
        test = work.held_out(on)
        train = work.training(on, test)
        if train.split == test.split:
            raise DataError(f"{on} has no training split beside the one that is tested; a linear probe needs both")
        evaluation, content = measure_encoder(train, test, extractor=work.extractor(), options=work.options)
    if model is not None:
        evaluation = dataclasses.replace(evaluation, subject={**evaluation.subject, "path": model})
    return finish(evaluation, content, output)
