"""Charts: axes that cover their values, downsampling that keeps spikes, and unusual series."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.errors import DataError
from smalti.report import axes, charts

SVG = "{http://www.w3.org/2000/svg}"
NAN, INF = math.nan, math.inf

ODD_SERIES = {
    "none": {},
    "empty": {"a": ([], [])},
    "one point": {"a": ([3], [5])},
    "constant": {"a": ([1, 2, 3], [4, 4, 4])},
    "constant zero": {"a": ([1, 2, 3], [0, 0, 0])},
    "one x": {"a": ([2, 2, 2], [1, 2, 3])},
    "all NaN": {"a": ([1, 2], [NAN, NAN])},
    "some NaN": {"a": ([1, 2, 3, 4], [1, NAN, 2, INF])},
    "NaN in x": {"a": ([1, NAN, 3], [1, 2, 3])},
    "None": {"a": ([1, 2], [None, 2])},
    "huge": {"a": ([0, 1, 2], [1e308, -1e308, 1])},
    "tiny": {"a": ([0, 1e-300], [1e-300, 2e-300])},
    "negative": {"a": ([-5, -1], [-3, -2])},
    "nearly equal": {"a": ([0, 1], [1.0, 1.0 + 1e-15])},
    "arrays": {"a": (np.arange(5000), np.sin(np.arange(5000) / 9, dtype=np.float32))},
}


def parsed(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert "nan" not in re.sub(r'aria-label="[^"]*"', "", svg).lower().replace("nano", "")
    return root


def points_of(root: ElementTree.Element) -> np.ndarray:
    found = [path.get("d", "")[1:].split("L") for path in root.iter(f"{SVG}path")]
    return np.array([[float(value) for value in point.split()] for points in found for point in points])


# Axes


finite = st.floats(-1e12, 1e12) | st.floats(-1e-300, 1e-300) | st.floats(-1e149, 1e149)


@given(st.lists(finite, max_size=20), st.booleans())
@settings(max_examples=200, deadline=None)
def test_an_axis_holds_its_values_and_its_ticks_rise(values: list[float], log: bool) -> None:
    array = np.array(values, dtype=np.float64)
    axis = axes.axis_for(array, log=log)
    assert axis.low < axis.high
    usable = array[array > 1e-150] if log else array
    if usable.size:
        assert (
            axis.low <= usable.min() * (1 + 1e-6) if log else axis.low <= usable.min() + 1e-6 * (axis.high - axis.low)
        )
        assert axis.position(usable).min() > -1e-5
        assert axis.position(usable).max() < 1 + 1e-5
    assert all(a < b for a, b in pairwise(axis.ticks))
    assert 1 <= len(axis.ticks) <= 12
    assert len(axis.labels()) == len(axis.ticks)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
@settings(max_examples=100, deadline=None)
def test_tick_labels_differ_from_each_other(low: float, span: float) -> None:
    if span < 1e-4 * abs(low):
        return  # more digits than fit into a label
    labels = axes.axis_for(np.array([low, low + span])).labels()
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 1], ("0", "0.2", "0.4", "0.6", "0.8", "1.0")),
        ([0, 200_000], ("0", "50k", "100k", "150k", "200k")),
        ([0, 3e6], ("0", "1M", "2M", "3M")),
        ([-1, 1], ("-1.0", "-0.5", "0", "0.5", "1.0")),
        ([18.2, 24.9], ("18", "20", "22", "24", "26")),
        ([7, 7], ("6.0", "6.5", "7.0", "7.5", "8.0")),
    ],
)
def test_ticks_are_round_numbers(values: list[float], ticks: tuple[str, ...]) -> None:
    labels = axes.axis_for(np.array(values, dtype=np.float64)).labels()
    assert labels == ticks


def test_log_ticks_are_powers_of_ten_or_few_marks_between() -> None:
    assert axes.axis_for(np.array([0.001, 10.0]), log=True).labels() == ("0.001", "0.01", "0.1", "1", "10")
    assert axes.axis_for(np.array([0.15, 1.2]), log=True).labels() == ("0.1", "0.2", "0.5", "1", "2")


# Downsampling


def test_thinning_keeps_ends_and_every_extreme() -> None:
    y = np.random.default_rng(0).normal(size=100_000)
    y[31_415], y[27_182] = 50, -50
    x = np.arange(100_000.0)
    few_x, few_y = axes.thin(x, y)
    assert len(few_x) <= axes.POINTS_PER_SERIES
    assert {few_x[0], few_x[-1]} == {0, 99_999}
    assert few_y.max() == 50
    assert few_y.min() == -50
    assert (np.diff(few_x) > 0).all()
    assert all(y[int(position)] == value for position, value in zip(few_x, few_y, strict=True))


def test_thinning_keeps_gaps_and_short_series() -> None:
    y = np.ones(10_000)
    y[4000:6000] = np.nan
    few_x, few_y = axes.thin(np.arange(10_000.0), y)
    assert np.isnan(few_y[(few_x > 4100) & (few_x < 5900)]).all()
    short = np.arange(400.0)
    assert axes.thin(short, short)[0] is short


# SVG


@pytest.mark.parametrize("log_y", [False, True])
@pytest.mark.parametrize("series", ODD_SERIES.values(), ids=ODD_SERIES.keys())
def test_odd_series_make_a_chart(series: dict, log_y: bool) -> None:
    svg = charts.svg_lines("title", series, x_label="x", y_label="y", log_y=log_y)
    root = parsed(svg)
    for element in root.iter():
        for name in ("x", "y", "cx", "cy", "x1", "y1"):
            if name in element.attrib:
                assert -1 <= float(element.attrib[name]) <= charts.WIDTH
    pixels = charts.draw_lines("title", series, x_label="x", y_label="y", log_y=log_y, width=240)
    assert pixels.dtype == np.uint8
    assert pixels.shape[1:] == (240, 3)


def test_lines_go_from_corner_to_corner() -> None:
    points = points_of(parsed(charts.svg_lines("t", {"a": ([0, 10], [0, 1])}, x_label="x", y_label="y")))
    assert points.tolist() == [
        [charts.LEFT, charts.HEIGHT - charts.BOTTOM],
        [charts.WIDTH - charts.RIGHT, charts.TOP],
    ]


def test_nan_breaks_the_line_and_a_lone_point_is_a_dot() -> None:
    y = [1, 2, NAN, 3, NAN, 4, 5]
    root = parsed(charts.svg_lines("t", {"a": (range(7), y)}, x_label="x", y_label="y"))
    assert len(list(root.iter(f"{SVG}path"))) == 2
    assert len(list(root.iter(f"{SVG}circle"))) == 1


def test_no_data_is_said() -> None:
    assert "no data" in charts.svg_lines("t", {"a": ([1], [NAN])}, x_label="x", y_label="y")
    assert "no data" in charts.svg_bars("t", [], x_label="x", y_label="y")
    assert "no data" not in charts.svg_bars("t", [0.0], x_label="x", y_label="y")


def test_a_chart_tells_its_numbers_in_words() -> None:
    root = parsed(charts.svg_lines("Loss", {"train": ([1, 2, 3], [3, 1, 2])}, x_label="x", y_label="y"))
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Loss. train: 3 values from 1 to 3, last 2"


def test_svg_text_is_escaped() -> None:
    hostile = "<script>\"'&\x00"
    svg = charts.svg_bars(hostile, [1], labels=[hostile], x_label=hostile, y_label=hostile)
    svg += charts.svg_lines(hostile, {hostile: ([1], [1])}, x_label=hostile, y_label=hostile)
    assert "<script" not in svg
    parsed(f'<g xmlns="http://www.w3.org/2000/svg">{svg}</g>')


@pytest.mark.parametrize("x", [[1], [1, 2, 3]])
def test_x_and_y_of_different_length_are_refused(x: list[float]) -> None:
    with pytest.raises(DataError, match=rf"series 'a' has {len(x)} x but 2 y values"):
        charts.svg_lines("t", {"a": (x, [1, 2])}, x_label="x", y_label="y")


def test_words_are_no_numbers() -> None:
    with pytest.raises(DataError, match="must be numbers"):
        charts.svg_lines("t", {"a": ([1], ["many"])}, x_label="x", y_label="y")  # type: ignore[list-item]


# Bars


def rectangles(svg: str) -> list[tuple[float, float]]:
    """Top and height of each bar."""
    return [(float(bar.attrib["y"]), float(bar.attrib["height"])) for bar in parsed(svg).iter(f"{SVG}rect")]


def test_bars_are_as_high_as_their_values() -> None:
    bars = rectangles(charts.svg_bars("t", [1, 2, 4, 0], x_label="x", y_label="y"))
    heights = [height for _, height in bars]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.02)
    assert heights[2] == pytest.approx(4 * heights[0], abs=0.02)
    assert heights[3] == 0


def test_negative_bars_hang_from_zero_and_nan_is_left_out() -> None:
    (top_up, up), (top_down, down) = rectangles(charts.svg_bars("t", [2, NAN, -1], x_label="x", y_label="y"))
    assert top_down == pytest.approx(top_up + up, abs=0.02)
    assert down == pytest.approx(up / 2, abs=0.02)


def test_512_codes_are_512_bars_and_16384_are_averaged() -> None:
    assert len(rectangles(charts.svg_bars("t", np.arange(512.0), x_label="code", y_label="share"))) == 512
    svg = charts.svg_bars("t", np.ones(16_384), x_label="code", y_label="share")
    assert len(rectangles(svg)) == 631
    assert "share (mean of 26)" in svg
    assert len({height for _, height in rectangles(svg)}) == 1  # the last, shorter group is averaged as well


def test_bar_labels_are_printed_when_few_and_hints_always() -> None:
    svg = charts.svg_bars("t", [1, 2], labels=["cat", "a very long name of a category"], x_label="x", y_label="y")
    texts = [element.text for element in parsed(svg).iter(f"{SVG}text")]
    assert "cat" in texts
    assert "a very long nam…" in texts
    assert "<title>a very long name of a category: 2</title>" in svg
    many = charts.svg_bars("t", range(50), labels=[f"n{i}" for i in range(50)], x_label="x", y_label="y")
    assert "n7" not in [element.text for element in parsed(many).iter(f"{SVG}text")]
    assert "<title>n7: 7</title>" in many


def test_labels_must_match_the_values() -> None:
    with pytest.raises(DataError, match="2 values but 1 labels"):
        charts.svg_bars("t", [1, 2], labels=["a"], x_label="x", y_label="y")


# Pixels


def count_near(pixels: np.ndarray, colour: str) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels.astype(int) - wanted).max(axis=-1) < 12).sum())


@pytest.mark.parametrize("dark", [False, True])
def test_pixels_show_every_series_in_its_colour(dark: bool) -> None:
    x = np.arange(100)
    series = {"down": (x, 100 - x), "up": (x, x)}
    pixels = charts.draw_lines("t", series, x_label="images seen", y_label="loss", width=720, dark=dark)
    assert pixels.shape == (charts.HEIGHT + 48, 720, 3)
    colours = charts.COLOURS_ON_DARK if dark else charts.COLOURS
    assert count_near(pixels, colours[0]) > 300
    assert count_near(pixels, colours[1]) > 300
    assert count_near(pixels, colours[2]) == 0
    assert (pixels.mean() < 60) == dark


def test_pixels_are_antialiased_and_deterministic() -> None:
    series = {"a": ([0, 1], [0, 1])}
    first = charts.draw_lines("", series, x_label="", y_label="", width=400)
    assert np.array_equal(first, charts.draw_lines("", series, x_label="", y_label="", width=400))
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 20


def test_many_series_with_long_names_stay_in_the_picture() -> None:
    series = {f"a rather long name of series {i}\n": ([0, 1], [i, i + 1]) for i in range(12)}
    pixels = charts.draw_lines("żółw 🐢\n", series, x_label="x", y_label="y", width=400)
    assert (pixels[:, -4:] == 255).all()


def test_a_picture_too_small_is_refused() -> None:
    with pytest.raises(DataError, match="at least 200 pixels"):
        charts.draw_lines("t", {}, x_label="x", y_label="y", width=100)
