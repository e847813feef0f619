"""Commands that measure."""

from __future__ import annotations

from pathlib import Path

from smalti.cli.apps import evaluate_app, examples
from smalti.cli.options import Measuring, Reading, Writing

READING, MEASURING, WRITING = Reading(), Measuring(), Writing()


@evaluate_app.command(
    name="generator",
    help_epilogue=examples(
        "smalti evaluate generator runs/cifar --against cifar10 --out gan.json --report gan.html",
        "smalti evaluate generator runs/sprites --against sprites/ --features smalti-vit --weights runs/eye",
    ),
)
def evaluate_generator(
    model: Path,
    /,
    *,
    against: str,
    training: str | None = None,
    count: str = "10000",
    classifier_images: str | None = None,
    neighbours: int = 5,
    reading: Reading = READING,
    measuring: Measuring = MEASURING,
    writing: Writing = WRITING,
) -> int:
    """Score a GAN: Frechet and kernel distance, precision, recall, density, coverage, and copies of training images.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file.
    against:
        Source of real images, as for smalti train; the model should not have seen those it is held against.
    training:
        Source of the images it was trained on, to look for copies. Default: the training split of --against; none: do
        not look.
    count:
        Images to draw: 10000, 50k.
    classifier_images:
        Also train two classifiers for so many images each (500k is usual), one on drawn and one on real images, and
        test both on real ones: the classification accuracy score. For models with labels.
    neighbours:
        Nearest neighbours that precision, recall, density and coverage look at.
    """
    from smalti.cli.evaluate import Request, run_generator

    return run_generator(
        model, against, training, count, classifier_images, Request(measuring, reading, writing, neighbours)
    )


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
    neighbours: int = 5,
    judged_split: str | None = None,
    reading: Reading = READING,
    measuring: Measuring = MEASURING,
    writing: Writing = WRITING,
) -> int:
    """Score anybody's images against others: the same figures as for a generator.

    Parameters
    ----------
    judged:
        A folder, archive or data set of the images to score.
    against:
        Source of the images they should be like.
    training:
        Source of images that they may have been copied from. Default: do not look for copies.
    neighbours:
        Nearest neighbours that precision, recall, density and coverage look at.
    judged_split:
        Split of the judged images. Default: as --split.
    """
    from smalti.cli.evaluate import Request, run_folder

    return run_folder(judged, against, training, judged_split, Request(measuring, reading, writing, neighbours))


@evaluate_app.command(
    name="autoencoder",
    help_epilogue=examples(
        "smalti evaluate autoencoder runs/vqvae --on cifar10 --out vqvae.json --report vqvae.html",
    ),
)
def evaluate_autoencoder(
    model: Path,
    /,
    *,
    on: str,
    reading: Reading = READING,
    measuring: Measuring = MEASURING,
    writing: Writing = WRITING,
) -> int:
    """Score a VQ-VAE: PSNR, SSIM, MS-SSIM, perceptual and Frechet distance, code usage, perplexity and rate.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file.
    on:
        Source of images it was not trained on.
    """
    from smalti.cli.evaluate import Request, run_autoencoder

    return run_autoencoder(model, on, Request(measuring, reading, writing))


@evaluate_app.command(
    name="prior",
    help_epilogue=examples(
        "smalti evaluate prior runs/prior --on cifar10 --out prior.json --report prior.html",
    ),
)
def evaluate_prior(
    model: Path,
    /,
    *,
    on: str,
    reading: Reading = READING,
    measuring: Measuring = MEASURING,
    writing: Writing = WRITING,
) -> int:
    """Count the bits of images' codes under a causal prior: what they take when they are stored well.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file.
    on:
        Source of images it was not trained on.
    """
    from smalti.cli.evaluate import Request, run_prior

    return run_prior(model, on, Request(measuring, reading, writing))


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
    reading: Reading = READING,
    measuring: Measuring = MEASURING,
    writing: Writing = WRITING,
) -> int:
    """Score features by what a linear classifier reads off them: the linear probe, with every class's figures.

    Parameters
    ----------
    model:
        A run folder or checkpoint of the preset smalti-vit. Default: the network that --features names.
    on:
        Source of labelled images with a training and a test split.
    """
    from smalti.cli.evaluate import Request, run_encoder

    return run_encoder(model, on, Request(measuring, reading, writing))


@evaluate_app.command(
    name="compare",
    help_epilogue=examples(
        "smalti evaluate compare monday.json tuesday.json",
    ),
)
def evaluate_compare(a: Path, b: Path, /) -> int:
    """Print the difference of two records with its interval; refuse, and say why, when they were measured differently.

    Parameters
    ----------
    a:
        A record from smalti evaluate.
    b:
        Another one.
    """
    from smalti.cli.evaluate import run_compare

    return run_compare(a, b)


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
    reading: Reading = READING,
    measuring: Measuring = MEASURING,
) -> int:
    """Try the metrics on cases whose outcome is known: real halves, blur, noise, copies, a class left out.

    Parameters
    ----------
    on:
        Source of images to make the cases of.
    count:
        Images to take, evenly spread.
    """
    from smalti.cli.evaluate import Request, run_doctor_command

    return run_doctor_command(on, count, Request(measuring, reading, WRITING))
