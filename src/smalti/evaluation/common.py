"""Shared parts of all evaluations: options, report content, generated and reconstructed images, record entries."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smalti.checkpoint.file import Card
from smalti.data import PackedImages
from smalti.data.order import evenly_spread
from smalti.errors import DataError, arg
from smalti.features.cache import Images
from smalti.features.extractor import Extractor
from smalti.metrics.pairs import NEIGHBOURS
from smalti.pipelines.autoencoder import Autoencoder
from smalti.pipelines.base import Pipeline
from smalti.pipelines.gan import GAN
from smalti.pipelines.prior import Prior
from smalti.report.evaluation_page import Curve, Histogram, Neighbours

Progress = Callable[[str, int, int | None], None]

SHOWN = 50  # images per contact sheet of the report
BATCH = 64


@dataclass(frozen=True)
class ReportContent:
    """Images and charts of a report; the fields are the arguments of `evaluation_page`."""

    pictures: Sequence[tuple[str, np.ndarray]] = ()
    pairs: Sequence[tuple[str, np.ndarray, np.ndarray]] = ()
    neighbours: Neighbours | None = None
    histograms: Sequence[Histogram] = ()
    curves: Sequence[Curve] = ()


@dataclass(frozen=True)
class Options:
    """Options of all evaluations.

    Attributes:
        neighbours: k of precision, recall, density and coverage.
        seed: seed of generated images, bootstrap, cells and splits.
        resize: how images were resized when they were read, for the protocol.
        cache: the cache folder for features; None: that of the user.
        progress: called with (name of the step, done, total or None).
        command: command-line arguments as typed, for the record.
    """

    neighbours: int = NEIGHBOURS
    seed: int = 0
    resize: str = "cover"
    cache: Path | None = None
    progress: Progress | None = None
    command: tuple[str, ...] = ()

    def progress_for(self, what: str) -> Callable[[int, int | None], None] | None:
        """Progress callback for one step, with its name filled in; None without a callback."""
        report = self.progress
        return None if report is None else lambda done, total: report(what, done, total)


DEFAULTS = Options()


class Generated:
    """Generated images for one seed, as a set with a fingerprint; sampled on demand."""

    def __init__(self, model: GAN | Prior, count: int, seed: int) -> None:
        self.model, self.count, self.seed = model, count, seed
        self.fingerprint = made_fingerprint("generated", model.card.digest, seed)

    def __len__(self) -> int:
        return self.count

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """(len(indices), H, W, C) uint8."""
        runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
        parts = [self.model.generate(len(run), seed=self.seed, first=int(run[0])) for run in runs if len(run)]
        return np.concatenate(parts) if parts else np.empty((0, *shape_of(self.model.card)), np.uint8)


class Reconstructed:
    """Reconstructions of a set of images, as a set with a fingerprint; computed on demand."""

    def __init__(self, model: Autoencoder, images: Images) -> None:
        self.model, self.images = model, images
        self.fingerprint = made_fingerprint("reconstructed", model.card.digest, images.fingerprint)

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """(len(indices), H, W, C) uint8."""
        pixels: np.ndarray = self.model.reconstruct(self.images.pixels(indices))
        return pixels


def batches(images: Images, progress: Callable[[int, int | None], None] | None) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows and pixels of all batches; reports progress after each."""
    for start in range(0, len(images), BATCH):
        rows = slice(start, min(start + BATCH, len(images)))
        yield rows, images.pixels(np.arange(rows.start, rows.stop))
        if progress is not None:
            progress(rows.stop, len(images))


def warn_of_few(extractor: Extractor, judged: int, reference: int) -> tuple[str, ...]:
    """A warning if there are no more images than features."""
    fewer = min(judged, reference)
    if fewer > extractor.dimension:
        return ()
    return (
        f"{fewer:,} images are no more than the {extractor.dimension:,} features of {extractor.name}: covariances are "
        "singular and the Frechet distance is far too large; its extrapolation and the kernel distance suffer less.",
    )


def run_info(options: Options, device: torch.device) -> dict[str, Any]:
    """Date, command and machine, for a record."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": date, "command": options.command, "machine": f"torch {torch.__version__}, {device}"}


def model_subject(model: Pipeline, images: Images) -> dict[str, Any]:
    """The model and its evaluated images, for the subject of a record."""
    card = model.card
    return {
        "path": model.path, "digest": card.digest, "kind": card.kind, "preset": card.config.preset,
        "images_seen": card.images_seen, "fingerprint": images.fingerprint, "count": len(images),
    }  # fmt: skip


def warn_of_seen(model: Pipeline, reference: PackedImages) -> tuple[str, ...]:
    """A warning if a model is evaluated on its own training images."""
    known = [model.card.data.get("fingerprint"), model.card.data.get("images_fingerprint")]
    if model.card.tokenizer is not None:
        known.append(model.card.tokenizer.data.get("fingerprint"))
    if reference.fingerprint not in known:
        return ()
    return (
        f"{model.path} was trained on the very images it is judged on: figures are better than on images it never saw",
    )


def described(images: PackedImages) -> dict[str, Any]:
    """A set of images, for the reference of a record."""
    return {
        "source": images.source, "split": images.split, "fingerprint": images.fingerprint, "count": len(images),
        "size": size_in_words(images), "skipped": len(images.skipped),
    }  # fmt: skip


def check_same_shape(images: PackedImages, reference: PackedImages) -> None:
    """Raise DataError if the sizes or channels of two sets differ."""
    if images.shape != reference.shape:
        raise DataError(
            f"{images.source} holds {size_in_words(images)} and {reference.source} {size_in_words(reference)} "
            f"(height x width x channels); bring both to one shape with {arg('size')} and {arg('channels')}"
        )


def size_in_words(images: PackedImages) -> str:
    """Height x width x channels, such as "32x32x3"."""
    channels, height, width = images.shape
    return f"{height}x{width}x{channels}"


def shape_of(card: Card) -> tuple[int, int, int]:
    """(height, width, channels) of the images of a model."""
    channels, height, width = card.image.shape
    return height, width, channels


def sample(images: Images, count: int) -> np.ndarray:
    """At most `count` images, evenly spread over the set: (count, H, W, C) uint8."""
    return images.pixels(evenly_spread(len(images), count))


def made_fingerprint(*parts: object) -> str:
    """Fingerprint of images that are computed, from everything that determines them."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
