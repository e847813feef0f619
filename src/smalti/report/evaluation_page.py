"""HTML report of an evaluation: warnings, metric values with explanations, images, and the protocol.

    page = evaluation_page(evaluation, pictures=[("Generated, not selected.", images)], neighbours=Neighbours(...))
    page.write("report.html")

Images are uint8 (N, H, W, C). The page shows all of them, so the caller chooses how many and which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smalti.data.images import change
from smalti.errors import DataError
from smalti.report.axes import Series
from smalti.report.formatting import decimal_places, format_number
from smalti.report.html import Report
from smalti.report.pictures import enlarge, grid, side_by_side
from smalti.report.record import Evaluation, table, title

SHEET_WIDTH = 756  # pixels, the width of the page; wider pictures would be scaled by a fractional factor
TILE_LIMIT = 160  # pixels; larger images are downscaled for the page
SMALLEST_TILE = 48  # pixels; smaller images are enlarged by an integer factor to at least this size
CLASSES_IN_TABLE = 40
BINS = 40

EXPLANATIONS = {
    "frechet_distance": "Distance between Gaussians fitted to the two feature distributions: 0 for identical "
    "distributions; with finite N it stays above 0 even for two samples of the same distribution.",
    "frechet_distance_infinity": "The Frechet distance with the bias of a finite N removed by extrapolation.",
    "kernel_distance": "Unbiased distance between the feature distributions that assumes no Gaussian: 0 for identical "
    "distributions; sampling noise can make it slightly negative.",
    "precision": "Proportion of the evaluated images that are similar to some reference image: fidelity.",
    "recall": "Proportion of the reference images that are similar to some evaluated image: diversity.",
    "density": "Number of reference neighbourhoods that contain an evaluated image, relative to k: fidelity, 1 for the "
    "same distribution.",
    "coverage": "Proportion of the reference images with an evaluated image in their neighbourhood: diversity, robust "
    "to outliers.",
    "copied_share": "Estimated proportion of the evaluated images that are copies of training images.",
    "authenticity": "Proportion of the evaluated images that are farther from their nearest training image than that "
    "one is from its own nearest neighbour.",
    "c_t": "Whether evaluated images lie nearer to the training images than held-out images do, in standard errors: "
    "about 0 if not, far below 0 for memorisation, far above 0 for underfitting.",
    "psnr_db": "Squared error of the pixels on a logarithmic scale: 3 dB more is half the squared error.",
    "ssim": "Similarity of local brightness, contrast and structure; 1 for identical images.",
    "ms_ssim": "Structural similarity over several scales.",
    "perceptual_distance": "Distance between the feature maps of a network, closer to human perception than pixel "
    "errors; 0 for identical images.",
    "classifier_score": "How confident a classifier is on each image and how evenly its predictions cover the classes; "
    "from 1 to the number of classes (with the Inception network, the Inception score).",
    "classification_accuracy_score": "Accuracy on real images of a classifier trained on the evaluated images.",
    "classification_accuracy_score_ceiling": "Accuracy of the same classifier trained on real images: the upper "
    "reference value.",
    "accuracy": "Proportion of images that are classified correctly.",
    "macro_precision": "Proportion of the images predicted as a class that belong to it; mean over classes.",
    "macro_recall": "Proportion of the images of a class that are predicted as it; mean over classes.",
    "macro_f1": "Harmonic mean of precision and recall per class; mean over classes.",
    "linear_probe_accuracy": "Accuracy of a linear classifier on the features: how well they separate the classes.",
    "codes_used": "Proportion of the codebook that is used at all.",
    "perplexity": "Effective number of codes: exp of the entropy of the code frequencies.",
    "norm_ratio": "Norm of the encoder's latents relative to that of their codes: 1 if the codebook keeps up.",
    "rate_bpp": "Bit rate of the codes with a fixed-length code.",
    "entropy_bpp": "Bit rate of the codes with an ideal entropy coder that knows the frequency of each code.",
    "bits_per_code": "Negative log-likelihood of a code under the prior: its cost with an ideal entropy coder.",
    "bits_per_dimension": "Negative log-likelihood of all codes of an image, divided by its pixels times channels.",
}
"""Explanation of each metric in one sentence, by its name in files."""
NAMES = {"metrics": "version of the metrics", "judged_count": "images evaluated", "reference_count": "reference images"}
"""Display names of protocol keys that are not clear by themselves."""


@dataclass(frozen=True)
class Neighbours:
    """Generated images with their nearest training images, to reveal copies.

    Attributes:
        images: (N, H, W, C) uint8.
        nearest: (N, K, H, W, C) uint8, nearest first; with K = 4, two rows of small images fit side by side.
        distances: (N, K) distances in feature space; None if unknown.
    """

    images: np.ndarray
    nearest: np.ndarray
    distances: np.ndarray | None = None


@dataclass(frozen=True)
class Histogram:
    """A histogram of one quantity over one or several sets, such as nearest-neighbour distances.

    Attributes:
        title: printed above.
        values: name of the set to its values, of any number; values that are not finite are ignored.
        x_label: with the unit.
    """

    title: str
    values: Mapping[str, np.ndarray]
    x_label: str


@dataclass(frozen=True)
class Curve:
    """A line chart; see `Report.lines`."""

    title: str
    series: Series
    x_label: str
    y_label: str


def evaluation_page(
    evaluation: Evaluation,
    *,
    pictures: Sequence[tuple[str, np.ndarray]] = (),
    pairs: Sequence[tuple[str, np.ndarray, np.ndarray]] = (),
    neighbours: Neighbours | None = None,
    histograms: Sequence[Histogram] = (),
    curves: Sequence[Curve] = (),
) -> Report:
    """Build the report of an evaluation.

    Args:
        evaluation: the record.
        pictures: captions with (N, H, W, C) uint8 images for a contact sheet, or with one (H, W, C) picture.
        pairs: captions with originals and reconstructions, two (N, H, W, C) uint8 arrays of the same shape.
        neighbours: generated images with their nearest training images.
        histograms: histograms, for instance of distances.
        curves: line charts.

    Raises:
        DataError: arrays of the wrong type, or whose shapes do not match.
    """
    page = Report(_headline(evaluation), _subtitle(evaluation))
    if evaluation.warnings:
        page.heading("Read this first")
        for warning in evaluation.warnings:
            page.paragraph(warning)
    if evaluation.figures:
        page.heading("Figures")
        _figures(page, evaluation)
    if pictures or pairs:
        page.heading("What it looks like")
    for caption, images in pictures:
        page.picture(*_sheet(images, caption))
    for caption, before, after in pairs:
        page.picture(*_pairs(before, after, caption))
    if neighbours is not None:
        page.heading("Nearest training images")
        page.picture(*_neighbours(neighbours))
    for histogram in histograms:
        _histogram(page, histogram)
    for curve in curves:
        page.lines(curve.title, curve.series, x_label=curve.x_label, y_label=curve.y_label)
    if evaluation.classes:
        page.heading("Class by class")
        _classes(page, evaluation)
    if evaluation.figures:
        page.heading("What the figures mean")
        _meanings(page, evaluation)
    page.heading("How it was measured")
    page.paragraph("Metric values are comparable only if everything in this table is the same.")
    page.facts(_facts(evaluation.protocol))
    page.heading("What was measured")
    page.facts(_provenance(evaluation))
    return page


def explanation(name: str) -> str:
    """Explanation of a metric in one sentence; "" for an unknown metric."""
    return EXPLANATIONS.get(name, "")


# Text


def _headline(evaluation: Evaluation) -> str:
    subject = evaluation.subject.get("path") or evaluation.subject.get("source") or "images"
    return f"Evaluation of {subject}"


def _subtitle(evaluation: Evaluation) -> str:
    words = {
        "generator": "images of a generator",
        "folder": "images of a folder",
        "autoencoder": "images through an autoencoder",
        "encoder": "images through an encoder",
        "prior": "images by their codes",
    }
    text = words[evaluation.form]
    count = evaluation.subject.get("count")
    if isinstance(count, int):
        text = f"{count:,} {text}"
    source, split = evaluation.reference.get("source"), evaluation.reference.get("split")
    if source:
        text += f", against {source}" + (f" ({split} split)" if split else "")
        count = evaluation.reference.get("count")
        text += f", {count:,} images" if isinstance(count, int) else ""
    return text[0].upper() + text[1:]


def _figures(page: Report, evaluation: Evaluation) -> None:
    header, rows = table(evaluation)
    page.table(header, [(name, value, _unbroken(interval), *rest) for name, value, interval, *rest in rows])


def _meanings(page: Report, evaluation: Evaluation) -> None:
    """The explanation of each metric, with the note of its value."""
    meanings = {}
    for figure in evaluation.figures:
        direction = f"{figure.better.capitalize()} is better." if figure.better else ""
        parts = (explanation(figure.name), direction, _sentence(figure.note))
        meanings[title(figure.name, evaluation)] = " ".join(part for part in parts if part)
    page.facts(meanings)


def _unbroken(text: str) -> str:
    """Text with non-breaking spaces."""
    return text.replace(" ", "\u00a0")


def _sentence(text: str) -> str:
    text = text.strip()
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _provenance(evaluation: Evaluation) -> dict[str, str]:
    rows = _facts(evaluation.subject, "evaluated: ") | _facts(evaluation.reference, "reference: ")
    rows["measured"] = f"{evaluation.date}, smalti {evaluation.version}"
    if evaluation.machine:
        rows["machine"] = evaluation.machine
    if evaluation.command:
        rows["command"] = " ".join(evaluation.command)
    return rows


def _facts(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested table as flat rows: {"extractor": {"size": 128}} becomes "extractor, size": "128"."""
    rows: dict[str, str] = {}
    for key, value in values.items():
        name = prefix + NAMES.get(key, key.replace("_", " "))
        if isinstance(value, Mapping):
            rows |= _facts(value, f"{name}, ")
        elif key == "size" and isinstance(value, list) and len(value) == 2:
            rows[name] = f"{value[0]}x{value[1]} pixels"
        elif isinstance(value, list):
            rows[name] = ", ".join(_fact(item) for item in value)
        else:
            rows[name] = _fact(value)
    return rows


def _fact(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value)
    digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return f"{text[:16]}…" if digest else text


# Contact sheets: (N, H, W, C) uint8 -> a picture and its caption


def _sheet(images: np.ndarray, caption: str) -> tuple[np.ndarray, str]:
    if images.ndim != 4:
        return images, caption
    tiles, caption = _tiles(images, caption)
    return grid(tiles, columns=_columns(len(tiles), tiles.shape[2] + 2)), caption


def _pairs(before: np.ndarray, after: np.ndarray, caption: str) -> tuple[np.ndarray, str]:
    upper, words = _tiles(before, caption)
    lower, _ = _tiles(after, caption)
    columns = _columns(len(upper), upper.shape[2] + 2) if upper.shape == lower.shape else None
    return side_by_side(upper, lower, columns=columns), words


def _neighbours(neighbours: Neighbours) -> tuple[np.ndarray, str]:
    """Rows of an image, a gap and its nearest training images; several rows side by side if the width allows it."""
    images, nearest, distances = neighbours.images, neighbours.nearest, neighbours.distances
    if nearest.ndim != 5 or nearest.shape[0] != len(images) or nearest.shape[2:] != images.shape[1:]:
        raise DataError(
            f"nearest images must be (N, K, H, W, C) for images (N, H, W, C), "
            f"but they are {nearest.shape} and {images.shape}"
        )
    if distances is not None and distances.shape != nearest.shape[:2]:
        raise DataError(f"distances are {distances.shape} for nearest images of shape {nearest.shape}; expected (N, K)")
    caption = "Left of each gap an evaluated image, right of it its nearest training images, nearest first."
    if distances is not None and distances.size:
        closest = [float(end) for end in (distances[:, 0].min(), distances[:, 0].max())]
        near, far = (format_number(end, decimal_places(end)) for end in closest)
        caption += f" The nearest are {near} to {far} away in the features."
    tiles, caption = _tiles(images, caption)
    around = [_tiles(nearest[:, k], "")[0] for k in range(nearest.shape[1])]
    gap = _blank(tiles, max(6, tiles.shape[2] // 8))
    strip = _blank(tiles, 2)
    pieces = [tiles, gap]
    for column in around:
        pieces += [column, strip]
    row = np.concatenate(pieces[:-1], axis=2)
    across = max(1, (SHEET_WIDTH + 24) // (row.shape[2] + 24))
    columns = min(across, len(row))
    if columns > 1:  # a wider gap between the groups than within a group
        row = np.concatenate([row, _blank(row, 24)], axis=2)
    return grid(row, columns=columns), caption


def _tiles(images: np.ndarray, caption: str) -> tuple[np.ndarray, str]:
    """Images at the size of a sheet: small ones enlarged by repeating pixels, large ones downscaled."""
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3, 4) or images.size == 0:
        raise DataError(f"expected uint8 images (N, H, W, 1, 3 or 4), not {images.dtype} of shape {images.shape}")
    height, width, channels = images.shape[1:]
    side = max(height, width)
    if side > TILE_LIMIT:
        size = (max(1, round(height * TILE_LIMIT / side)), max(1, round(width * TILE_LIMIT / side)))
        shrunk = np.stack([change(image, channels=channels, size=size, resize="stretch") for image in images])
        return shrunk, f"{_sentence(caption)} Shown at {size[1]}x{size[0]} of their {width}x{height} pixels.".strip()
    return enlarge(images, -(-SMALLEST_TILE // side)), caption


def _blank(images: np.ndarray, width: int) -> np.ndarray:
    """A strip of background as high as the images: transparent if they have alpha, white otherwise."""
    count, height, _, channels = images.shape
    return np.full((count, height, width, channels), 0 if channels == 4 else 255, np.uint8)


def _columns(count: int, pitch: int) -> int:
    """Number of columns that fit the page, reduced so that the rows have about equal length."""
    fitting = max(1, SHEET_WIDTH // pitch)
    if count <= fitting:
        return count
    rows = -(-count // fitting)
    return -(-count // rows)


# Charts


def _histogram(page: Report, histogram: Histogram) -> None:
    """Outlines over common bins, normalised by set, so that sets of different sizes are comparable."""
    sets = {}
    for name, values in histogram.values.items():
        numbers = np.asarray(values, np.float64).ravel()
        sets[name] = numbers[np.isfinite(numbers)]
    everything = np.concatenate([np.empty(0), *sets.values()])
    if everything.size == 0:
        page.lines(histogram.title, {}, x_label=histogram.x_label, y_label="% of images")
        return
    low, high = float(everything.min()), float(everything.max())
    room = max(abs(low), abs(high), 1e-9) * 1e-6
    edges = np.linspace(low - room, high + room, BINS + 1)
    series = {}
    for name, numbers in sets.items():
        counts, _ = np.histogram(numbers, edges)
        shares = 100 * counts / max(len(numbers), 1)
        # One step per bin, starting and ending at 0.
        series[name] = (np.repeat(edges, 2).tolist(), [0.0, *np.repeat(shares, 2).tolist(), 0.0])
    page.lines(histogram.title, series, x_label=histogram.x_label, y_label="% of images")


def _classes(page: Report, evaluation: Evaluation) -> None:
    rows = list(evaluation.classes)
    page.bars("F1 of each class", [row["f1"] for row in rows], labels=[row["name"] for row in rows],
              x_label="class", y_label="F1")  # fmt: skip
    caption = ""
    if len(rows) > CLASSES_IN_TABLE:
        # NaN sorts as the lowest value.
        rows = sorted(rows, key=lambda row: -1.0 if math.isnan(row["f1"]) else row["f1"])[:CLASSES_IN_TABLE]
        caption = f"The {CLASSES_IN_TABLE} classes of {len(evaluation.classes)} with the lowest F1."
    body = [
        (row["name"], *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), f"{row['count']:,}")
        for row in rows
    ]
    page.table(("class", "precision", "recall", "F1", "images"), body, caption)
