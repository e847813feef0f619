"""What all measurements share: options, exhibits, images that are made rather than read, the words of a record."""

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
from smalti.errors import DataError
from smalti.features.cache import Images
from smalti.features.extractor import Extractor
from smalti.metrics.pairs import NEIGHBOURS
from smalti.pipelines.base import Model
from smalti.report.evaluation_page import Curve, Histogram, Neighbours

Progress = Callable[[str, int, int | None], None]

SHOWN = 50  # images on a sheet of the page
BATCH = 64


@dataclass(frozen=True)
class ReportContent:
    """What a page shows beside the figures; the fields are the arguments of `evaluation_page`."""

    pictures: Sequence[tuple[str, np.ndarray]] = ()
    pairs: Sequence[tuple[str, np.ndarray, np.ndarray]] = ()
    neighbours: Neighbours | None = None
    histograms: Sequence[Histogram] = ()
    curves: Sequence[Curve] = ()


@dataclass(frozen=True)
class Options:
    """What all measurements share.

    Attributes:
        neighbours: k of precision, recall, density and coverage.
        seed: of every draw: of generated images, bootstrap, cells and splits.
        resize: the rule by which images were brought to their size when they were read, for the protocol.
        cache: folder for features; None: the user's.
        progress: called with (what, done, in all or None).
        command: as typed, for the record.
    """

    neighbours: int = NEIGHBOURS
    seed: int = 0
    resize: str = "cover"
    cache: Path | None = None
    progress: Progress | None = None
    command: tuple[str, ...] = ()

    def progress_for(self, what: str) -> Callable[[int, int | None], None] | None:
        """Progress of one part, by its name."""
        tell = self.progress
        return None if tell is None else lambda done, total: tell(what, done, total)


DEFAULTS = Options()


class Generated:
    """The images a generator draws with one seed, as a set with a fingerprint; drawn when asked for."""

    def __init__(self, model: Model, count: int, seed: int) -> None:
        self.model, self.count, self.seed = model, count, seed
        self.fingerprint = made_fingerprint("generated", model.card.digest, seed)

    def __len__(self) -> int:
        return self.count

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """(len(indices), H, W, C) uint8."""
        runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
        drawn = [self.model.generate(len(run), seed=self.seed, first=int(run[0])) for run in runs if len(run)]
        return np.concatenate(drawn) if drawn else np.empty((0, *shape_of(self.model.card)), np.uint8)


class Reconstructed:
    """What an autoencoder makes of a set of images, as a set with a fingerprint; made when asked for."""

    def __init__(self, model: Model, images: Images) -> None:
        self.model, self.images = model, images
        self.fingerprint = made_fingerprint("reconstructed", model.card.digest, images.fingerprint)

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """(len(indices), H, W, C) uint8."""
        return self.model.reconstruct(self.images.pixels(indices))


def batches(images: Images, progress: Callable[[int, int | None], None] | None) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(images), BATCH):
        rows = slice(start, min(start + BATCH, len(images)))
        yield rows, images.pixels(np.arange(rows.start, rows.stop))
        if progress is not None:
            progress(rows.stop, len(images))


def warn_of_few(extractor: Extractor, judged: int, reference: int) -> tuple[str, ...]:
    fewer = min(judged, reference)
    if fewer > extractor.dimension:
        return ()
    return (
        f"{fewer:,} images are no more than the {extractor.dimension:,} features of {extractor.name}: covariances are "
        "singular and the Frechet distance is far too large; its extrapolation and the kernel distance suffer less.",
    )


def circumstances(options: Options, extractor: Extractor) -> dict[str, Any]:
    return now(options, extractor.device)


def now(options: Options, device: torch.device) -> dict[str, Any]:
    """When, by which command and where."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": date, "command": options.command, "machine": f"torch {torch.__version__}, {device}"}


def model_subject(model: Model, images: Images) -> dict[str, Any]:
    """A model and the images of its that are judged."""
    card = model.card
    return {
        "path": model.path, "digest": card.digest, "kind": card.kind, "preset": card.config.preset,
        "images_seen": card.images_seen, "fingerprint": images.fingerprint, "count": len(images),
    }  # fmt: skip


def warn_of_seen(model: Model, reference: PackedImages) -> tuple[str, ...]:
    """Where a model is judged on what it was trained on."""
    known = [model.card.data.get("fingerprint"), model.card.data.get("images_fingerprint")]
    if model.card.tokenizer is not None:
        known.append(model.card.tokenizer.data.get("fingerprint"))
    if reference.fingerprint not in known:
        return ()
    return (
        f"{model.path} was trained on the very images it is judged on: figures are better than on images it never saw",
    )


def described(images: PackedImages) -> dict[str, Any]:
    return {
        "source": images.source, "split": images.split, "fingerprint": images.fingerprint, "count": len(images),
        "size": size_in_words(images), "skipped": len(images.skipped),
    }  # fmt: skip


def check_same_shape(images: PackedImages, reference: PackedImages) -> None:
    if images.shape != reference.shape:
        raise DataError(
            f"{images.source} holds {size_in_words(images)} and {reference.source} {size_in_words(reference)} "
            "(height x width x channels); bring both to one shape with --size and --channels"
        )


def size_in_words(images: PackedImages) -> str:
    channels, height, width = images.shape
    return f"{height}x{width}x{channels}"


def shape_of(card: Card) -> tuple[int, int, int]:
    channels, height, width = card.image
    return height, width, channels


def sample(images: Images, count: int) -> np.ndarray:
    return images.pixels(evenly_spread(len(images), count))


def made_fingerprint(*parts: object) -> str:
    """A fingerprint for images that are made, not read."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
