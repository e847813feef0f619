"""What the commands that measure have in common: their options, how images are opened, how a record is shown."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smalti.cli import console
from smalti.cli.options import FeatureOptions, OutputOptions, ReadingOptions
from smalti.cli.outputs import free_to_write
from smalti.cli.progress import counting_parts
from smalti.errors import ConfigError, OutputError
from smalti.files import output_errors

if TYPE_CHECKING:
    from smalti.data import PackedImages
    from smalti.evaluation import Options, ReportContent
    from smalti.evaluation.sources import Reader, Shape
    from smalti.features.extractor import Extractor
    from smalti.report.record import Evaluation

READING, FEATURES, OUTPUT = ReadingOptions(), FeatureOptions(), OutputOptions()
NEIGHBOURS = 5


class Measurement:
    """One measurement: opens images, and gives the library its options.

    Attributes:
        reader: opens images by the options of the command line.
        options: of the functions of `smalti.evaluation`.
    """

    def __init__(self, features: FeatureOptions, reader: Reader, options: Options) -> None:
        self._features, self.reader, self.options = features, reader, options
        console.print_log()  # features that cannot be cached are worth a line

    def extractor(self) -> Extractor:
        """The network whose features are compared."""
        from smalti.features.extractor import extractor

        how = self._features
        return extractor(
            how.features, weights=how.weights, size=how.feature_size, device=how.device, precision=how.precision,
            cache=how.cache, download=how.download,
        )  # fmt: skip

    def held_out(self, source: str, shape: Shape = (None, None, None)) -> PackedImages:
        """The images of a source that figures are taken on; says what was skipped."""
        return self._said(self.reader.held_out(source, shape), source)

    def judged(self, source: str, split: str | None) -> PackedImages:
        """Images to be scored; says what was skipped."""
        return self._said(self.reader.judged(source, split), source)

    def training(self, source: str, reference: PackedImages) -> PackedImages:
        """Images that a model may have been trained on; says what was skipped."""
        return self._said(self.reader.training(source, reference), source)

    def whole(self, source: str) -> PackedImages:
        """The split that was asked for, else the training split or everything; says what was skipped."""
        return self._said(self.reader.load(source, self.reader.split), source)

    def _said(self, images: PackedImages, source: str) -> PackedImages:
        console.note_skipped(images, source=source)
        return images


@contextlib.contextmanager
def measurement(
    features: FeatureOptions, reading: ReadingOptions, *, neighbours: int = NEIGHBOURS
) -> Iterator[Measurement]:
    """The measurement that a command line asks for; its progress is shown on a terminal.

    Raises:
        ConfigError: a size that is none.
    """
    from smalti.config.units import parse_size
    from smalti.evaluation import Options
    from smalti.evaluation.sources import Reader

    size = None if reading.size is None else parse_size(reading.size)
    with counting_parts() as tell:
        reader = Reader(reading.split, size, reading.resize, reading.channels, features.cache, tell)
        options = Options(neighbours, features.seed, reading.resize, features.cache, tell, tuple(sys.argv[1:]))
        yield Measurement(features, reader, options)


def check_request(output: OutputOptions, features: FeatureOptions, *, neighbours: int = NEIGHBOURS) -> None:
    """Check, before hours of work, that the results can be written and that the numbers make sense.

    Raises:
        ConfigError: a name of the wrong kind, or a number out of range.
        OutputError: a place that cannot be written.
    """
    out, report = output.out, output.report
    if out.suffix.lower() != ".json":
        raise ConfigError(f"--out is {out}, but the record is JSON; give a name that ends in .json")
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--report is {report}, but the page is HTML; give a name that ends in .html")
    for path in (out, report):
        if path is not None:
            free_to_write(path, output.overwrite)
            _check_folder(path)
    if neighbours < 1:
        raise ConfigError(f"--neighbours is {neighbours}, but balls reach to a neighbour: 5 are usual")
    check_seed(features)


def check_seed(features: FeatureOptions) -> None:
    """Raise ConfigError for a negative seed."""
    if features.seed < 0:
        raise ConfigError(f"--seed is {features.seed}, but seeds are whole numbers from 0")


def _check_folder(path: Path) -> None:
    folder = path.absolute().parent
    with output_errors(path):
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give the name of a file")
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder} to write {path.name} into; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write into {folder} (no permission); choose a folder that is yours")


def finish(evaluation: Evaluation, content: ReportContent, output: OutputOptions) -> int:
    """Write the record and the page, print the figures; returns the exit code."""
    from smalti.report import record
    from smalti.report.evaluation_page import evaluation_page

    record.write(output.out, evaluation)
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
    places = [str(output.out)]
    if output.report is not None:
        page = evaluation_page(
            evaluation, pictures=content.pictures, pairs=content.pairs, neighbours=content.neighbours,
            histograms=content.histograms, curves=content.curves,
        )  # fmt: skip
        page.write(output.report)
        places.append(str(output.report))
    console.note(f"written: {', '.join(places)}")
    return 0


def _class_row(row: Any) -> tuple[str, ...]:
    return (str(row["name"]), *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), f"{row['count']:,}")
