"""The record of an evaluation: one JSON file with the metric values and everything that they depend on.

    {"format": 1, "form": "generator", "subject": {...}, "reference": {...}, "protocol": {...},
     "figures": [{"name": "frechet_distance", "value": 12.3, "low": 11.9, "high": 12.8, "count": 10000, ...}],
     "classes": [{"name": "cat", "precision": ..., "recall": ..., "f1": ..., "count": ...}],
     "warnings": [...], "version": "0.2.0", "date": "2026-01-31T12:00:00+00:00", "command": [...], "machine": "..."}

`protocol` must be equal for two metric values to be comparable (`protocol_of` builds it); `subject` describes the
evaluated images and may differ. Values that JSON cannot represent are written as "inf", "-inf" and "nan". Files are
treated as untrusted and validated completely when they are read (record_json.py).
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smalti._version import __version__
from smalti.errors import DataError, command
from smalti.files import write_atomically
from smalti.metrics.bootstrap import LEVEL
from smalti.metrics.metric import MetricValue
from smalti.report.formatting import decimal_places, format_interval, format_number, format_unit
from smalti.report.record_json import (
    check_date,
    checked_class,
    checked_metric,
    checked_table,
    checked_text,
    checked_texts,
    class_from_json,
    metric_from_json,
    metric_to_json,
    number_to_json,
    read_json,
    shown,
)

FORMAT = 1
METRICS = 1
"""Version of the metric definitions; raised by any change that alters a metric value on the same images."""

FORMS = ("generator", "folder", "autoencoder", "encoder", "prior")

TITLES = {
    "frechet_distance": "FD",
    "frechet_distance_infinity": "FD, extrapolated to infinite N",
    "kernel_distance": "KID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "c_t": "C_T",
    "psnr_db": "PSNR",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "rate_bpp": "rate, fixed length",
    "entropy_bpp": "rate, ideal coder",
    "bits_per_code": "bits of a code",
    "bits_per_dimension": "bits per dimension",
}
"""Names of metrics in tables; other metrics are shown under their identifier with spaces."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: metric values with their subject, reference and protocol.

    Attributes:
        form: one of `FORMS`.
        subject: what was evaluated: path, model digest, fingerprint, count, seed, settings.
        reference: the reference set: source, split, fingerprint, count; {} if there is none.
        protocol: everything that must be equal for two metric values to be comparable; see `protocol_of`.
        figures: the metric values, with unique names.
        classes: one table per class: name, precision, recall, f1 (in [0, 1]), count; () without labels.
        warnings: caveats to read before the metric values, one sentence each.
        date: ISO 8601 date and time in UTC, with offset.
        version: version of smalti.
        command: command-line arguments as typed; () when called from Python.
        machine: torch version and device.

    Tuples, numpy numbers and paths are converted to lists, numbers and strings, so that reading a written record gives
    an equal one.

    Raises:
        DataError: a value does not match this description; the message gives its location.
    """

    form: str
    subject: Mapping[str, Any]
    reference: Mapping[str, Any]
    protocol: Mapping[str, Any]
    figures: tuple[MetricValue, ...]
    date: str
    classes: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    version: str = __version__
    command: tuple[str, ...] = ()
    machine: str = ""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise DataError(f"form is {shown(self.form)}, expected one of {', '.join(FORMS)}")
        for name in ("subject", "reference", "protocol"):
            object.__setattr__(self, name, checked_table(getattr(self, name), name))
        for name in ("warnings", "command"):
            object.__setattr__(self, name, checked_texts(getattr(self, name), name))
        for name in ("version", "machine"):
            checked_text(getattr(self, name), name)
        check_date(self.date)
        object.__setattr__(self, "figures", tuple(checked_metric(figure) for figure in self.figures))
        twice = [name for name, times in Counter(figure.name for figure in self.figures).items() if times > 1]
        if twice:
            raise DataError(f"figures hold {twice[0]!r} twice; a name stands for one figure")
        object.__setattr__(self, "classes", tuple(checked_class(row, i) for i, row in enumerate(self.classes)))

    def figure(self, name: str) -> MetricValue | None:
        """The metric value of that name; None if it was not measured."""
        return next((figure for figure in self.figures if figure.name == name), None)


def protocol_of(
    *,
    extractor: Mapping[str, Any] | None,
    reference_fingerprint: str,
    reference_count: int,
    judged_count: int,
    **settings: Any,
) -> dict[str, Any]:
    """The protocol of an evaluation, under fixed keys.

    Args:
        extractor: `Extractor.record()`; None if no features are used.
        reference_fingerprint: fingerprint of the reference set; "" if there is none.
        reference_count: number of reference images.
        judged_count: number of evaluated images.
        settings: other settings that metric values depend on, such as `neighbours` and `seed`; None values are omitted.

    Returns:
        A table for `Evaluation.protocol`, including the version of the metrics.
    """
    protocol: dict[str, Any] = {"metrics": METRICS}
    if extractor is not None:
        protocol["extractor"] = dict(extractor)
    protocol |= {
        "reference_fingerprint": reference_fingerprint,
        "reference_count": reference_count,
        "judged_count": judged_count,
    }
    return protocol | {name: value for name, value in settings.items() if value is not None}


def write(path: Path, evaluation: Evaluation) -> None:
    """Write a record atomically; equal records give equal bytes. Missing folders are not created.

    Raises:
        OutputError: the file cannot be written or the disk is full.
    """
    plain: dict[str, Any] = {"format": FORMAT}
    for field in dataclasses.fields(evaluation):
        plain[field.name] = getattr(evaluation, field.name)
    plain["figures"] = [metric_to_json(figure) for figure in evaluation.figures]
    plain["classes"] = [{key: number_to_json(value) for key, value in row.items()} for row in evaluation.classes]
    content = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(content.encode()))


def read(path: Path) -> Evaluation:
    """Read a record.

    Raises:
        DataError: the file is missing, unreadable, larger than 8 MiB, truncated, no record, or of another format.
    """
    plain = read_json(path)
    if not isinstance(plain, dict) or "format" not in plain or "figures" not in plain:
        raise DataError(f"{path} is not an evaluation; expected a JSON file written by {command('evaluate')}")
    found = plain.pop("format")
    if type(found) is not int or found != FORMAT:
        raise DataError(
            f"{path} has the evaluation format {shown(found)}, but smalti {__version__} reads format {FORMAT}; "
            f"read it with the version that wrote it (smalti {shown(plain.get('version'))}), or measure again"
        )
    fields = {field.name for field in dataclasses.fields(Evaluation)}
    wrong = sorted(fields ^ set(plain))
    if wrong:
        what = "lacks" if wrong[0] in fields else "holds the unknown key"
        raise DataError(f"{path} {what} {shown(wrong[0])}; it was changed or damaged, measure again")
    try:
        for name in ("figures", "classes"):
            if not isinstance(plain[name], list):
                raise DataError(f"{name} must be a list, found {shown(plain[name])}")
        plain["figures"] = tuple(metric_from_json(row, i) for i, row in enumerate(plain["figures"]))
        plain["classes"] = tuple(class_from_json(row, i) for i, row in enumerate(plain["classes"]))
        return Evaluation(**plain)
    except DataError as error:
        raise DataError(f"{path} is no evaluation that smalti wrote: {error}") from None


def table(evaluation: Evaluation) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The metric values as text, for a terminal or a page.

    Returns:
        The header and one row per metric: name, value, confidence interval, number of images, better direction.
    """
    header = ("figure", "value", f"{LEVEL * 100:g} % interval", "N", "better")
    rows: list[tuple[str, ...]] = []
    for figure in evaluation.figures:
        digits = decimal_places(figure.value, figure.low, figure.high)
        rows.append(
            (
                title(figure.name, evaluation),
                format_number(figure.value, digits) + format_unit(figure.unit),
                format_interval(figure.low, figure.high, digits),
                f"{figure.count:,}",
                figure.better,
            )
        )
    return header, rows


def title(name: str, evaluation: Evaluation) -> str:
    """Name of a metric in tables; a Frechet distance also names its features.

    It is called FID only for features of the Inception network at 299 pixels in float32.
    """
    words = TITLES.get(name, name.replace("_", " "))
    extractor = evaluation.protocol.get("extractor")
    if not name.startswith("frechet_distance") or not isinstance(extractor, dict):
        return words
    network, size = extractor.get("name"), extractor.get("size")
    precision = str(extractor.get("precision", "float32")).split(" ")[0]
    if network == "inception" and size == [299, 299] and precision == "float32":
        return words.replace("FD", "FID")
    features = [str(network)]
    if isinstance(size, list) and len(size) == 2:
        features.append(f"{size[0]} px" if size[0] == size[1] else f"{size[0]}x{size[1]} px")
    if precision != "float32":
        features.append(precision)
    return words.replace("FD", f"FD ({', '.join(features)})")
