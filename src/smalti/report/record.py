"""The record of an evaluation: one JSON file with the figures and everything that decides them.

    {"format": 1, "form": "generator", "subject": {...}, "reference": {...}, "protocol": {...},
     "figures": [{"name": "frechet_distance", "value": 12.3, "low": 11.9, "high": 12.8, "count": 10000, ...}],
     "classes": [{"name": "cat", "precision": ..., "recall": ..., "f1": ..., "count": ...}],
     "warnings": [...], "version": "0.2.0", "date": "2026-01-31T12:00:00+00:00", "command": [...], "machine": "..."}

`protocol` is what must be equal before two figures may be compared (`protocol_of` fills it in); `subject` is what was
judged and may differ. JSON knows no infinity, so a figure that is infinite or no number is written as one of the words
"inf", "-inf", "nan". A file is read as hostile: its size is limited, and every key, type and range is checked.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smalti._version import __version__
from smalti.errors import DataError
from smalti.files import input_errors, write_atomically
from smalti.metrics.bootstrap import LEVEL
from smalti.metrics.metric import MetricValue

FORMAT = 1
METRICS = 1
"""Version of the definitions of all figures; raised by whatever changes the value of one on the same images."""

FORMS = ("generator", "folder", "autoencoder", "encoder", "prior")
SIZE_LIMIT = 8 * 2**20  # bytes; ours are a few thousand
DEPTH_LIMIT = 12
CLASS_FIGURES = ("precision", "recall", "f1")
_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

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
UNITS = {"bits per pixel": "bpp"}  # how a table writes them


@dataclass(frozen=True)
class Evaluation:
    """What was measured, on what, how, and what came out.

    Attributes:
        form: one of `FORMS`.
        subject: what was judged: path, model digest, fingerprint, count, seed, settings.
        reference: what it was held against: source, split, fingerprint, count; {} where there is nothing.
        protocol: everything that must be equal for two figures to be comparable; see `protocol_of`.
        figures: names are unique.
        classes: one table a class: name, precision, recall, f1 (in [0, 1]), count; () without labels.
        warnings: plain sentences a reader must know before the figures.
        date: ISO 8601 with its offset, in UTC.
        version: of smalti.
        command: the arguments as they were typed; () when called from Python.
        machine: a few words: torch version, device.

    Tuples, numpy numbers and paths inside become lists, numbers and strings, so that reading gives back what was made.

    Raises:
        DataError: anything that does not fit the above, with its place.
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
            raise DataError(f"form is {_shown(self.form)}, expected one of {', '.join(FORMS)}")
        for name in ("subject", "reference", "protocol"):
            object.__setattr__(self, name, _plain_table(getattr(self, name), name))
        for name in ("warnings", "command"):
            object.__setattr__(self, name, _texts(getattr(self, name), name))
        for name in ("version", "machine"):
            _text(getattr(self, name), name)
        _check_date(self.date)
        object.__setattr__(self, "figures", tuple(_checked_figure(figure) for figure in self.figures))
        twice = [name for name, times in Counter(figure.name for figure in self.figures).items() if times > 1]
        if twice:
            raise DataError(f"figures hold {twice[0]!r} twice; a name stands for one figure")
        object.__setattr__(self, "classes", tuple(_checked_class(row, i) for i, row in enumerate(self.classes)))

    def figure(self, name: str) -> MetricValue | None:
        """The figure of that name, None where it was not measured."""
        return next((figure for figure in self.figures if figure.name == name), None)


def protocol_of(
    *,
    extractor: Mapping[str, Any] | None,
    reference_fingerprint: str,
    reference_count: int,
    judged_count: int,
    **settings: Any,
) -> dict[str, Any]:
    """The protocol under which figures are measured, its keys always called the same.

    Args:
        extractor: `Extractor.record()`, None where no features are used.
        reference_fingerprint: of the images held against, "" where there are none.
        reference_count: how many of them.
        judged_count: images judged.
        settings: what else decides a figure's value, such as `neighbours` and `seed`; None values are left out.

    Returns:
        A table for `Evaluation.protocol`, with the version of the metrics.
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
    """Write a record, whole or not at all; the same record gives the same bytes, and missing folders are not made.

    Raises:
        OutputError: the disk is full or the place cannot be written.
    """
    plain: dict[str, Any] = {"format": FORMAT}
    for field in dataclasses.fields(evaluation):
        plain[field.name] = getattr(evaluation, field.name)
    plain["figures"] = [_figure_to_plain(figure) for figure in evaluation.figures]
    plain["classes"] = [{key: _number_to_plain(value) for key, value in row.items()} for row in evaluation.classes]
    content = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(content.encode()))


def read(path: Path) -> Evaluation:
    """Read a record.

    Raises:
        DataError: missing, unreadable, larger than 8 MiB, cut short, not a record, or of a format not known here.
    """
    plain = _read_json(path)
    if not isinstance(plain, dict) or "format" not in plain or "figures" not in plain:
        raise DataError(f"{path} is not an evaluation; expected a JSON file written by smalti evaluate")
    found = plain.pop("format")
    if type(found) is not int or found != FORMAT:
        raise DataError(
            f"{path} has the evaluation format {_shown(found)}, but smalti {__version__} reads format {FORMAT}; "
            f"read it with the version that wrote it (smalti {_shown(plain.get('version'))}), or measure again"
        )
    fields = {field.name for field in dataclasses.fields(Evaluation)}
    wrong = sorted(fields ^ set(plain))
    if wrong:
        what = "lacks" if wrong[0] in fields else "holds the unknown key"
        raise DataError(f"{path} {what} {_shown(wrong[0])}; it was changed or damaged, measure again")
    try:
        for name in ("figures", "classes"):
            if not isinstance(plain[name], list):
                raise DataError(f"{name} must be a list, found {_shown(plain[name])}")
        plain["figures"] = tuple(_figure_from_plain(row, i) for i, row in enumerate(plain["figures"]))
        plain["classes"] = tuple(_class_from_plain(row, i) for i, row in enumerate(plain["classes"]))
        return Evaluation(**plain)
    except DataError as error:
        raise DataError(f"{path} is no evaluation that smalti wrote: {error}") from None


def table(evaluation: Evaluation) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The figures as text, for a terminal or a page.

    Returns:
        The header and one row a figure: what it is, its value, its interval, the images it rests on, which way is good.
    """
    header = ("figure", "value", f"{LEVEL * 100:g} % interval", "N", "better")
    rows: list[tuple[str, ...]] = []
    for figure in evaluation.figures:
        digits = decimals(figure.value, figure.low, figure.high)
        unit = f" {UNITS.get(figure.unit, figure.unit)}" if figure.unit else ""
        rows.append(
            (
                title(figure.name, evaluation),
                written(figure.value, digits) + unit,
                span(figure.low, figure.high, digits),
                f"{figure.count:,}",
                figure.better,
            )
        )
    return header, rows


def title(name: str, evaluation: Evaluation) -> str:
    """What a figure is called in a table; a Frechet distance says of which features, and is FID only with Inception.

    `FID` needs the network of that name, its input of 299 pixels and float32; anything else is another distance.
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


def decimals(value: float, low: float | None = None, high: float | None = None) -> int:
    """Digits after the point that are worth printing: two of the half interval, four of the value without one.

    Returns:
        0 to 12.
    """
    half = (high - low) / 2 if low is not None and high is not None else math.nan
    if math.isfinite(half) and half > 0:
        digits = 1 - math.floor(math.log10(half))
        if math.isfinite(value) and value != 0:
            digits = min(digits, 5 - math.floor(math.log10(abs(value))))  # six digits of any number are enough
    elif math.isfinite(value) and value != 0:
        digits = 3 - math.floor(math.log10(abs(value)))
    else:
        digits = 0 if value == 0 else 2
    return min(max(digits, 0), 12)


def written(value: float, digits: int, *, sign: bool = False) -> str:
    """A number with so many digits after the point, thousands set apart; infinities and NaN by their words.

    More than six digits are no help to the eye, and become a power of ten: 1.35e-08.
    """
    if math.isnan(value):
        return "nan"
    if digits > 6:
        return f"{value:+.3g}" if sign and value else f"{value:.3g}"
    text = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    # Minus nothing reads as a finding, and so does plus nothing.
    return text if text.strip("+-0.,") else text.lstrip("+-")


def span(low: float | None, high: float | None, digits: int, *, sign: bool = False) -> str:
    """An interval as text, "" where there is none."""
    if low is None or high is None:
        return ""
    return f"{written(low, digits, sign=sign)} to {written(high, digits, sign=sign)}"


# Reading and checking


def _read_json(path: Path) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key stands twice in one table")
        return result

    def no_number(word: str) -> float:
        raise ValueError(f"{word} is no JSON")

    with input_errors(path, DataError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > SIZE_LIMIT else file.read(SIZE_LIMIT + 1)
    if size > SIZE_LIMIT or len(content) > SIZE_LIMIT:
        raise DataError(f"{path} is larger than {SIZE_LIMIT // 2**20} MiB; expected the small JSON of smalti evaluate")
    try:
        return json.loads(content, object_pairs_hook=once, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0][:120]
        raise DataError(
            f"{path} is not JSON, or was cut short ({reason}); expected a file of smalti evaluate"
        ) from None


def _figure_to_plain(figure: MetricValue) -> dict[str, Any]:
    plain = dataclasses.asdict(figure)
    return plain | {key: _number_to_plain(plain[key]) for key in ("value", "low", "high")}


def _number_to_plain(value: Any) -> Any:
    """A float that JSON cannot hold as its word; everything else as it is."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(float(value))
    return value


def _number_from_plain(value: Any) -> Any:
    return _WORDS.get(value, value) if isinstance(value, str) else value


def _figure_from_plain(row: Any, index: int) -> MetricValue:
    keys = [field.name for field in dataclasses.fields(MetricValue)]
    if not isinstance(row, dict) or sorted(row) != sorted(keys):
        raise DataError(f"figures[{index}] must hold {', '.join(keys)}, found {_shown(row)}")
    return MetricValue(
        **{key: _number_from_plain(row[key]) if key in ("value", "low", "high") else row[key] for key in keys}
    )


def _class_from_plain(row: Any, index: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"classes[{index}] must be a table, found {_shown(row)}")
    return {key: _number_from_plain(value) if key in CLASS_FIGURES else value for key, value in row.items()}


def _checked_figure(figure: MetricValue) -> MetricValue:
    where = f"figure {_shown(figure.name)}"
    if not isinstance(figure.name, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", figure.name):
        raise DataError(f"{where}: its name must be lower-case letters, digits and _")
    if (figure.low is None) != (figure.high is None):
        raise DataError(f"{where} has one end of an interval; expected both or none")
    ends = [None if end is None else _real(end, where) for end in (figure.low, figure.high)]
    if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
        raise DataError(f"{where}: its interval runs from {ends[0]:g} down to {ends[1]:g}")
    if figure.better not in ("lower", "higher", ""):
        raise DataError(f"{where}: better is {_shown(figure.better)}, expected lower, higher or nothing")
    return MetricValue(
        figure.name, _real(figure.value, where), ends[0], ends[1], _count(figure.count, where), figure.better,
        _text(figure.unit, where), _text(figure.note, where),
    )  # fmt: skip


def _checked_class(row: Any, index: int) -> dict[str, Any]:
    where = f"classes[{index}]"
    if not isinstance(row, Mapping) or sorted(row) != sorted(("name", *CLASS_FIGURES, "count")):
        raise DataError(f"{where} must hold name, {', '.join(CLASS_FIGURES)}, count, found {_shown(row)}")
    figures = {key: _real(row[key], where) for key in CLASS_FIGURES}
    if any(not (math.isnan(value) or 0 <= value <= 1) for value in figures.values()):
        raise DataError(f"{where}: {', '.join(CLASS_FIGURES)} must lie in [0, 1]")
    return {"name": _text(row["name"], where)} | figures | {"count": _count(row["count"], where)}


def _check_date(date: Any) -> None:
    try:
        offset = datetime.datetime.fromisoformat(date).utcoffset()
    except (TypeError, ValueError):
        offset = None
    if offset is None or offset != datetime.timedelta(0):
        raise DataError(f"date is {_shown(date)}, expected one in UTC such as 2026-01-31T12:00:00+00:00")


def _real(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise DataError(f"{where}: {_shown(value)} is no number")
    try:
        return float(value)
    except OverflowError:
        raise DataError(f"{where}: a number is too large") from None


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**63:
        raise DataError(f"{where}: count is {_shown(value)}, expected a whole number from 0")
    return int(value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {_shown(value)} is no text")
    return value


def _texts(values: Any, where: str) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise DataError(f"{where} must be a list of texts, found {_shown(values)}")
    return tuple(_text(value, where) for value in values)


def _plain_table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"{where} must be a table, found {_shown(value)}")
    return _plain(value, where, 0)


def _plain(value: Any, where: str, depth: int) -> Any:
    """A value as dicts, lists, texts, numbers and None, which is what JSON holds."""
    if depth > DEPTH_LIMIT:
        raise DataError(f"{where[:60]} is nested deeper than {DEPTH_LIMIT}")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise DataError(f"{where} has a key that is no text")
        return {key: _plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating) and math.isfinite(value):
        return float(value)
    raise DataError(f"{where} is {_shown(value)}; expected text, finite numbers, lists or tables of them")


def _shown(value: Any) -> str:
    """A value of anybody's making, short enough for one line."""
    if isinstance(value, dict | list | tuple):
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a very large number"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
