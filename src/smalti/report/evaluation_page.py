"""The page of an evaluation: what must be known first, figures with their meaning, pictures, and how it was measured.

    page = evaluation_page(evaluation, pictures=[("Generated, not selected.", images)], neighbours=Neighbours(...))
    page.write("report.html")

Pictures are uint8 (N, H, W, C); a page shows every one of them, so the caller chooses how many and which.
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
from smalti.report.html import Report
from smalti.report.pictures import enlarge, grid, side_by_side
from smalti.report.record import Evaluation, decimals, table, title, written

SHEET_WIDTH = 756  # pixels, the room a page has for a picture; a wider one would be shown at a broken scale
TILE_LIMIT = 160  # pixels; larger images are shrunk for the page
SMALLEST_TILE = 48  # pixels; smaller images are enlarged by a whole factor to at least this
CLASSES_IN_TABLE = 40
BINS = 40

EXPLANATIONS = {
    "frechet_distance": "Distance between the feature distributions, taken as Gaussians: 0 is identical, "
    "and two samples of the same kind stay above it while N is finite.",
    "frechet_distance_infinity": "The same distance with the bias of a finite N taken out by extrapolation.",
    "kernel_distance": "Distance between the feature distributions with no Gaussian assumed and no bias: "
    "0 is identical, and slightly negative values are chance.",
    "precision": "Share of the judged images that look like some reference image: fidelity.",
    "recall": "Share of the reference images that the judged ones come close to: variety.",
    "density": "How many reference images' neighbourhoods a judged image falls into, 1 for the same distribution.",
    "coverage": "Share of the reference images with a judged image in their neighbourhood: variety, without outliers.",
    "copied_share": "Share of the judged images that are copies of training images, as far as the features tell.",
    "authenticity": "Share of the judged images that lie farther from their nearest training image than that one does "
    "from its own nearest.",
    "c_t": "Whether judged images lie nearer to the training images than held-out ones do, in standard errors: "
    "0 is as near, far below 0 is memorised, far above 0 is underfitted.",
    "psnr_db": "Error of the pixels on a logarithmic scale: 3 dB more is half the squared error.",
    "ssim": "Similarity of local brightness, contrast and structure, 1 for identical images.",
    "ms_ssim": "The same similarity over several scales.",
    "perceptual_distance": "Distance of the feature maps of a network, nearer to what people see; 0 is identical.",
    "classifier_score": "How sure a classifier is of each image and how evenly it uses its classes; from 1 up to their "
    "number (with Inception's classes, the Inception score).",
    "classification_accuracy_score": "Accuracy on real images of a classifier that was trained on the judged ones.",
    "classification_accuracy_score_ceiling": "The same of a classifier trained on real images: what could be reached.",
    "accuracy": "Share of images that are given their class.",
    "macro_precision": "Of the images given a class, the share that is of it; mean over classes.",
    "macro_recall": "Of the images of a class, the share that is given it; mean over classes.",
    "macro_f1": "Harmonic mean of the two, class by class; mean over classes.",
    "linear_probe_accuracy": "Accuracy of a linear classifier on the features: how much they say of the classes.",
    "codes_used": "Share of the codebook that occurs at all.",
    "perplexity": "How many codes in even use would carry as much information.",
    "norm_ratio": "Size of the encoder's latents over that of their codes: 1 where the codebook keeps up.",
    "rate_bpp": "What a fixed number of bits for each code costs.",
    "entropy_bpp": "What an ideal coder that knows each code's frequency would need.",
    "bits_per_code": "What a code costs an ideal coder that the prior drives.",
    "bits_per_dimension": "The same for all codes of an image, over its pixels times channels.",
}
"""One plain sentence for each figure, by its name in files."""
NAMES = {"metrics": "version of the metrics", "judged_count": "images judged", "reference_count": "reference images"}
"""Keys of a protocol that read better in other words."""


@dataclass(frozen=True)
class Neighbours:
    """Judged images beside the training images nearest to them, to see whether any is copied.

    Attributes:
        images: (N, H, W, C) uint8.
        nearest: (N, K, H, W, C) uint8, the nearest first; with K = 4, two rows of small images fit side by side.
        distances: (N, K) in the extractor's features, None when unknown.
    """

    images: np.ndarray
    nearest: np.ndarray
    distances: np.ndarray | None = None


@dataclass(frozen=True)
class Histogram:
    """How values of one kind are distributed in one or several sets, such as nearest-neighbour distances.

    Attributes:
        title: printed above.
        values: name of the set to its numbers, of any count; what is not finite is left out.
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
    """The whole page, in the order a reader needs it.

    Args:
        evaluation: the record.
        pictures: captions with (N, H, W, C) uint8 images for a sheet, or with one (H, W, C) picture as it is.
        pairs: captions with originals and what came back for them, two uint8 arrays of one shape (N, H, W, C).
        neighbours: judged images and the training images nearest to them.
        histograms: of distances.
        curves: line charts.

    Raises:
        DataError: pictures that are none, or arrays that do not belong together.
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
    page.paragraph("Figures may be compared only with others for which everything in this table is the same.")
    page.facts(_facts(evaluation.protocol))
    page.heading("What was measured")
    page.facts(_provenance(evaluation))
    return page


def explanation(name: str) -> str:
    """One plain sentence on a figure, "" for one that has none."""
    return EXPLANATIONS.get(name, "")


# Words


def _headline(evaluation: Evaluation) -> str:
    judged = evaluation.subject.get("path") or evaluation.subject.get("source") or "images"
    return f"Evaluation of {judged}"


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
    page.table(header, [(name, value, _unbroken(span), *rest) for name, value, span, *rest in rows])


def _meanings(page: Report, evaluation: Evaluation) -> None:
    """Each figure in a plain sentence, with what must be known of this one."""
    meanings = {}
    for figure in evaluation.figures:
        way = f"{figure.better.capitalize()} is better." if figure.better else ""
        parts = (explanation(figure.name), way, _sentence(figure.note))
        meanings[title(figure.name, evaluation)] = " ".join(part for part in parts if part)
    page.facts(meanings)


def _unbroken(text: str) -> str:
    """Text that stays on one line."""
    return text.replace(" ", "\u00a0")


def _sentence(text: str) -> str:
    text = text.strip()
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _provenance(evaluation: Evaluation) -> dict[str, str]:
    rows = _facts(evaluation.subject, "judged: ") | _facts(evaluation.reference, "reference: ")
    rows["measured"] = f"{evaluation.date}, smalti {evaluation.version}"
    if evaluation.machine:
        rows["machine"] = evaluation.machine
    if evaluation.command:
        rows["command"] = " ".join(evaluation.command)
    return rows


def _facts(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested table as rows, in words: {"extractor": {"size": 128}} becomes "extractor, size": "128"."""
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


# Sheets: uint8 (N, H, W, C) in, a picture with its caption out


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
    """Rows of a judged image, a gap, and its nearest training images; several rows side by side where there is room."""
    images, nearest, distances = neighbours.images, neighbours.nearest, neighbours.distances
    if nearest.ndim != 5 or nearest.shape[0] != len(images) or nearest.shape[2:] != images.shape[1:]:
        raise DataError(
            f"nearest images must be (N, K, H, W, C) beside judged images (N, H, W, C), "
            f"but they are {nearest.shape} and {images.shape}"
        )
    if distances is not None and distances.shape != nearest.shape[:2]:
        raise DataError(f"distances are {distances.shape} for nearest images of shape {nearest.shape}; expected (N, K)")
    caption = "Left of each gap a judged image, right of it the training images nearest to it, nearest first."
    if distances is not None and distances.size:
        closest = [float(end) for end in (distances[:, 0].min(), distances[:, 0].max())]
        near, far = (written(end, decimals(end)) for end in closest)
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
    if columns > 1:  # more room between two rows' groups than within one
        row = np.concatenate([row, _blank(row, 24)], axis=2)
    return grid(row, columns=columns), caption


def _tiles(images: np.ndarray, caption: str) -> tuple[np.ndarray, str]:
    """Images at a size at which a sheet shows them: small ones enlarged by repeating pixels, large ones shrunk."""
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
    """A strip of background as high as the images: white, or transparent where they can be."""
    count, height, _, channels = images.shape
    return np.full((count, height, width, channels), 0 if channels == 4 else 255, np.uint8)


def _columns(count: int, pitch: int) -> int:
    """Columns that fill the page's width, and where there are few images, rows of about one length."""
    fitting = max(1, SHEET_WIDTH // pitch)
    if count <= fitting:
        return count
    rows = -(-count // fitting)
    return -(-count // rows)


# Charts


def _histogram(page: Report, histogram: Histogram) -> None:
    """Outlines over common bins, as shares, so that sets of different sizes can be compared."""
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
        # A step for each bin, from the ground and back to it.
        series[name] = (np.repeat(edges, 2).tolist(), [0.0, *np.repeat(shares, 2).tolist(), 0.0])
    page.lines(histogram.title, series, x_label=histogram.x_label, y_label="% of images")


def _classes(page: Report, evaluation: Evaluation) -> None:
    rows = list(evaluation.classes)
    page.bars("F1 of each class", [row["f1"] for row in rows], labels=[row["name"] for row in rows],
              x_label="class", y_label="F1")  # fmt: skip
    caption = ""
    if len(rows) > CLASSES_IN_TABLE:
        # NaN sorts as the worst there is.
        rows = sorted(rows, key=lambda row: -1.0 if math.isnan(row["f1"]) else row["f1"])[:CLASSES_IN_TABLE]
        caption = f"The {CLASSES_IN_TABLE} classes of {len(evaluation.classes)} with the lowest F1."
    body = [
        (row["name"], *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), f"{row['count']:,}")
        for row in rows
    ]
    page.table(("class", "precision", "recall", "F1", "images"), body, caption)
