"""Evaluation of an autoencoder: reconstruction quality, bit rate and codebook usage."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from smalti.config.vqvae import VQVAEConfig
from smalti.data import PackedImages
from smalti.data.order import evenly_spread
from smalti.errors import DataError
from smalti.evaluation.common import (
    BATCH,
    DEFAULTS,
    SHOWN,
    Options,
    Reconstructed,
    ReportContent,
    batches,
    described,
    model_subject,
    run_info,
    sample,
    size_in_words,
    warn_of_few,
    warn_of_seen,
)
from smalti.features.cache import collect
from smalti.features.extractor import Extractor
from smalti.metrics.codes import CodeUsage
from smalti.metrics.distortion import PeakSignalToNoise
from smalti.metrics.distribution import measure_distribution
from smalti.metrics.groups import bounds
from smalti.metrics.metric import MetricValue, PairMetric
from smalti.metrics.perceptual import PerceptualDistance
from smalti.metrics.ssim import MultiScaleStructuralSimilarity, StructuralSimilarity, TooSmallError
from smalti.models.autoencoder import autoencoder as networks
from smalti.pipelines.autoencoder import Autoencoder
from smalti.pipelines.base import require
from smalti.quantize.health import diagnose
from smalti.report.evaluation_page import Histogram
from smalti.report.record import Evaluation, protocol_of
from smalti.runtime.pixels import to_tensor

FEWEST_PER_CODE = 5  # codes per codebook entry; uniform usage then leaves fewer than one entry in a hundred unused
PERCEPTUAL = 2_000  # images for the perceptual distance, because maps are hundreds of times larger than features


def measure_autoencoder(
    model: Autoencoder, images: PackedImages, *, extractor: Extractor, options: Options = DEFAULTS
) -> tuple[Evaluation, ReportContent]:
    """Measure reconstruction quality, bit rate and codebook usage of an autoencoder.

    Args:
        model: an autoencoder.
        images: held-out images.
        extractor: the feature extractor.
        options: see `Options`.

    Raises:
        CheckpointError: the model is no autoencoder.
        DataError: too few images, or images with another number of channels.
    """
    require(model, Autoencoder)
    if len(images) < 2:
        raise DataError(f"{images.source} holds {len(images)} image; a distribution needs 2 or more")
    metrics, warnings = _pair_metrics(images)
    usage, errors, codes = _reconstruct(model, images, metrics, options)
    compared = evenly_spread(len(images), PERCEPTUAL)
    perceptual, sizes = _compare_maps(model, images, compared, extractor, options)
    reconstructed = Reconstructed(model, images)
    real = collect(images, extractor, cache=options.cache, progress=options.progress_for("features of the images"))
    fake = collect(
        reconstructed, extractor, cache=options.cache, progress=options.progress_for("features of the reconstructions")
    )
    figures: list[MetricValue] = [figure for metric in metrics for figure in metric.compute()]
    figures += perceptual.compute()
    figures += measure_distribution(real, fake, seed=options.seed, neighbours=options.neighbours)
    figures += usage.compute()
    figures += _norm_ratio(model, sizes)
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
            perceptual_images=len(compared),
        ),
        figures=tuple(figures),
        warnings=(
            *warnings,
            *_warn_of_codebook(model, figures, codes),
            *warn_of_seen(model, images),
            *warn_of_few(extractor, len(images), len(images)),
        ),
        **run_info(options, extractor.device),
    )
    return evaluation, _content(model, images, errors)


def _content(model: Autoencoder, images: PackedImages, errors: np.ndarray) -> ReportContent:
    """Reconstructions of some images and of the worst ones, and the distribution of PSNR, from mean squared errors."""
    worst = np.argsort(errors)[::-1][: SHOWN // 3].copy()
    pairs = [
        ("Some images above, their reconstructions below.", *_pair(model, images, evenly_spread(len(images), SHOWN))),
        ("The images with the largest errors.", *_pair(model, images, worst)),
    ]
    psnr = -10 * np.log10(np.maximum(errors, 1e-3) / 255**2)
    return ReportContent(pairs=pairs, histograms=[Histogram("PSNR of each image", {"images": psnr}, "dB")])


def _reconstruct(
    model: Autoencoder, images: PackedImages, metrics: list[PairMetric], options: Options
) -> tuple[CodeUsage, np.ndarray, int]:
    """Update the metrics with all reconstructions.

    Returns:
        The codebook usage, the mean squared error of each image (N,) float64, and the number of codes.
    """
    usage, errors, count = CodeUsage(model.codebook_sizes), np.empty(len(images)), 0
    for rows, originals in batches(images, options.progress_for("reconstructing")):
        codes = model.encode(originals)
        results = model.decode(codes)[:, : originals.shape[1], : originals.shape[2]]
        usage.update(codes, originals.shape[0] * originals.shape[1] * originals.shape[2])
        for metric in metrics:
            metric.update(originals, results)
        errors[rows] = np.square(originals.astype(np.float64) - results).mean(axis=(1, 2, 3))
        count += codes.size
    return usage, errors, count


def _compare_maps(
    model: Autoencoder, images: PackedImages, indices: np.ndarray, extractor: Extractor, options: Options
) -> tuple[PerceptualDistance, np.ndarray]:
    """The perceptual distance over some of the images, and their mean squares from `_mean_squares`."""
    perceptual, squares = PerceptualDistance(extractor), []
    progress = options.progress_for("comparing feature maps")
    for start in range(0, len(indices), BATCH):
        originals = images.pixels(indices[start : start + BATCH])
        perceptual.update(originals, model.reconstruct(originals))
        squares.append(_mean_squares(model, originals))
        if progress is not None:
            progress(start + len(originals), len(indices))
    return perceptual, np.concatenate(squares)


def _pair_metrics(images: PackedImages) -> tuple[list[PairMetric], list[str]]:
    """PSNR, and SSIM and MS-SSIM if the images are large enough, otherwise with a warning."""
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


@torch.no_grad()
def _mean_squares(model: Autoencoder, originals: np.ndarray) -> np.ndarray:
    """(N, 2) float64: for each image, the mean square of its latents and of its quantized latents."""
    autoencoder = cast(networks.Autoencoder, model.module)
    latents = autoencoder.latents(to_tensor(originals, model.device))
    values = autoencoder.quantizer.decode(autoencoder.quantizer.encode(latents))
    return torch.stack([part.double().square().mean(dim=(1, 2, 3)) for part in (latents, values)], dim=1).cpu().numpy()


def _norm_ratio(model: Autoencoder, sizes: np.ndarray) -> list[MetricValue]:
    if not cast(networks.Autoencoder, model.module).quantizer.codes_in_latent_space or not sizes[:, 1].any():
        return []
    of_latents, of_codes = np.sqrt(sizes.mean(axis=0))
    low, high = bounds(sizes, lambda means: np.sqrt(means[:, 0] / np.maximum(means[:, 1], 1e-30)))
    return [MetricValue("norm_ratio", float(of_latents / of_codes), low, high, len(sizes))]


def _warn_of_codebook(model: Autoencoder, figures: list[MetricValue], codes: int) -> list[str]:
    """A diagnosis of the codebook with advice, if it has a problem and there are enough codes to tell."""
    found = {figure.name: figure.value for figure in figures}
    if codes < FEWEST_PER_CODE * sum(model.codebook_sizes):
        return []
    advice = diagnose(
        round(sum(model.codebook_sizes) / len(model.codebook_sizes)),
        perplexity=found["perplexity"],
        used=found["codes_used"],
        ratio=found.get("norm_ratio"),
        config=cast(VQVAEConfig, model.card.config.model).quantizer,
    )
    return [advice] if advice else []


def _pair(model: Autoencoder, images: PackedImages, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    originals = images.pixels(indices)
    return originals, model.reconstruct(originals)
