"""Evaluation of a prior by the likelihood of the codes of held-out images.

    bits per code       mean of -log2 p(code | preceding codes), the rate of an arithmetic coder that uses the prior
    bits per dimension  bits of all codes of an image, divided by its pixels times channels; the likelihood is that of
                        the codes, not of the pixels

For comparison, the record also contains the rates of a fixed-length code and of an order-0 entropy coder
(metrics/codes.py).
"""

from __future__ import annotations

import math

import numpy as np

from smalti.checkpoint.run_dir import RunFolder
from smalti.data import PackedImages
from smalti.errors import DataError, arg
from smalti.evaluation.common import (
    DEFAULTS,
    SHOWN,
    Options,
    ReportContent,
    batches,
    described,
    model_subject,
    run_info,
    sample,
    size_in_words,
    warn_of_seen,
)
from smalti.metrics.bootstrap import mean_interval
from smalti.metrics.codes import CodeUsage
from smalti.metrics.metric import MetricValue
from smalti.pipelines.base import require
from smalti.pipelines.prior import Prior
from smalti.report.evaluation_page import Curve, Histogram
from smalti.report.record import Evaluation, protocol_of


def measure_prior(
    model: Prior, images: PackedImages, *, options: Options = DEFAULTS, run: RunFolder | None = None
) -> tuple[Evaluation, ReportContent]:
    """Measure bits per code and bits per dimension of images under a prior.

    Args:
        model: a causal prior.
        images: held-out images, of the shape that the prior generates.
        options: see `Options`.
        run: run folder of the training, whose log is plotted.

    Raises:
        CheckpointError: the model is no prior.
        ConfigError: the prior is masked and has no tractable likelihood.
        DataError: no images, or images of another shape.
    """
    require(model, Prior)
    model.check_likelihood()
    channels, height, width = model.card.image.shape
    if images.shape != (channels, height, width):
        raise DataError(
            f"{model.path} makes images of {height}x{width}x{channels}, but {images.source} holds "
            f"{size_in_words(images)}; give {arg('size', f'{height}x{width}')} and {arg('channels', channels)}"
        )
    labels, unlabelled = _labels(model, images)
    bits, usage = _code_bits(model, images, labels, options)
    evaluation = Evaluation(
        form="prior",
        subject=model_subject(model, images),
        reference=described(images),
        protocol=protocol_of(
            extractor=None,
            reference_fingerprint=images.fingerprint,
            reference_count=len(images),
            judged_count=len(images),
            seed=options.seed,
            image_size=size_in_words(images),
            image_resize=options.resize,
            tokenizer="" if model.card.tokenizer is None else model.card.tokenizer.digest,
            labels=labels is not None,
        ),
        figures=(*_bit_rates(model, images, bits, options.seed), *usage.compute()),
        warnings=(*warn_of_seen(model, images), *unlabelled),
        **run_info(options, model.device),
    )
    count = min(SHOWN, max(len(images), 1))
    pictures = [
        ("Drawn by the prior, the first ones, not selected.", model.generate(count, seed=options.seed)),
        ("Images whose codes were measured.", sample(images, SHOWN)),
    ]
    histogram = Histogram("Bits of an image", {"measured": bits.sum(axis=1)}, "bits")
    curves = () if run is None else _curve(run)
    return evaluation, ReportContent(pictures=pictures, histograms=[histogram], curves=curves)


def _labels(model: Prior, images: PackedImages) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The labels to condition on, None without; a warning if the prior is conditional and they are missing."""
    condition = getattr(model.card.config.model, "condition", "")
    if condition == "class" and images.labels is not None and images.classes == model.card.classes:
        return np.asarray(images.labels), ()
    if condition == "class":
        return None, (f"{images.source} has no labels that {model.path} knows: these are the bits without any",)
    if condition == "text":
        return None, (f"{model.path} knows captions, but these are the bits without any",)
    return None, ()


def _code_bits(
    model: Prior, images: PackedImages, labels: np.ndarray | None, options: Options
) -> tuple[np.ndarray, CodeUsage]:
    """Bits of each code of each image, (N, codes) float64, and the usage of the codes."""
    usage, bits = CodeUsage(model.codebook_sizes), []
    for rows, pixels in batches(images, options.progress_for("bits of the codes")):
        codes, found = model.code_bits(pixels, labels=None if labels is None else labels[rows])
        usage.update(codes, pixels.shape[0] * pixels.shape[1] * pixels.shape[2])
        bits.append(found.reshape(len(pixels), -1))
    return np.concatenate(bits).astype(np.float64), usage


def _bit_rates(model: Prior, images: PackedImages, bits: np.ndarray, seed: int) -> tuple[MetricValue, MetricValue]:
    """`bits_per_code` and `bits_per_dimension`, with bootstrap intervals over images."""
    low, high = mean_interval(bits.mean(axis=1), seed=seed) if len(bits) > 1 else (None, None)
    per_dimension = bits.shape[1] / math.prod(images.shape)
    ends = (None, None) if low is None or high is None else (low * per_dimension, high * per_dimension)
    mean, count = float(bits.mean()), len(bits)
    uniform = float(np.mean(np.log2(model.codebook_sizes)))
    uniform_note, codes_note = f"{uniform:g} if uniform", "of the codes, not of the pixels"
    return (
        MetricValue("bits_per_code", mean, low, high, count, "lower", "bits", uniform_note),
        MetricValue("bits_per_dimension", mean * per_dimension, ends[0], ends[1], count, "lower", "bits", codes_note),
    )


def _curve(run: RunFolder) -> tuple[Curve, ...]:
    """Bits per code during training, on training codes and on held-out codes."""
    records = [record for record in run.records() if isinstance(record, dict)]
    trained = [(record["images_seen"], record["bits"]) for record in records if "bits" in record]
    scored = [
        (record["images_seen"], record["value"])
        for record in records
        if record.get("event") == "score"
        and record.get("value") is not None
        and record.get("name") == "bits_per_code"
        and record.get("on") == "held-out"
    ]
    series = {
        name: ([float(seen) for seen, _ in points], [float(value) for _, value in points])
        for name, points in (("training, with dropout", trained), ("held out, averaged weights", scored))
        if points
    }
    return (Curve("Bits of a code", series, "images seen", "bits"),) if series else ()
