"""`smalti evaluate generator`: figures of the images that a model generates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from smalti.cli import console
from smalti.cli.apps import evaluate_app, examples
from smalti.cli.evaluation import FEATURES, NEIGHBOURS, OUTPUT, READING, Measurement, check_request, finish, measurement
from smalti.cli.options import FeatureOptions, ModelPath, Neighbours, OutputOptions, ReadingOptions

if TYPE_CHECKING:
    from smalti.data import PackedImages

NO_TRAINING = "none"
_TRAINING = (
    "Source of the images it was trained on, to look for copies. Default: the training split of --against; "
    "none: do not look."
)
_CLASSIFIER_IMAGES = (
    "Also train two classifiers on this many images each (500k is usual), one on generated and one on real images, "
    "and test both on real ones: the classification accuracy score. For models with labels."
)


@evaluate_app.command(
    name="generator",
    help_epilogue=examples(
        "smalti evaluate generator runs/cifar --against cifar10 --out gan.json --report gan.html",
        "smalti evaluate generator runs/sprites --against sprites/ --features smalti-vit --weights runs/eye",
    ),
)
def evaluate_generator(
    model: ModelPath,
    /,
    *,
    against: str,
    training: Annotated[str | None, Parameter(help=_TRAINING)] = None,
    count: str = "10000",
    classifier_images: Annotated[str | None, Parameter(help=_CLASSIFIER_IMAGES)] = None,
    neighbours: Neighbours = NEIGHBOURS,
    reading: ReadingOptions = READING,
    features: FeatureOptions = FEATURES,
    output: OutputOptions = OUTPUT,
) -> int:
    """Score a GAN: Frechet and kernel distance, precision, recall, density, coverage, and copies of training images.

    Parameters
    ----------
    against:
        Source of real images, as for smalti train; preferably of images that the model has not seen.
    count:
        How many images to generate: 10000, 50k.
    """
    from smalti.cli.generators import load_generator
    from smalti.config.units import parse_count
    from smalti.evaluation import measure_generator

    check_request(output, features, neighbours=neighbours)
    generator = load_generator(model, device=features.device)
    with measurement(features, reading, neighbours=neighbours) as work:
        reference = work.held_out(against, generator.card.image.shape)
        known = _training(work, training, against, reference)
        evaluation, content = measure_generator(
            generator,
            reference,
            extractor=work.extractor(),
            training=known,
            count=parse_count(count),
            classifier_images=0 if classifier_images is None else parse_count(classifier_images),
            options=work.options,
        )
    return finish(evaluation, content, output)


def _training(work: Measurement, given: str | None, against: str, reference: PackedImages) -> PackedImages | None:
    """The images that may have been copied; None when there are none to compare with."""
    if given == NO_TRAINING:
        return None
    if given is None and "train" not in reference.splits:
        console.note(
            f"{against} has no training split, so nothing was looked for that the model may have copied; "
            "give its training images with --training"
        )
        return None
    return work.training(given or against, reference)
