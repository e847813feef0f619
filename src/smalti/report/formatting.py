"""Formatting of numbers and confidence intervals with as many digits as the interval supports."""

from __future__ import annotations

import math

UNITS = {"bits per pixel": "bpp"}
"""Short forms of units, for tables."""


def decimal_places(value: float, low: float | None = None, high: float | None = None) -> int:
    """Decimal places worth printing, from 0 to 12.

    With a confidence interval, two significant digits of its half-width; without one, four significant digits of the
    value.
    """
    half = (high - low) / 2 if low is not None and high is not None else math.nan
    if math.isfinite(half) and half > 0:
        digits = 1 - math.floor(math.log10(half))
        if math.isfinite(value) and value != 0:
            digits = min(digits, 5 - math.floor(math.log10(abs(value))))  # at most six significant digits
    elif math.isfinite(value) and value != 0:
        digits = 3 - math.floor(math.log10(abs(value)))
    else:
        digits = 0 if value == 0 else 2
    return min(max(digits, 0), 12)


def format_number(value: float, digits: int, *, sign: bool = False) -> str:
    """A number with the given decimal places and thousands separators; infinity and NaN as "inf" and "nan".

    With more than six decimal places, which are hard to read, it switches to scientific notation: 1.35e-08.
    """
    if math.isnan(value):
        return "nan"
    if digits > 6:
        return f"{value:+.3g}" if sign and value else f"{value:.3g}"
    text = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    # A signed zero would look like a finding.
    return text if text.strip("+-0.,") else text.lstrip("+-")


def format_interval(low: float | None, high: float | None, digits: int, *, sign: bool = False) -> str:
    """An interval such as "1.2 to 1.4"; "" if there is none."""
    if low is None or high is None:
        return ""
    return f"{format_number(low, digits, sign=sign)} to {format_number(high, digits, sign=sign)}"


def format_unit(unit: str) -> str:
    """A unit as a suffix, such as " dB"; "" for dimensionless numbers."""
    return f" {UNITS.get(unit, unit)}" if unit else ""
