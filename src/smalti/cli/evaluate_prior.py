"""`smalti evaluate prior`: the bits that the codes of images take."""

from __future__ import annotations

from smalti.cli.apps import evaluate_app, examples
from smalti.cli.evaluation import FEATURES, OUTPUT, READING, check_request, finish, measurement
from smalti.cli.options import FeatureOptions, ModelPath, OutputOptions, ReadingOptions, UnseenImages


@evaluate_app.command(
    name="prior",
    help_epilogue=examples(
        "smalti evaluate prior runs/prior --on cifar10 --out prior.json --report prior.html",
    ),
)
def evaluate_prior(
    model: ModelPath,
    /,
    *,
    on: UnseenImages,
    reading: ReadingOptions = READING,
    features: FeatureOptions = FEATURES,
    output: OutputOptions = OUTPUT,
) -> int:
    """Count the bits that the codes of images take under a causal prior."""
    from smalti.checkpoint.run_dir import RunFolder
    from smalti.evaluation import measure_prior
    from smalti.pipelines.base import load_as
    from smalti.pipelines.prior import Prior

    check_request(output, features)
    prior = load_as(model, Prior, device=features.device)
    prior.check_likelihood()
    run = RunFolder(model) if prior.path.parent == model else None  # not for a checkpoint file, nor for zoo:NAME
    with measurement(features, reading) as work:
        images = work.held_out(on, prior.card.image.shape)
        evaluation, content = measure_prior(prior, images, options=work.options, run=run)
    return finish(evaluation, content, output)
