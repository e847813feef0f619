"""Rate-distortion curves: the frontier, and interpolation both ways."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smalti.metrics.rate_distortion import bytes_at, frontier, psnr_at

POINTS = st.lists(st.tuples(st.floats(1, 1e6), st.floats(5, 60)), min_size=2, max_size=12)


def test_a_point_that_is_beaten_is_left_out() -> None:
    assert frontier([(100, 30), (50, 25), (60, 24), (50, 20), (200, 30), (150, 35)]) == [(50, 25), (100, 30), (150, 35)]
    assert frontier([]) == []


@given(POINTS)
def test_no_point_of_a_frontier_is_beaten(points: list[tuple[float, float]]) -> None:
    curve = frontier(points)
    assert curve == sorted(curve)
    assert all(psnr < better for (_, psnr), (_, better) in itertools.pairwise(curve))
    assert all(any(size <= s and psnr >= p for size, psnr in curve) for s, p in points)


def test_bytes_are_interpolated_by_their_logarithm() -> None:
    curve = [(10.0, 20.0), (1000.0, 30.0), (2000.0, 32.0)]
    assert bytes_at(curve, 25) == pytest.approx(100)
    assert bytes_at(curve, 31) == pytest.approx(1000 * math.sqrt(2))
    assert bytes_at(curve, 20) == pytest.approx(10)
    assert bytes_at(curve, 32) == pytest.approx(2000)
    assert bytes_at(curve, 19.9) is None
    assert bytes_at(curve, 32.1) is None
    assert psnr_at(curve, 100) == pytest.approx(25)
    assert psnr_at(curve, 9) is None


@given(POINTS, st.floats(0, 1))
def test_each_inverts_the_other(points: list[tuple[float, float]], share: float) -> None:
    curve = frontier(points)
    level = curve[0][1] + share * (curve[-1][1] - curve[0][1])
    size = bytes_at(curve, level)
    if size is not None and min(b / a for (a, _), (b, _) in itertools.pairwise(curve)) > 1.001:
        found = psnr_at(curve, min(max(size, curve[0][0]), curve[-1][0]))
        assert found == pytest.approx(level, abs=1e-3)
