"""What an autoencoder gives back, what its codes cost, and how they are used."""

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
    circumstances,
    described,
    model_subject,
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
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.pipelines.base import Model
from smalti.quantize.health import diagnose
from smalti.report.evaluation_page import Histogram
from smalti.report.record import Evaluation, protocol_of
from smalti.runtime.pixels import to_tensor

FEWEST_PER_CODE = 5  # with so many chances each, even use leaves out fewer than one code in a hundred
PERCEPTUAL = 2_000  # images whose feature maps are compared: maps are hundreds of times larger than features


def measure_autoencoder(
    model: Model, images: PackedImages, *, extractor: Extractor, options: Options = DEFAULTS
) -> tuple[Evaluation, ReportContent]:
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
    usage = CodeUsage(model.codebook_sizes)
    metrics, warnings = _pair_metrics(images)
    shown = evenly_spread(len(images), SHOWN)
    errors = np.empty(len(images))
    for rows, originals in batches(images, options.progress_for("reconstructing")):
        codes = model.encode(originals)
        results = model.decode(codes)[:, : originals.shape[1], : originals.shape[2]]
        usage.update(codes, originals.shape[0] * originals.shape[1] * originals.shape[2])
        for metric in metrics:
            metric.update(originals, results)
        errors[rows] = np.square(originals.astype(np.float64) - results).mean(axis=(1, 2, 3))
    perceptual = PerceptualDistance(extractor)
    some = evenly_spread(len(images), PERCEPTUAL)
    sizes = []
    compared = options.progress_for("comparing feature maps")
    for start in range(0, len(some), BATCH):
        originals = images.pixels(some[start : start + BATCH])
        perceptual.update(originals, model.reconstruct(originals))
        sizes.append(_sizes(model, originals))
        if compared is not None:
            compared(start + len(originals), len(some))
    reconstructed = Reconstructed(model, images)
    real = collect(images, extractor, cache=options.cache, progress=options.progress_for("features of the images"))
    fake = collect(
        reconstructed, extractor, cache=options.cache, progress=options.progress_for("features of the reconstructions")
    )
    figures: list[MetricValue] = [figure for metric in metrics for figure in metric.compute()]
    figures += perceptual.compute()
    figures += measure_distribution(real, fake, seed=options.seed, neighbours=options.neighbours)
    figures += usage.compute()
    figures += _norm_ratio(model, np.concatenate(sizes))
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
        warnings=(
            *warnings,
            *_warn_of_codebook(model, figures, codes.size // len(codes) * len(images)),
            *warn_of_seen(model, images),
            *warn_of_few(extractor, len(images), len(images)),
        ),
        **circumstances(options, extractor),
    )
    worst = np.argsort(errors)[::-1][: SHOWN // 3].copy()
    pairs = [
        ("Some images above, what came back below.", *_pair(model, images, shown)),
        ("The images that lost most.", *_pair(model, images, worst)),
    ]
    psnr = -10 * np.log10(np.maximum(errors, 1e-3) / 255**2)
    histogram = Histogram("PSNR of each image", {"images": psnr}, "dB")
    return evaluation, ReportContent(pairs=pairs, histograms=[histogram])


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


@torch.no_grad()
def _sizes(model: Model, originals: np.ndarray) -> np.ndarray:
    """(N, 2) float64: mean squares of each image's latents, and of what its codes stand for."""
    autoencoder = cast(Autoencoder, model.module)
    latents = autoencoder.latents(to_tensor(originals, model.device))
    values = autoencoder.quantizer.decode(autoencoder.quantizer.encode(latents))
    return torch.stack([part.double().square().mean(dim=(1, 2, 3)) for part in (latents, values)], dim=1).cpu().numpy()


def _norm_ratio(model: Model, sizes: np.ndarray) -> list[MetricValue]:
    if not cast(Autoencoder, model.module).quantizer.codes_in_latent_space or not sizes[:, 1].any():
        return []
    of_latents, of_codes = np.sqrt(sizes.mean(axis=0))
    low, high = bounds(sizes, lambda means: np.sqrt(means[:, 0] / np.maximum(means[:, 1], 1e-30)))
    return [MetricValue("norm_ratio", float(of_latents / of_codes), low, high, len(sizes))]


def _warn_of_codebook(model: Model, figures: list[MetricValue], codes: int) -> list[str]:
    """What is wrong with the codebook and what to try, where enough codes were counted to know."""
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


def _pair(model: Model, images: PackedImages, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    originals = images.pixels(indices)
    return originals, model.reconstruct(originals)
