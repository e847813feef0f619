"""What an autoencoder gives back, what its codes cost, and how they are used."""

from __future__ import annotations

import numpy as np

from smalti.api import Model
from smalti.data import PackedImages
from smalti.errors import DataError
from smalti.evaluate.codes import CodeUsage
from smalti.evaluate.distortion import PeakSignalToNoise
from smalti.evaluate.distribution import measure_distribution
from smalti.evaluate.feature_cache import collect
from smalti.evaluate.features import Extractor
from smalti.evaluate.metric import Figure, PairMetric
from smalti.evaluate.page import Histogram
from smalti.evaluate.perceptual import PerceptualDistance
from smalti.evaluate.record import Evaluation, protocol_of
from smalti.evaluate.ssim import MultiScaleStructuralSimilarity, StructuralSimilarity, TooSmallError
from smalti.measuring.common import (
    BATCH,
    DEFAULTS,
    SHOWN,
    Exhibits,
    Options,
    Reconstructed,
    batches,
    circumstances,
    described,
    model_subject,
    sample,
    size_in_words,
    spread,
    warn_of_few,
    warn_of_seen,
)

PERCEPTUAL = 2_000  # images whose feature maps are compared: maps are hundreds of times larger than features


def measure_autoencoder(
    model: Model, images: PackedImages, *, extractor: Extractor, options: Options = DEFAULTS
) -> tuple[Evaluation, Exhibits]:
    """What an autoencoder loses, what its codes cost, and how they are used.

    Args:
        model: any checkpoint of an autoencoder.
        images: held-out images.

    Raises:
        CheckpointError: the model is no autoencoder.
        DataError: too few images, or images of another number of channels.
    """
    if len(images) < 2:
        raise DataError(f"{images.source} holds {len(images)} image; a distribution needs 2 or more")
    usage = CodeUsage(model.alphabet)
    metrics, warnings = _pair_metrics(images)
    shown = spread(len(images), SHOWN)
    errors = np.empty(len(images))
    for rows, originals in batches(images, options.told("reconstructing")):
        codes = model.encode(originals)
        results = model.decode(codes)[:, : originals.shape[1], : originals.shape[2]]
        usage.update(codes, originals.shape[0] * originals.shape[1] * originals.shape[2])
        for metric in metrics:
            metric.update(originals, results)
        errors[rows] = np.square(originals.astype(np.float64) - results).mean(axis=(1, 2, 3))
    perceptual = PerceptualDistance(extractor)
    some = spread(len(images), PERCEPTUAL)
    compared = options.told("comparing feature maps")
    for start in range(0, len(some), BATCH):
        originals = images.pixels(some[start : start + BATCH])
        perceptual.update(originals, model.reconstruct(originals))
        if compared is not None:
            compared(start + len(originals), len(some))
    reconstructed = Reconstructed(model, images)
    real = collect(images, extractor, cache=options.cache, progress=options.told("features of the images"))
    fake = collect(
        reconstructed, extractor, cache=options.cache, progress=options.told("features of the reconstructions")
    )
    figures: list[Figure] = [figure for metric in metrics for figure in metric.compute()]
    figures += perceptual.compute()
    figures += measure_distribution(real, fake, seed=options.seed, neighbours=options.neighbours)
    figures += usage.compute()
    evaluation = Evaluation(
        form="autoencoder",
        subject=model_subject(model, reconstructed),
        reference=described(images),
        protocol=protocol_of(
            extractor=extractor.record(),
            reference_fingerprint=images.fingerprint,
            reference_count=len(images),
            judged_count=len(images),
            neighbours=options.neighbours,
            seed=options.seed,
            image_size=size_in_words(images),
            image_resize=options.resize,
            perceptual_images=len(some),
        ),
        figures=tuple(figures),
        warnings=(*warnings, *warn_of_seen(model, images), *warn_of_few(extractor, len(images), len(images))),
        **circumstances(options, extractor),
    )
    worst = np.argsort(errors)[::-1][: SHOWN // 3].copy()
    pairs = [
        ("Some images above, what came back below.", *_pair(model, images, shown)),
        ("The images that lost most.", *_pair(model, images, worst)),
    ]
    psnr = -10 * np.log10(np.maximum(errors, 1e-3) / 255**2)
    histogram = Histogram("PSNR of each image", {"images": psnr}, "dB")
    return evaluation, Exhibits(pairs=pairs, histograms=[histogram])


def _pair_metrics(images: PackedImages) -> tuple[list[PairMetric], list[str]]:
    """PSNR, and the similarities that fit into images of this size."""
    metrics: list[PairMetric] = [PeakSignalToNoise()]
    warnings = []
    some = sample(images, 1)
    for kind in (StructuralSimilarity, MultiScaleStructuralSimilarity):
        try:
            kind().update(some, some)
        except TooSmallError as error:
            warnings.append(str(error))
        else:
            metrics.append(kind())
    return metrics, warnings


def _pair(model: Model, images: PackedImages, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    originals = images.pixels(indices)
    return originals, model.reconstruct(originals)
