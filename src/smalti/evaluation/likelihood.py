"""How many bits the codes of images are under a prior.

    bits per code       mean of -log2 p(c | those before it): what an arithmetic coder driven by the prior comes to
    bits per dimension  bits of all codes of an image over its pixels times channels: of the codes, not of the pixels

Beside them what a fixed length and what the codes' own frequencies, of order 0, would cost: metrics/codes.py.
"""

from __future__ import annotations

import numpy as np

from smalti.checkpoint.run_dir import RunFolder
from smalti.data import PackedImages
from smalti.errors import DataError
from smalti.evaluation.common import (
    DEFAULTS,
    SHOWN,
    Options,
    ReportContent,
    described,
    model_subject,
    now,
    sample,
    size_in_words,
    warn_of_seen,
)
from smalti.metrics.bootstrap import mean_interval
from smalti.metrics.codes import CodeUsage
from smalti.metrics.metric import MetricValue
from smalti.pipelines.base import Model
from smalti.report.evaluation_page import Curve, Histogram
from smalti.report.record import Evaluation, protocol_of


def measure_prior(
    model: Model, images: PackedImages, *, options: Options = DEFAULTS, run: RunFolder | None = None
) -> tuple[Evaluation, ReportContent]:
    """Bits of the codes of images.

    Args:
        model: any checkpoint of a causal prior.
        images: held-out images, of the shape that it makes.
        run: the folder of its training, whose log the curve is drawn from.

    Raises:
        CheckpointError: the model is no prior.
        ConfigError: a masked prior, which knows no likelihood.
        DataError: no images, or images of another shape.
    """
    model.check_likelihood()
    channels, height, width = model.card.image
    if images.shape != (channels, height, width):
        raise DataError(
            f"{model.path} makes images of {height}x{width}x{channels}, but {images.source} holds "
            f"{size_in_words(images)}; give --size {height}x{width} and --channels {channels}"
        )
    condition = getattr(model.card.config.model, "condition", "")
    labels, unlabelled = None, tuple[str, ...]()
    if condition == "class" and images.labels is not None and images.classes == model.card.classes:
        labels = np.asarray(images.labels)
    elif condition == "class":
        unlabelled = (f"{images.source} has no labels that {model.path} knows: these are the bits without any",)
    elif condition == "text":
        unlabelled = (f"{model.path} knows captions, but these are the bits without any",)
    usage, bits, tell = CodeUsage(model.prior_codebook_sizes), [], options.progress_for("bits of the codes")
    for start in range(0, len(images), 64):
        rows = np.arange(start, min(start + 64, len(images)))
        codes, found = model.code_bits(images.pixels(rows), labels=None if labels is None else labels[rows])
        usage.update(codes, len(rows) * height * width)
        bits.append(found.reshape(len(rows), -1))
        if tell is not None:
            tell(int(rows[-1]) + 1, len(images))
    each = np.concatenate(bits).astype(np.float64)
    uniform = float(np.mean(np.log2(model.prior_codebook_sizes)))
    low, high = mean_interval(each.mean(axis=1), seed=options.seed) if len(each) > 1 else (None, None)
    per_dimension = each.shape[1] / (channels * height * width)
    ends = (None, None) if low is None or high is None else (low * per_dimension, high * per_dimension)
    mean, count = float(each.mean()), len(each)
    uniform_note, codes_note = f"{uniform:g} if uniform", "of the codes, not of the pixels"
    figures = (
        MetricValue("bits_per_code", mean, low, high, count, "lower", "bits", uniform_note),
        MetricValue("bits_per_dimension", mean * per_dimension, ends[0], ends[1], count, "lower", "bits", codes_note),
        *usage.compute(),
    )
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
        figures=figures,
        warnings=(*warn_of_seen(model, images), *unlabelled),
        **now(options, model.device),
    )
    count = min(SHOWN, max(len(images), 1))
    pictures = [
        ("Drawn by the prior, the first ones, not selected.", model.generate(count, seed=options.seed)),
        ("Images whose codes were measured.", sample(images, SHOWN)),
    ]
    histogram = Histogram("Bits of an image", {"measured": each.sum(axis=1)}, "bits")
    curves = () if run is None else _curve(run)
    return evaluation, ReportContent(pictures=pictures, histograms=[histogram], curves=curves)


def _curve(run: RunFolder) -> tuple[Curve, ...]:
    """Bits while it was trained, of training codes and of held-out ones."""
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
