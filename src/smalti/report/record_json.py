"""Validation of the parts of an evaluation record, and their conversion to and from JSON.

Records may come from untrusted files: the size of the file is limited, and every key, type and range is checked. JSON
has no infinity and no NaN, so such values are written as the strings "inf", "-inf" and "nan".
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smalti.errors import DataError, command
from smalti.files import input_errors
from smalti.metrics.metric import MetricValue

SIZE_LIMIT = 8 * 2**20  # bytes; a typical record has a few thousand
DEPTH_LIMIT = 12
CLASS_VALUES = ("precision", "recall", "f1")
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


# Files


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: the file cannot be read, exceeds `SIZE_LIMIT`, or is not strict JSON.
    """

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key stands twice in one table")
        return result

    def refuse_constant(word: str) -> float:
        raise ValueError(f"{word} is no JSON")

    with input_errors(path, DataError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > SIZE_LIMIT else file.read(SIZE_LIMIT + 1)
    if size > SIZE_LIMIT or len(content) > SIZE_LIMIT:
        raise DataError(
            f"{path} is larger than {SIZE_LIMIT // 2**20} MiB; expected the small JSON of {command('evaluate')}"
        )
    try:
        return json.loads(content, object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0][:120]
        raise DataError(
            f"{path} is not JSON, or was cut short ({reason}); expected a file of {command('evaluate')}"
        ) from None


# To and from JSON values


def number_to_json(value: Any) -> Any:
    """Floats that JSON cannot represent as strings; everything else unchanged."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(float(value))
    return value


def number_from_json(value: Any) -> Any:
    """Inverse of `number_to_json`."""
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def metric_to_json(metric: MetricValue) -> dict[str, Any]:
    """A metric value as a JSON object."""
    plain = dataclasses.asdict(metric)
    return plain | {key: number_to_json(plain[key]) for key in ("value", "low", "high")}


def metric_from_json(row: Any, index: int) -> MetricValue:
    """A metric value with the right keys, whose values are not checked yet. Raises DataError for other keys."""
    keys = [field.name for field in dataclasses.fields(MetricValue)]
    if not isinstance(row, dict) or sorted(row) != sorted(keys):
        raise DataError(f"figures[{index}] must hold {', '.join(keys)}, found {shown(row)}")
    return MetricValue(
        **{key: number_from_json(row[key]) if key in ("value", "low", "high") else row[key] for key in keys}
    )


def class_from_json(row: Any, index: int) -> dict[str, Any]:
    """A row of the class table, not checked yet. Raises DataError if it is no object."""
    if not isinstance(row, dict):
        raise DataError(f"classes[{index}] must be a table, found {shown(row)}")
    return {key: number_from_json(value) if key in CLASS_VALUES else value for key, value in row.items()}


# Validation; each function returns the value with plain Python types, or raises DataError with its location


def checked_metric(metric: MetricValue) -> MetricValue:
    where = f"figure {shown(metric.name)}"
    if not isinstance(metric.name, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", metric.name):
        raise DataError(f"{where}: its name must be lower-case letters, digits and _")
    if (metric.low is None) != (metric.high is None):
        raise DataError(f"{where} has one end of an interval; expected both or none")
    ends = [None if end is None else _real(end, where) for end in (metric.low, metric.high)]
    if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
        raise DataError(f"{where}: its interval runs from {ends[0]:g} down to {ends[1]:g}")
    if metric.better not in ("lower", "higher", ""):
        raise DataError(f"{where}: better is {shown(metric.better)}, expected lower, higher or nothing")
    return MetricValue(
        metric.name, _real(metric.value, where), ends[0], ends[1], _count(metric.count, where), metric.better,
        checked_text(metric.unit, where), checked_text(metric.note, where),
    )  # fmt: skip


def checked_class(row: Any, index: int) -> dict[str, Any]:
    where = f"classes[{index}]"
    if not isinstance(row, Mapping) or sorted(row) != sorted(("name", *CLASS_VALUES, "count")):
        raise DataError(f"{where} must hold name, {', '.join(CLASS_VALUES)}, count, found {shown(row)}")
    values = {key: _real(row[key], where) for key in CLASS_VALUES}
    if any(not (math.isnan(value) or 0 <= value <= 1) for value in values.values()):
        raise DataError(f"{where}: {', '.join(CLASS_VALUES)} must lie in [0, 1]")
    return {"name": checked_text(row["name"], where)} | values | {"count": _count(row["count"], where)}


def check_date(date: Any) -> None:
    try:
        offset = datetime.datetime.fromisoformat(date).utcoffset()
    except (TypeError, ValueError):
        offset = None
    if offset is None or offset != datetime.timedelta(0):
        raise DataError(f"date is {shown(date)}, expected one in UTC such as 2026-01-31T12:00:00+00:00")


def checked_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {shown(value)} is no text")
    return value


def checked_texts(values: Any, where: str) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise DataError(f"{where} must be a list of texts, found {shown(values)}")
    return tuple(checked_text(value, where) for value in values)


def checked_table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"{where} must be a table, found {shown(value)}")
    table: dict[str, Any] = _plain(value, where, 0)
    return table


def _plain(value: Any, where: str, depth: int) -> Any:
    """A value as dicts, lists, strings, numbers and None, the types that JSON has."""
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
    raise DataError(f"{where} is {shown(value)}; expected text, finite numbers, lists or tables of them")


def _real(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise DataError(f"{where}: {shown(value)} is no number")
    try:
        return float(value)
    except OverflowError:
        raise DataError(f"{where}: a number is too large") from None


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**63:
        raise DataError(f"{where}: count is {shown(value)}, expected a whole number from 0")
    return int(value)


def shown(value: Any) -> str:
    """An arbitrary value, abbreviated to fit into one line of an error message."""
    if isinstance(value, dict | list | tuple):
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a very large number"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
