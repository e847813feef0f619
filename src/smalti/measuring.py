"""Measure a generator, an autoencoder, an encoder or any two sets of images: figures, and the exhibits a page shows.

    evaluation, exhibits = measure_generator(model, reference, training, extractor=extractor("efficientnet-lite0"))

Every stream of images has a fingerprint, and its features are taken in one pass and kept under it; nothing holds all
images at once.  Pixels are uint8, (N, H, W, C).
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smalti.api import Model
from smalti.checkpoint import Card
from smalti.data import PackedImages
from smalti.errors import ConfigError, DataError
from smalti.evaluate.cases import degraded_copies
from smalti.evaluate.classification import ClassReport, InceptionScore, classification_accuracy_score
from smalti.evaluate.codes import CodeUsage
from smalti.evaluate.distortion import PeakSignalToNoise
from smalti.evaluate.distribution import measure_distribution
from smalti.evaluate.feature_cache import ArrayImages, Images, collect
from smalti.evaluate.features import Extractor
from smalti.evaluate.memorisation import Memorisation, measure_memorisation
from smalti.evaluate.metric import Figure, PairMetric
from smalti.evaluate.neighbours import nearest
from smalti.evaluate.page import Histogram, Neighbours
from smalti.evaluate.pairs import NEIGHBOURS
from smalti.evaluate.perceptual import PerceptualDistance
from smalti.evaluate.probe import linear_probe
from smalti.evaluate.record import Evaluation, protocol_of
from smalti.evaluate.ssim import MultiScaleStructuralSimilarity, StructuralSimilarity, TooSmallError

Progress = Callable[[str, int, int | None], None]

SHOWN = 48  # images on a sheet of the page
SUSPECTS = 8  # judged images shown beside their nearest training images
NEAREST = 4  # training images beside each
PLANTED = 500  # copies that calibrate the copy detector
PERCEPTUAL = 2_000  # images whose feature maps are compared: maps are hundreds of times larger than features
BATCH = 64


@dataclass(frozen=True)
class Exhibits:
    """What a page shows beside the figures; the fields are the arguments of `evaluation_page`."""

    pictures: Sequence[tuple[str, np.ndarray]] = ()
    pairs: Sequence[tuple[str, np.ndarray, np.ndarray]] = ()
    neighbours: Neighbours | None = None
    histograms: Sequence[Histogram] = ()


@dataclass(frozen=True)
class Options:
    """What all measurements share.

    Attributes:
        neighbours: k of precision, recall, density and coverage.
        seed: of every draw: of generated images, bootstrap, cells and splits.
        cache: folder for features; None: the user's.
        progress: called with (what, done, in all or None).
        command: as typed, for the record.
    """

    neighbours: int = NEIGHBOURS
    seed: int = 0
    cache: Path | None = None
    progress: Progress | None = None
    command: tuple[str, ...] = ()

    def told(self, what: str) -> Callable[[int, int | None], None] | None:
        """Progress of one part, by its name."""
        tell = self.progress
        return None if tell is None else lambda done, total: tell(what, done, total)


DEFAULTS = Options()


class Generated:
    """The images a generator draws with one seed, as a set with a fingerprint; drawn when asked for."""

    def __init__(self, model: Model, count: int, seed: int) -> None:
        self.model, self.count, self.seed = model, count, seed
        self.fingerprint = _name("generated", model.card.digest, seed)

    def __len__(self) -> int:
        return self.count

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """(len(indices), H, W, C) uint8."""
        runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
        drawn = [self.model.generate(len(run), seed=self.seed, first=int(run[0])) for run in runs if len(run)]
        return np.concatenate(drawn) if drawn else np.empty((0, *_shape(self.model.card)), np.uint8)


class Reconstructed:
    """What an autoencoder makes of a set of images, as a set with a fingerprint; made when asked for."""

    def __init__(self, model: Model, images: Images) -> None:
        self.model, self.images = model, images
        self.fingerprint = _name("reconstructed", model.card.digest, images.fingerprint)

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """(len(indices), H, W, C) uint8."""
        return self.model.reconstruct(self.images.pixels(indices))


def measure_folder(
    judged: PackedImages,
    reference: PackedImages,
    *,
    extractor: Extractor,
    training: PackedImages | None = None,
    options: Options = DEFAULTS,
) -> tuple[Evaluation, Exhibits]:
    """Anybody's images against anybody's.

    Args:
        judged: what is scored.
        reference: what it should look like.
        training: what the judged images may have been copied from; None: no memorisation figures.

    Raises:
        DataError: too few images, or images of another shape.
    """
    _same_shape(judged, reference)
    subject = {"path": judged.source, "split": judged.split, "fingerprint": judged.fingerprint, "count": len(judged)}
    return _measure_samples("folder", judged, subject, reference, training, extractor, options)


def measure_generator(
    model: Model,
    reference: PackedImages,
    *,
    extractor: Extractor,
    training: PackedImages | None = None,
    count: int = 10_000,
    classifier_images: int = 0,
    options: Options = DEFAULTS,
) -> tuple[Evaluation, Exhibits]:
    """A generator's images against real ones.

    Args:
        model: any checkpoint of a generator.
        reference: held-out images it should be like.
        training: the images it was trained on, to look for copies; None: no memorisation figures.
        count: images drawn.
        classifier_images: images that each of the two classifiers of the classification accuracy score sees while it
            is trained, one on generated and one on real images; 0: no such score.

    Raises:
        CheckpointError: the model is no generator.
        ConfigError: a score by classes of a model that knows none.
        DataError: too few images, or images of another shape.
    """
    if count < 2:
        raise ConfigError(f"--count is {count}, but a distribution needs 2 images or more, and 10000 are usual")
    model.generate(1)  # a model that draws no images says so before the reference goes through the extractor
    height, width, channels = _shape(model.card)
    if reference.shape != (channels, height, width):
        raise DataError(
            f"{model.path} makes images of {height}x{width}x{channels}, but {reference.source} holds "
            f"{_size(reference)}; give --size {height}x{width} and --channels {channels}"
        )
    if classifier_images:
        _check_classes(model, reference, training)
    judged = Generated(model, count, options.seed)
    subject = {
        "path": model.path, "digest": model.card.digest, "kind": model.card.kind, "preset": model.card.config.preset,
        "images_seen": model.card.images_seen, "fingerprint": judged.fingerprint, "count": count, "seed": options.seed,
    }  # fmt: skip
    evaluation, exhibits = _measure_samples("generator", judged, subject, reference, training, extractor, options)
    if not classifier_images:
        return evaluation, exhibits
    figures, report = _score_by_classes(judged, reference, training, classifier_images, options)
    classifier = {"classifier_images": classifier_images, "classifier_flip": model.card.config.data.flip}
    protocol = {**evaluation.protocol, **classifier}
    classes = tuple(report.record()["classes"])
    both = (*evaluation.figures, *figures)
    return dataclasses.replace(evaluation, figures=both, classes=classes, protocol=protocol), exhibits


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
    shown = _spread(len(images), SHOWN)
    errors = np.empty(len(images))
    for rows, originals in _batches(images, options.told("reconstructing")):
        codes = model.encode(originals)
        results = model.decode(codes)[:, : originals.shape[1], : originals.shape[2]]
        usage.update(codes, originals.shape[0] * originals.shape[1] * originals.shape[2])
        for metric in metrics:
            metric.update(originals, results)
        errors[rows] = np.square(originals.astype(np.float64) - results).mean(axis=(1, 2, 3))
    perceptual = PerceptualDistance(extractor)
    some = _spread(len(images), PERCEPTUAL)
    for start in range(0, len(some), BATCH):
        originals = images.pixels(some[start : start + BATCH])
        perceptual.update(originals, model.reconstruct(originals))
        _tell(options, "comparing feature maps", start + len(originals), len(some))
    reconstructed = Reconstructed(model, images)
    real = collect(images, extractor, cache=options.cache, progress=options.told("features of the images"))
    fake = collect(
        reconstructed, extractor, cache=options.cache, progress=options.told("features of the reconstructions")
    )
    figures: list[Figure] = [figure for metric in metrics for figure in metric.compute()]
    figures += perceptual.compute()
    figures += measure_distribution(real, fake, seed=options.seed, neighbours=options.neighbours)
    figures += usage.compute()
    subject = {
        "path": model.path, "digest": model.card.digest, "kind": model.card.kind, "preset": model.card.config.preset,
        "images_seen": model.card.images_seen, "fingerprint": reconstructed.fingerprint, "count": len(images),
    }  # fmt: skip
    evaluation = Evaluation(
        form="autoencoder",
        subject=subject,
        reference=_described(images),
        protocol=protocol_of(
            extractor=extractor.record(),
            reference_fingerprint=images.fingerprint,
            reference_count=len(images),
            judged_count=len(images),
            neighbours=options.neighbours,
            seed=options.seed,
            perceptual_images=len(some),
        ),
        figures=tuple(figures),
        warnings=(*warnings, *_warnings(extractor, len(images), len(images))),
        **_circumstances(options, extractor),
    )
    worst = np.argsort(errors)[::-1][: SHOWN // 3].copy()
    pairs = [
        ("Some images above, what came back below.", *_pair(model, images, shown)),
        ("The images that lost most.", *_pair(model, images, worst)),
    ]
    psnr = -10 * np.log10(np.maximum(errors, 1e-3) / 255**2)
    histogram = Histogram("PSNR of each image", {"images": psnr}, "dB")
    return evaluation, Exhibits(pairs=pairs, histograms=[histogram])


def measure_encoder(
    train: PackedImages, test: PackedImages, *, extractor: Extractor, options: Options = DEFAULTS
) -> tuple[Evaluation, Exhibits]:
    """How much of the classes a linear classifier reads off an extractor's features.

    Args:
        train, test: labelled images of the same classes.

    Raises:
        DataError: images without labels, or of other classes.
    """
    if train.labels is None or test.labels is None:
        raise DataError(
            f"{train.source} has no labels, and a linear probe needs them; "
            "put each class's images in a folder of its own"
        )
    if train.classes != test.classes:
        raise DataError(f"the classes of {train.source} and {test.source} differ; a linear probe needs the same ones")
    if len(train.classes) < 2:
        raise DataError(f"{train.source} has {len(train.classes)} class; a linear probe takes two classes or more")
    features = [
        collect(images, extractor, cache=options.cache, progress=options.told(f"features of the {what} images"))
        for images, what in ((train, "training"), (test, "test"))
    ]
    figure, report = linear_probe(
        features[0], np.asarray(train.labels), features[1], np.asarray(test.labels), classes=train.classes,
        seed=options.seed,
    )  # fmt: skip
    evaluation = Evaluation(
        form="encoder",
        subject={"path": extractor.name, "count": len(test), **extractor.record()},
        reference=_described(test),
        protocol=protocol_of(
            extractor=None,
            reference_fingerprint=test.fingerprint,
            reference_count=len(test),
            judged_count=len(test),
            training_fingerprint=train.fingerprint,
            seed=options.seed,
        ),
        figures=(figure,),
        classes=tuple(report.record()["classes"]),
        **_circumstances(options, extractor),
    )
    return evaluation, Exhibits(pictures=[("Some of the test images.", _sample(test, SHOWN))])


def _measure_samples(
    form: str,
    judged: Images,
    subject: dict[str, Any],
    reference: PackedImages,
    training: PackedImages | None,
    extractor: Extractor,
    options: Options,
) -> tuple[Evaluation, Exhibits]:
    for images, name in ((judged, subject["path"]), (reference, reference.source)):
        if len(images) < 2:
            raise DataError(f"{name} holds {len(images)} image; a distribution needs 2 or more")
    warnings = _warnings(extractor, len(judged), len(reference))
    if training is not None and training.fingerprint == reference.fingerprint:
        training = None
        warnings += (
            f"{reference.source} is both reference and training set, so copies cannot be told from images of the same "
            "kind: nothing was looked for that was copied; hold the figures against images that were not trained on",
        )
    if training is not None:
        _same_shape(training, reference)
    real = collect(reference, extractor, cache=options.cache, progress=options.told("features of the reference"))
    fake = collect(judged, extractor, cache=options.cache, progress=options.told("features of what is judged"))
    figures = list(measure_distribution(real, fake, seed=options.seed, neighbours=options.neighbours))
    if extractor.classes:
        score = InceptionScore(_score_name(extractor))
        for part in fake.split(4096):
            score.update(extractor.probabilities(part))
        figures += score.compute()
    pictures = [
        ("Judged images, the first ones, not selected.", judged.pixels(np.arange(min(SHOWN, len(judged))))),
        ("Reference images.", _sample(reference, SHOWN)),
    ]
    exhibits = Exhibits(pictures=pictures)
    if training is not None:
        found, neighbours = _memorisation(training, judged, real, fake, extractor, options)
        figures += found.figures
        exhibits = Exhibits(pictures=pictures, neighbours=neighbours, histograms=[_nearness(found)])
    evaluation = Evaluation(
        form=form,
        subject=subject,
        reference=_described(reference),
        protocol=protocol_of(
            extractor=extractor.record(),
            reference_fingerprint=reference.fingerprint,
            reference_count=len(reference),
            judged_count=len(judged),
            neighbours=options.neighbours,
            seed=options.seed,
            training_fingerprint=None if training is None else training.fingerprint,
        ),
        figures=tuple(figures),
        warnings=warnings,
        **_circumstances(options, extractor),
    )
    return evaluation, exhibits


def _memorisation(
    training: PackedImages, judged: Images, real: Tensor, fake: Tensor, extractor: Extractor, options: Options
) -> tuple[Memorisation, Neighbours]:
    known = collect(training, extractor, cache=options.cache, progress=options.told("features of the training images"))
    copies = degraded_copies(training.pixels(_spread(len(training), PLANTED)), PLANTED, seed=options.seed)
    planted = collect(
        ArrayImages(copies.images), extractor, cache=options.cache, progress=options.told("features of planted copies")
    )
    found = measure_memorisation(known, real, fake, planted=planted, seed=options.seed)
    suspects = np.array([suspect.fake for suspect in found.nearest_training[:SUSPECTS]])
    distances, indices = nearest(fake[torch.from_numpy(suspects)], known, min(NEAREST, len(known)))
    images = judged.pixels(suspects)
    beside = training.pixels(indices.flatten().numpy()).reshape(*indices.shape, *images.shape[1:])
    return found, Neighbours(images, beside, distances.numpy())


def _nearness(found: Memorisation) -> Histogram:
    return Histogram(
        "How near the nearest training image is",
        {"judged": found.ratios, "held out": found.held_out_ratios},
        "distance to the nearest training image, in units of that image's distance to its neighbours",
    )


def _check_classes(model: Model, reference: PackedImages, training: PackedImages | None) -> None:
    """That classifiers can be trained and tested, before anything goes through the extractor."""
    if not getattr(model.card.config.model, "conditional", False):
        raise ConfigError(
            f"{model.path} was trained without labels, so no classifier can be trained on its images; "
            "leave --classifier-images out, or train with --set model.conditional=true"
        )
    needed = [reference] if training is None or training.labels is None else [reference, training]
    for images in needed:  # training images without labels only make no ceiling
        if images.labels is None or images.classes != model.card.classes:
            raise DataError(f"the classes of {images.source} are not those of {model.path}: they must be the same")


def _score_by_classes(
    judged: Generated, reference: PackedImages, training: PackedImages | None, images_seen: int, options: Options
) -> tuple[list[Figure], ClassReport]:
    """The classification accuracy score of a generator with labels, and that of real training images, its ceiling."""
    card = judged.model.card
    assert reference.labels is not None
    test = (reference, np.asarray(reference.labels))
    # Digits and letters must not be mirrored; whoever trained on them said so.
    flip = card.config.data.flip
    given: dict[str, Any] = {
        "images_seen": images_seen, "flip": flip, "seed": options.seed, "device": judged.model.device,
    }  # fmt: skip
    # Images are drawn with the classes in turn; see `Model.generate`.
    labels = np.arange(len(judged)) % len(card.classes)
    with tempfile.TemporaryDirectory() as folder:
        # The classifier reads its images many times over: they are drawn once, to the disk, however many there are.
        shape = (len(judged), *_shape(card))
        drawn = np.lib.format.open_memmap(Path(folder) / "drawn.npy", "w+", np.uint8, shape)
        for rows, images in _batches(judged, options.told("drawing images to train on")):
            drawn[rows] = images
        report, figures = classification_accuracy_score(
            drawn, labels, *test, card.classes, progress=options.told("training on generated images"), **given
        )
    found = list(figures)
    if training is not None and training.labels is not None:
        _, ceiling = classification_accuracy_score(
            training, np.asarray(training.labels), *test, card.classes, name="classification_accuracy_ceiling",
            progress=options.told("training on real images"), **given,
        )  # fmt: skip
        found.append(ceiling[0])
    return found, report


def _pair_metrics(images: PackedImages) -> tuple[list[PairMetric], list[str]]:
    """PSNR, and the similarities that fit into images of this size."""
    metrics: list[PairMetric] = [PeakSignalToNoise()]
    warnings = []
    some = _sample(images, 1)
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


def _batches(images: Images, progress: Callable[[int, int | None], None] | None) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(images), BATCH):
        rows = slice(start, min(start + BATCH, len(images)))
        yield rows, images.pixels(np.arange(rows.start, rows.stop))
        if progress is not None:
            progress(rows.stop, len(images))


def _tell(options: Options, what: str, done: int, total: int) -> None:
    if options.progress is not None:
        options.progress(what, done, total)


def _score_name(extractor: Extractor) -> str:
    return "inception_score" if extractor.name == "inception" else "classifier_score"


def _warnings(extractor: Extractor, judged: int, reference: int) -> tuple[str, ...]:
    fewer = min(judged, reference)
    if fewer > extractor.dimension:
        return ()
    return (
        f"{fewer:,} images are no more than the {extractor.dimension:,} features of {extractor.name}: covariances are "
        "singular and the Frechet distance is far too large; its extrapolation and the kernel distance suffer less.",
    )


def _circumstances(options: Options, extractor: Extractor) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": now, "command": options.command, "machine": f"torch {torch.__version__}, {extractor.device}"}


def _described(images: PackedImages) -> dict[str, Any]:
    return {
        "source": images.source, "split": images.split, "fingerprint": images.fingerprint, "count": len(images),
        "size": _size(images), "skipped": len(images.skipped),
    }  # fmt: skip


def _same_shape(images: PackedImages, reference: PackedImages) -> None:
    if images.shape != reference.shape:
        raise DataError(
            f"{images.source} holds {_size(images)} and {reference.source} {_size(reference)} (height x width x "
            "channels); bring both to one shape with --size and --channels"
        )


def _size(images: PackedImages) -> str:
    channels, height, width = images.shape
    return f"{height}x{width}x{channels}"


def _shape(card: Card) -> tuple[int, int, int]:
    channels, height, width = card.image
    return height, width, channels


def _spread(count: int, wanted: int) -> np.ndarray:
    """Numbers of evenly spread images of a set, the same ones each time."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64)


def _sample(images: Images, count: int) -> np.ndarray:
    return images.pixels(_spread(len(images), count))


def _name(*parts: object) -> str:
    """A fingerprint for images that are made, not read."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
