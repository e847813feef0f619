"""Parsing of counts, durations and image sizes: 200k, 1.5h, 48x64."""

from __future__ import annotations

import re

from smalti.errors import ConfigError


def parse_count(text: str | int) -> int:
    """Parse a number of images: `200000`, `200k`, `3M`, `1.5M`, `1G`.

    Raises:
        ConfigError: any other text, or a value that is not positive.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([kKMG]?)", str(text).strip().replace("_", ""))
    count = round(float(match[1]) * {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}[match[2]]) if match else 0
    if count < 1:
        raise ConfigError(f"{text!r} is not a number of images; write it as 200000, 200k or 3M")
    return count


def parse_duration(text: str | int | float) -> float:
    """Parse a duration to seconds: `90s`, `10m`, `1.5h`; a number without a unit is in seconds.

    Raises:
        ConfigError: any other text, or a value that is not positive.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh]?)", str(text).strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise ConfigError(f"{text!r} is not a time; write it as 90s, 10m or 1.5h")
    return seconds


def parse_size(text: str | int) -> tuple[int, int]:
    """Parse an image size to (height, width) in pixels: `64` is square, `48x64` is 48 high and 64 wide.

    Raises:
        ConfigError: any other text, or a side outside 1..16384.
    """
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", str(text).strip())
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(1 <= side <= 16384 for side in size):
        raise ConfigError(f"{text!r} is not a size; write it as 64 (square) or 48x64 (height x width), 1 to 16384")
    return size
