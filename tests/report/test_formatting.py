"""Numbers and intervals as text: significant digits and signs."""

from __future__ import annotations

import math

import pytest

from smalti.report.formatting import decimal_places, format_interval, format_number, format_unit


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.934, 0.92, 0.95, "0.934"),
        (31.2345, 31.1, 31.4, "31.23"),
        (1234567.0, 1.2e6, 1.3e6, "1,234,567"),
        (1234.5, None, None, "1,234"),
        (0.5, 0.5, 0.5, "0.5000"),
        (1 / 3, 1 / 3 - 1e-9, 1 / 3 + 1e-9, "0.333333"),
        (0.0, None, None, "0"),
        (-0.0001, -0.01, 0.01, "0.000"),
        (2.5e-8, 2e-8, 3e-8, "2.5e-08"),
        (0.0, -1e-9, 1e-9, "0"),
        (-0.0000123456, -0.00002, -0.00001, "-1.23e-05"),
        (math.nan, 0.0, 1.0, "nan"),
        (math.inf, 0.0, 1.0, "inf"),
        (1.0, -math.inf, math.inf, "1.000"),
    ],
)
def test_significant_digits(value: float, low: float | None, high: float | None, expected: str) -> None:
    assert format_number(value, decimal_places(value, low, high)) == expected


def test_a_sign_is_shown_where_it_means_something() -> None:
    assert format_number(0.5, 2, sign=True) == "+0.50"
    assert format_number(-0.001, 2, sign=True) == format_number(0.0, 2, sign=True) == "0.00"
    assert format_interval(None, None, 2) == ""
    assert format_interval(-1, 1, 1, sign=True) == "-1.0 to +1.0"


def test_units_are_suffixes_in_their_short_form() -> None:
    assert format_unit("bits per pixel") == " bpp"
    assert format_unit("dB") == " dB"
    assert format_unit("") == ""
