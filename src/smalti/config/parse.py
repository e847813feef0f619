"""Conversion of settings to plain values and back; overrides by dotted path; TOML files.

    >>> override(RunConfig(recipe="vqvae", model=VQVAEConfig()), ["model.quantizer.codes=64"]).model.quantizer.codes
    64

`from_plain` checks every name, type and range, so that a malicious or mistyped file is rejected before any network is
built. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from smalti.config.fields import alternatives, shown
from smalti.config.kinds import kind_named
from smalti.config.run import RunConfig
from smalti.config.units import parse_count
from smalti.errors import ConfigError, arg, did_you_mean

T = TypeVar("T")


def to_plain(config: Any) -> Any:
    """Convert a settings object to dicts, lists and scalars, for JSON."""
    if dataclasses.is_dataclass(config):
        return {entry.name: to_plain(getattr(config, entry.name)) for entry in dataclasses.fields(config)}
    return list(config) if isinstance(config, tuple) else config


def from_plain(kind: type[T], plain: Any, where: str = "") -> T:
    """The inverse of `to_plain`, with validation of every key and value.

    Args:
        kind: the dataclass to build, for example `RunConfig`.
        plain: a dict as read from JSON or TOML; missing keys have their defaults.
        where: dotted path of `plain` for messages.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or is out of range; with its dotted path.
    """
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{where or 'the settings'} must be a table of settings, found {shown(plain)}")
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in plain.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in hints:
            raise ConfigError(f"there is no setting {path!r}; {did_you_mean(str(key), hints)}")
        table = _table(kind, key, hints[key], plain, path)
        if table is not None:
            value = from_plain(table, value, path)
        elif isinstance(value, list):
            value = tuple(value)
        values[key] = value
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}" if where else str(error)) from None


def _table(kind: type, key: str, hint: Any, plain: Mapping[str, Any], path: str) -> type | None:
    """The dataclass for the table under a key, or None if the key holds a plain value.

    If a hint allows several dataclasses, the first field of the table selects one; the recipe of a run selects its
    model.
    """
    if kind is RunConfig and key == "model":
        return kind_named(plain.get("recipe", "vqvae")).settings
    kinds = _kinds_by_word(hint)
    value = plain[key]
    if value is None and type(None) in alternatives(hint):
        return None
    if len(set(kinds.values())) < 2 or not isinstance(value, Mapping):
        return next(iter(kinds.values()), None)
    word = _word(hint)
    return _named(kinds, value.get(word, next(iter(kinds))), f"{path}.{word}")


def _word(hint: Any) -> str:
    """Name of the field that selects between dataclasses: the first field of each of them."""
    first = next(kind for kind in alternatives(hint) if dataclasses.is_dataclass(kind))
    return dataclasses.fields(first)[0].name


def _kinds_by_word(hint: Any) -> dict[str, type]:
    """The dataclasses that a hint allows, by the values of their first field; a single one by its default."""
    kinds: dict[str, type] = {}
    for kind in alternatives(hint):
        if dataclasses.is_dataclass(kind):
            first = dataclasses.fields(kind)[0]
            for word in first.metadata.get("choices", (str(first.default),)):
                kinds[word] = typing.cast(type, kind)
    return kinds


def _named(kinds: Mapping[str, type], name: Any, path: str) -> type:
    if not isinstance(name, str) or name not in kinds:
        raise ConfigError(
            f"{path} is {shown(name)}: {did_you_mean(shown(name).strip(chr(39)), kinds)} (one of {', '.join(kinds)})"
        )
    return kinds[name]


def paths(config: Any, prefix: str = "") -> dict[str, Any]:
    """All settings by dotted path, in order: `{"model.quantizer.codes": 512, ...}`."""
    found: dict[str, Any] = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            found |= paths(value, f"{prefix}{entry.name}.")
        else:
            found[prefix + entry.name] = value
    return found


def override(config: RunConfig, assignments: Iterable[str]) -> RunConfig:
    """Replace settings by assignments of the form `dotted.path=value`.

    Values are parsed as JSON if possible (`64`, `0.5`, `true`, `null`, `[32, 48]`), then as counts (`3M`, `50k`), else
    as strings. An assignment that selects another dataclass, such as `model.quantizer.name=scalar`, resets that table
    to its defaults and is applied first, regardless of the order.

    Raises:
        ConfigError: a path does not exist (the message suggests the closest one), or a value does not fit.
    """
    changes: list[tuple[str, str]] = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        path = path.strip()
        if not equals:
            raise ConfigError(f"{arg('set')} {assignment!r} has no '='; write it as {path or 'a.b'}=value")
        if path in ("recipe", "preset"):
            raise ConfigError(f"{path} cannot be set: it comes with the preset; give the name of another preset")
        changes.append((path, text.strip()))
    last = dict(changes)  # the last assignment to a path wins
    for path in sorted(last, key=lambda path: path.count(".")):  # outer tables first: they determine the inner ones
        config = _with_selected(config, path, last[path])

    plain = to_plain(config)
    known = paths(config)
    for path, text in changes:
        if path not in known:
            # A common mistake is to omit the first component: `quantizer.codes` for `model.quantizer.codes`.
            longer = [name for name in known if name.endswith("." + path)]
            raise ConfigError(f"there is no setting {path!r}; {did_you_mean(path, longer or known)}")
        if text != last[path]:
            continue  # a later assignment to this path wins, and may already have selected another dataclass
        node = plain
        *parents, leaf = path.split(".")
        for parent in parents:
            node = node[parent]
        node[leaf] = _value(text, _kinds(config, path))
    return from_plain(RunConfig, plain)


def _with_selected(config: Any, path: str, word: str, full_path: str = "") -> Any:
    """The settings with a table replaced by another dataclass's defaults if the path is of a selecting field."""
    table, _, rest = path.partition(".")
    inner = getattr(config, table, None)
    if not dataclasses.is_dataclass(inner):
        return config
    if "." in rest:
        return dataclasses.replace(config, **{table: _with_selected(inner, rest, word, full_path or path)})
    hint = typing.get_type_hints(type(config))[table]
    kinds = _kinds_by_word(hint)
    if len(set(kinds.values())) < 2 or rest != _word(hint):
        return config
    kind = _named(kinds, word, full_path or path)
    return config if isinstance(inner, kind) else dataclasses.replace(config, **{table: kind(**{rest: word})})


def _kinds(config: Any, path: str) -> tuple[Any, ...]:
    """The types that the setting at a dotted path accepts."""
    *parents, leaf = path.split(".")
    for parent in parents:
        config = getattr(config, parent)
    return alternatives(typing.get_type_hints(type(config))[leaf])


def _value(text: str, kinds: tuple[Any, ...]) -> Any:
    # String settings are not parsed as JSON: a split may be called 2024.
    if str in kinds and float not in kinds:
        return None if type(None) in kinds and text in ("null", "None") else text
    try:
        return json.loads(text.lower() if text in ("True", "False", "None") else text)
    except (ValueError, RecursionError):  # not JSON, or a number or nesting too large for the parser
        return parse_count(text) if re.fullmatch(r"[\d.]+[kKMG]", text) else text


def read_toml(path: str | Path) -> list[str]:
    """Read a TOML file as assignments for `override`.

    Raises:
        ConfigError: the file cannot be read or is not valid TOML.
    """
    try:
        flat = _flatten(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read the settings {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return [f"{name}={_text(value)}" for name, value in flat.items()]


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
