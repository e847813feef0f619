"""Building blocks of the settings dataclasses: fields whose values are validated. Imports no torch."""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from smalti.errors import ConfigError, did_you_mean


def number(default: Any, low: float, high: float) -> Any:
    """A numeric field with values in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


def number_or(word: str, low: float, high: float) -> Any:
    """A field whose value is a number in [low, high] or the given word, which is the default."""
    return field(default=word, metadata={"low": low, "high": high, "word": word})


def numbers(default: tuple[int, ...], low: float, high: float, *, longest: int) -> Any:
    """A field whose value is a tuple of 1 to `longest` numbers, each in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high, "longest": longest})


def choice(default: str, *others: str) -> Any:
    """A field whose value is one of the given words; the first is the default."""
    return field(default=default, metadata={"choices": (default, *others)})


class ValidatedConfig:
    """Base of the settings dataclasses: all fields are validated on construction.

    Raises:
        ConfigError: a value has the wrong type or is out of range.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, entry.name)
            problem = _problem(value, hints[entry.name], entry.metadata)
            if problem:
                raise ConfigError(f"{entry.name} {problem}")


def _problem(value: Any, hint: Any, metadata: Mapping[str, Any]) -> str | None:
    """What is wrong with the value of a field, or None if it is valid."""
    allowed = alternatives(hint)
    if value is None:
        return None if type(None) in allowed else "must be given"
    if not any(_is_instance(value, kind) for kind in allowed):
        names = " or ".join(_kind_name(kind) for kind in allowed if kind is not type(None))
        return f"is {shown(value)}, but must be {names}"
    word = metadata.get("word")
    if word is not None and isinstance(value, str):
        return None if value == word else f"is {shown(value)}, but must be a number or {word}"
    choices = metadata.get("choices")
    if choices and value not in choices:
        return f"is {shown(value)}: {did_you_mean(value, choices)} (one of {', '.join(choices)})"
    if "longest" in metadata and not 1 <= len(value) <= metadata["longest"]:
        return f"has {len(value)} numbers, but must have from 1 to {metadata['longest']}"
    if "low" in metadata:
        for item in value if isinstance(value, tuple) else (value,):
            # Written so that NaN fails, since every comparison with it is false.
            if not metadata["low"] <= item <= metadata["high"]:
                return f"is {shown(item)}, but must be from {metadata['low']:g} to {metadata['high']:g}"
    return None


def _kind_name(kind: Any) -> str:
    """Name of a type for messages: `int`, `tuple`, or `a list of int` for a tuple of any length."""
    kinds = typing.get_args(kind)
    return f"a list of {kinds[0].__name__}" if Ellipsis in kinds else getattr(kind, "__name__", str(kind))


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def shown(value: Any) -> str:
    """Format a value for a message, truncated if it is long or deeply nested, as it may be in a hostile file."""
    return _short.repr(value)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a type hint allows: the members of a union, otherwise the type itself."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _is_instance(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        kinds = typing.get_args(kind)
        if Ellipsis in kinds:
            return isinstance(value, tuple) and all(_is_instance(item, kinds[0]) for item in value)
        return (
            isinstance(value, tuple)
            and len(value) == len(kinds)
            and all(_is_instance(item, kind) for item, kind in zip(value, kinds, strict=True))
        )
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
