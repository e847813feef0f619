"""`smalti evaluate autoencoder`: figures of the images that a VQ-VAE reconstructs."""

from __future__ import annotations

from smalti.cli.apps import evaluate_app, examples
from smalti.cli.evaluation import FEATURES, OUTPUT, READING, check_request, finish, measurement
from smalti.cli.options import FeatureOptions, ModelPath, OutputOptions, ReadingOptions, UnseenImages


@evaluate_app.command(
    name="autoencoder",
    help_epilogue=examples(
        "smalti evaluate autoencoder runs/vqvae --on cifar10 --out vqvae.json --report vqvae.html",
    ),
)
def evaluate_autoencoder(
    model: ModelPath,
    /,
    *,
    on: UnseenImages,
    reading: ReadingOptions = READING,
    features: FeatureOptions = FEATURES,
    output: OutputOptions = OUTPUT,
) -> int:
    """Score a VQ-VAE: PSNR, SSIM, MS-SSIM, perceptual and Frechet distance, code usage, perplexity and rate."""
    from smalti.evaluation import measure_autoencoder
    from smalti.pipelines.autoencoder import Autoencoder
    from smalti.pipelines.base import load_as

    check_request(output, features)
    autoencoder = load_as(model, Autoencoder, device=features.device)
    with measurement(features, reading) as work:
        images = work.held_out(on, (autoencoder.card.image.channels, None, None))
        evaluation, content = measure_autoencoder(autoencoder, images, extractor=work.extractor(), options=work.options)
    return finish(evaluation, content, output)
