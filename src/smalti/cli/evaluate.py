"""`smalti evaluate generator`, `folder`, `autoencoder`, `encoder`, `compare` and `doctor`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from smalti import data
from smalti.checkpoint.run_dir import RunFolder
from smalti.cli import console
from smalti.cli.options import Measuring, Reading, Writing
from smalti.config.units import parse_count, parse_size
from smalti.data import PackedImages
from smalti.errors import ConfigError, DataError, OutputError, SplitError
from smalti.evaluation import (
    Options,
    ReportContent,
    measure_autoencoder,
    measure_encoder,
    measure_folder,
    measure_generator,
    measure_prior,
)
from smalti.evaluation.doctor import run_doctor
from smalti.features.extractor import Extractor, extractor
from smalti.files import output_errors
from smalti.metrics.pairs import NEIGHBOURS
from smalti.pipelines import base as api
from smalti.report import record
from smalti.report.compare import compare
from smalti.report.evaluation_page import evaluation_page
from smalti.report.record import Evaluation

HELD_OUT = ("test", "val")  # the split of a source that figures are measured on, in this order
NO_TRAINING = "none"


@dataclass(frozen=True)
class Request:
    """How a measurement is taken, read and written."""

    measuring: Measuring
    reading: Reading
    writing: Writing
    neighbours: int = NEIGHBOURS


def run_generator(
    path: Path, against: str, training: str | None, count: str, classifier_images: str | None, request: Request
) -> int:
    """Score a generator's images."""
    _check_places(request)
    model = api.load(path, device=request.measuring.device)
    channels, height, width = model.card.image
    with _progress() as tell:
        reference = _load(against, request, tell, shape=(channels, height, width), split=request.reading.split)
        known = _training(training or against, request, tell, reference, given=training is not None)
        evaluation, exhibits = measure_generator(
            model,
            reference,
            extractor=_extractor(request),
            training=known,
            count=parse_count(count),
            classifier_images=0 if classifier_images is None else parse_count(classifier_images),
            options=_options(request, tell),
        )
    return _finish(evaluation, exhibits, request)


def run_folder(judged: str, against: str, training: str | None, judged_split: str | None, request: Request) -> int:
    """Score one set of images against another."""
    _check_places(request)
    with _progress() as tell:
        reference = _load(against, request, tell, split=request.reading.split)
        images = _judged(judged, judged_split, request, tell)
        known = None if training is None else _training(training, request, tell, reference, given=True)
        evaluation, exhibits = measure_folder(
            images, reference, extractor=_extractor(request), training=known, options=_options(request, tell)
        )
    return _finish(evaluation, exhibits, request)


def run_autoencoder(path: Path, on: str, request: Request) -> int:
    """Score what an autoencoder gives back."""
    _check_places(request)
    model = api.load(path, device=request.measuring.device)
    with _progress() as tell:
        images = _load(on, request, tell, shape=(model.card.image[0], None, None), split=request.reading.split)
        evaluation, exhibits = measure_autoencoder(
            model, images, extractor=_extractor(request), options=_options(request, tell)
        )
    return _finish(evaluation, exhibits, request)


def run_prior(path: Path, on: str, request: Request) -> int:
    """Count the bits of images' codes under a prior."""
    _check_places(request)
    model = api.load(path, device=request.measuring.device)
    model.check_likelihood()
    run = RunFolder(path) if path.is_dir() else None
    with _progress() as tell:
        images = _load(on, request, tell, shape=model.card.image, split=request.reading.split)
        evaluation, exhibits = measure_prior(model, images, options=_options(request, tell), run=run)
    return _finish(evaluation, exhibits, request)


def run_encoder(path: Path | None, on: str, request: Request) -> int:
    """Read the classes off features with a linear classifier."""
    _check_places(request)
    if path is not None:
        request = _with_encoder(request, path)
    with _progress() as tell:
        test = _load(on, request, tell, split=request.reading.split)
        train = _training(on, request, tell, test, given=True)
        if train is None or train.split == test.split:
            raise DataError(f"{on} has no training split beside the one that is tested; a linear probe needs both")
        evaluation, exhibits = measure_encoder(
            train, test, extractor=_extractor(request), options=_options(request, tell)
        )
    if path is not None:
        evaluation = dataclasses.replace(evaluation, subject={**evaluation.subject, "path": path})
    return _finish(evaluation, exhibits, request)


def run_compare(a: Path, b: Path) -> int:
    """Print the differences of two records, or say why there are none."""
    comparison = compare(record.read(a), record.read(b))
    console.facts({"A": a, "B": b})
    console.say()
    console.table(*comparison.table())
    for remark in comparison.remarks():
        console.note(f"warning: {remark}")
    return 0


def run_doctor_command(on: str, count: int, request: Request) -> int:
    """Run the battery on known cases; the exit code is 1 when a metric does not react as its theory says."""
    if count < 1:
        raise ConfigError(f"--count is {count}, but the cases are made of images: 2000 are usual")
    _check_seed(request)
    with _progress() as tell:
        images = _load(on, request, tell, split=request.reading.split, whole=True)
        # Spread over the whole set: sources lie in the order of their classes.
        chosen = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64)
        labels = None if images.labels is None else np.asarray(images.labels)[chosen]
        report = run_doctor(
            images.pixels(chosen),
            labels,
            _extractor(request),
            seed=request.measuring.seed,
            cache=request.measuring.cache,
            progress=lambda done, total: tell("features of the cases", done, total),
        )
    console.table(*report.table())
    wrong = sum(not check.ok for check in report.checks)
    console.say()
    console.say(
        f"{len(report.checks)} checks on {report.images:,} images with {report.extractor}, seed {report.seed}: "
        + (f"{wrong} NOT as theory says" if wrong else "all as theory says")
    )
    return 0 if report.ok else 1


def _check_places(request: Request) -> None:
    """Before hours of work: that what it gives can be written, and that its numbers mean something."""
    out, report = request.writing.out, request.writing.report
    if out.suffix.lower() != ".json":
        raise ConfigError(f"--out is {out}, but the record is JSON; give a name that ends in .json")
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--report is {report}, but the page is HTML; give a name that ends in .html")
    for path in (out, report):
        if path is not None:
            console.free_to_write(path, request.writing.overwrite)
            _check_place(path)
    if request.neighbours < 1:
        raise ConfigError(f"--neighbours is {request.neighbours}, but balls reach to a neighbour: 5 are usual")
    _check_seed(request)


def _check_seed(request: Request) -> None:
    if request.measuring.seed < 0:
        raise ConfigError(f"--seed is {request.measuring.seed}, but seeds are whole numbers from 0")


def _check_place(path: Path) -> None:
    folder = path.absolute().parent
    with output_errors(path):
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give the name of a file")
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder} to write {path.name} into; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write into {folder} (no permission); choose a folder that is yours")


def _load(
    source: str,
    request: Request,
    tell: Callable[[str, int, int | None], None],
    *,
    split: str | None,
    shape: tuple[int, int | None, int | None] | None = None,
    whole: bool = False,
) -> PackedImages:
    """Images of a source: the split asked for; where none is, the held-out one, or with `whole` the training one."""
    size = None if request.reading.size is None else parse_size(request.reading.size)
    channels: int | None = request.reading.channels
    if shape is not None:
        channels = channels or shape[0]
        if size is None and shape[1] is not None and shape[2] is not None:
            size = (shape[1], shape[2])

    def load(split: str | None) -> PackedImages:
        return data.load(
            source,
            split=split,
            size=size,
            resize=request.reading.resize,
            channels=channels,
            cache=request.measuring.cache,
            progress=lambda done, total: tell(f"packing {source}", done, total),
        )

    images = load(split) if split is not None or whole else _held_out(load)
    if images.skipped:
        name, reason = images.skipped[0]
        total = len(images.skipped) + len(images)
        console.note(f"skipped {len(images.skipped)} of {total} files of {source}: {name} ({reason})")
    return images


def _held_out(load: Callable[[str | None], PackedImages]) -> PackedImages:
    """The split that nothing was trained on, where a source has one; nothing else of it is packed."""
    for name in HELD_OUT:
        with contextlib.suppress(SplitError):
            return load(name)
    return load(None)


def _judged(
    source: str, split: str | None, request: Request, tell: Callable[[str, int, int | None], None]
) -> PackedImages:
    """The images to score: --split means them too, where they have splits."""
    try:
        return _load(source, request, tell, split=split or request.reading.split)
    except SplitError:
        if split is not None or request.reading.split is None:
            raise
        images = _load(source, request, tell, split=None, whole=True)
        if images.splits:
            raise
        return images


def _training(
    source: str, request: Request, tell: Callable[[str, int, int | None], None], reference: PackedImages, *, given: bool
) -> PackedImages | None:
    """The images that may have been copied: a source's training split; None when there is nothing to compare with."""
    if source == NO_TRAINING:
        return None
    if not given and "train" not in reference.splits:
        console.note(
            f"{source} has no training split, so nothing was looked for that the model may have copied; "
            "give its training images with --training"
        )
        return None
    return _load(source, request, tell, shape=reference.shape, split=None, whole=True)


def _extractor(request: Request) -> Extractor:
    how = request.measuring
    return extractor(
        how.features,
        weights=how.weights,
        size=how.feature_size,
        device=how.device,
        precision=how.precision,
        cache=how.cache,
        download=how.download,
    )


def _options(request: Request, tell: Callable[[str, int, int | None], None]) -> Options:
    return Options(
        neighbours=request.neighbours,
        seed=request.measuring.seed,
        resize=request.reading.resize,
        cache=request.measuring.cache,
        progress=tell,
        command=tuple(sys.argv[1:]),
    )


def _with_encoder(request: Request, path: Path) -> Request:
    """Features of an encoder of ours."""
    measuring = dataclasses.replace(request.measuring, features="smalti-vit", weights=api.find_checkpoint(path))
    return dataclasses.replace(request, measuring=measuring)


def _finish(evaluation: Evaluation, exhibits: ReportContent, request: Request) -> int:
    record.write(request.writing.out, evaluation)
    for warning in evaluation.warnings:
        console.note(f"warning: {warning}")
    console.table(*record.table(evaluation))
    notes: dict[str, list[str]] = {}
    for figure in evaluation.figures:
        notes.setdefault(figure.note, []).append(record.title(figure.name, evaluation))
    for text, names in notes.items():
        if text:
            console.say(f"{', '.join(names)}: {text}")
    if evaluation.classes:
        console.say()
        console.table(("class", "precision", "recall", "F1", "N"), [_class_row(row) for row in evaluation.classes])
    places = [str(request.writing.out)]
    if request.writing.report is not None:
        page = evaluation_page(
            evaluation, pictures=exhibits.pictures, pairs=exhibits.pairs, neighbours=exhibits.neighbours,
            histograms=exhibits.histograms, curves=exhibits.curves,
        )  # fmt: skip
        page.write(request.writing.report)
        places.append(str(request.writing.report))
    console.note(f"written: {', '.join(places)}")
    return 0


def _class_row(row: object) -> tuple[str, ...]:
    assert isinstance(row, dict)
    return (str(row["name"]), *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), f"{row['count']:,}")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """One bar a part of the work, on a terminal; yields what to call with (what, done, in all or None)."""
    terminal = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        TextColumn("{task.completed:,.0f}"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=terminal, disable=not terminal.is_terminal, transient=True) as bar:

        def tell(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(console.visible(what), total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield tell
