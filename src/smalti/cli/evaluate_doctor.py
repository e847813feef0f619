"""`smalti evaluate doctor`: the metrics on cases whose outcome is known."""

from __future__ import annotations

from smalti.cli import console
from smalti.cli.apps import evaluate_app, examples
from smalti.cli.evaluation import FEATURES, READING, check_seed, measurement
from smalti.cli.options import FeatureOptions, ReadingOptions
from smalti.errors import ConfigError


@evaluate_app.command(
    name="doctor",
    help_epilogue=examples(
        "smalti evaluate doctor --features smalti-vit",
        "smalti evaluate doctor --on photos/ --size 64 --count 4000",
    ),
)
def evaluate_doctor(
    *,
    on: str = "emoji",
    count: int = 2000,
    reading: ReadingOptions = READING,
    features: FeatureOptions = FEATURES,
) -> int:
    """Try the metrics on cases with known outcomes: real halves, blur, noise, copies, a class left out.

    Parameters
    ----------
    on:
        Source of images to make the cases of.
    count:
        How many images to take, evenly spread over the source.
    """
    import numpy as np

    from smalti.data.order import evenly_spread
    from smalti.evaluation.doctor import run_doctor

    if count < 1:
        raise ConfigError(f"--count is {count}, but the cases are made of images: 2000 are usual")
    check_seed(features)
    with measurement(features, reading) as work:
        images = work.whole(on)
        chosen = evenly_spread(len(images), count)  # sources lie in the order of their classes
        report = run_doctor(
            images.pixels(chosen),
            None if images.labels is None else np.asarray(images.labels)[chosen],
            work.extractor(),
            seed=features.seed,
            cache=features.cache,
            progress=work.options.progress_for("features of the cases"),
        )
    console.table(*report.table())
    wrong = sum(not check.ok for check in report.checks)
    console.say()
    console.say(
        f"{len(report.checks)} checks on {report.images:,} images with {report.extractor}, seed {report.seed}: "
        + (f"{wrong} NOT as theory says" if wrong else "all as theory says")
    )
    return 0 if report.ok else 1
