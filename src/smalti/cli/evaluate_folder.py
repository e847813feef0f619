"""`smalti evaluate folder`: figures of any images against others."""

from __future__ import annotations

from smalti.cli.apps import evaluate_app, examples
from smalti.cli.evaluation import FEATURES, NEIGHBOURS, OUTPUT, READING, check_request, finish, measurement
from smalti.cli.options import FeatureOptions, Neighbours, OutputOptions, ReadingOptions

NO_TRAINING = "none"


@evaluate_app.command(
    name="folder",
    help_epilogue=examples(
        "smalti evaluate folder samples/ --against photos/ --size 64 --out samples.json",
        "smalti evaluate folder cifar10 --split train --against cifar10 --features inception --out floor.json",
    ),
)
def evaluate_folder(
    judged: str,
    /,
    *,
    against: str,
    training: str | None = None,
    neighbours: Neighbours = NEIGHBOURS,
    judged_split: str | None = None,
    reading: ReadingOptions = READING,
    features: FeatureOptions = FEATURES,
    output: OutputOptions = OUTPUT,
) -> int:
    """Score any images against others: the same figures as for a generator.

    Parameters
    ----------
    judged:
        A folder, archive or data set of the images to score.
    against:
        Source of the images they should be like.
    training:
        Source of images that they may have been copied from. Default: do not look for copies.
    judged_split:
        Split of the judged images. Default: as --split.
    """
    from smalti.evaluation import measure_folder

    check_request(output, features, neighbours=neighbours)
    with measurement(features, reading, neighbours=neighbours) as work:
        reference = work.held_out(against)
        images = work.judged(judged, judged_split)
        known = None if training in (None, NO_TRAINING) else work.training(training, reference)
        evaluation, content = measure_folder(
            images, reference, extractor=work.extractor(), training=known, options=work.options
        )
    return finish(evaluation, content, output)
