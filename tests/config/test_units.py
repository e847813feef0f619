"""Counts, times and sizes as people type them."""

from __future__ import annotations

import math

import pytest

from smalti.config.units import parse_count, parse_duration, parse_size
from smalti.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "count"),
    [("1", 1), ("200000", 200_000), ("200k", 200_000), ("3M", 3_000_000), ("1.5M", 1_500_000), ("2G", 2 * 10**9),
     ("2K", 2000), (" 7 ", 7), ("1_000", 1000), (64, 64)],
)  # fmt: skip
def test_counts(text: str | int, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "3m", "3MM", "k", "1e6", "1.k", "0.4", "9" * 400, "٣", "nan", 0, -5, "1 000"]
)
def test_what_is_no_count(text: str | int) -> None:
    with pytest.raises(ConfigError, match="write it as 200000, 200k or 3M"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), (5, 5), (0.5, 0.5), (" 2m ", 120)]
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-3m", "3d", "1h30m", "ten", "9" * 400, "inf", "nan", math.inf])
def test_what_is_no_duration(text: str | float) -> None:
    with pytest.raises(ConfigError, match=r"write it as 90s, 10m or 1\.5h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64", (64, 64)), ("48x64", (48, 64)), ("48X64", (48, 64)), (32, (32, 32)), ("16384", (16384, 16384))],
)
def test_sizes(text: str | int, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0x4", "4x0", "16385", "4x4x4", "x4", "4x", "-4", "4.5", "4 x 4", "99999999999"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="48x64"):
        parse_size(text)
