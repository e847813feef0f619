"""Charts without a plotting library: SVG for HTML reports, pixels for PNG files.

Both renderers share the layout, and the axes and downsampling of `axes.py`, so a curve looks the same in a report and
in a README. Pixels are (H, W, 3) uint8.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smalti.errors import DataError
from smalti.report.axes import Axis, Series, axes_for_series, axis_for, clean, numbers

BARS_AT_MOST = 640  # about one bar per pixel; with more values, each bar is the mean of several
COLOURS = ("#2563eb", "#d9480f", "#0d8a5f", "#9333ea", "#c2255c", "#0c8599", "#946200", "#5c6770")
COLOURS_ON_DARK = ("#74a9ff", "#ff9a5c", "#4fd1a5", "#c99bff", "#ff8fb8", "#5fd3e6", "#e0b64a", "#aab4be")

# One layout for both renderers, in CSS pixels.
WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 14, 46


def svg_lines(title: str, series: Series, *, x_label: str, y_label: str, log_y: bool = False) -> str:
    """A line chart as one `<svg>` element, coloured by the CSS classes c0..c7 and variables of the page.

    Args:
        title: for screen readers; the page prints its own.
        series: name to (x, y) of equal length; y may contain NaN.
        x_label: with the unit, e.g. "images seen".
        y_label: with the unit, e.g. "PSNR (dB)".
        log_y: logarithmic y axis.

    Raises:
        DataError: x and y of a series differ in length, or are not numbers.
    """
    cleaned = clean(series, log_y=log_y)
    x_axis, y_axis = axes_for_series(cleaned, log_y=log_y)
    parts = [_svg_frame(x_axis, y_axis, x_label, y_label)]
    for index, (x, y) in enumerate(cleaned.values()):
        colour = f"c{index % len(COLOURS)}"
        for points in _runs(x, y, x_axis, y_axis):
            if len(points) == 1:
                parts.append(f'<circle class="dot {colour}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>')
            else:
                path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
                parts.append(f'<path class="line {colour}" d="M{path}"/>')
    if not any(np.isfinite(y).any() for _, y in cleaned.values()):
        parts.append(_svg_nothing())
    return _svg(title, _describe(series), parts)


def svg_bars(
    title: str, values: Sequence[float], *, labels: Sequence[str] | None = None, x_label: str, y_label: str
) -> str:
    """A bar chart as one `<svg>` element; more than 640 values are averaged in groups of equal size.

    Args:
        title: for screen readers; the page prints its own.
        values: (N,) in the order shown; NaN leaves a gap.
        labels: N names, printed below the bars if there are at most 40, otherwise shown as tooltips only.
        x_label: what the bars stand for.
        y_label: what their height stands for, with the unit.

    Raises:
        DataError: the number of labels differs from that of the values, or values are not numbers.
    """
    heights = numbers(values, "values")
    if labels is not None and len(labels) != len(heights):
        raise DataError(f"a bar chart has {len(heights)} values but {len(labels)} labels")
    each = -(-len(heights) // BARS_AT_MOST) or 1
    if each > 1:
        filled = np.append(heights, np.full(-len(heights) % each, np.nan)).reshape(-1, each)
        counted = np.isfinite(filled).sum(axis=1)
        heights = np.where(counted > 0, np.nansum(filled, axis=1) / np.maximum(counted, 1), np.nan)
        y_label = f"{y_label} (mean of {each})"
        labels = None
    count = len(heights)
    named = labels is not None and count <= 40
    y_axis = axis_for(heights, around=0.0)
    x_axis = Axis(0, max(count, 1) * each, () if named else _index_ticks(count * each))
    tall = 46 if named and max(map(len, labels or ()), default=0) * 6.5 > (WIDTH - LEFT - RIGHT) / max(count, 1) else 0
    parts = [_svg_frame(x_axis, y_axis, x_label, y_label, tall=tall)]
    slot = (WIDTH - LEFT - RIGHT) / max(count, 1)
    # Many bars overlap slightly, because thin gaps would flicker; few bars have a maximum width.
    width = slot + 0.3 if slot < 5 else min(0.8 * slot, 64)
    zero = _to_y(y_axis.position(0.0))
    for i, height in enumerate(heights):
        left = LEFT + i * slot + (slot - width) / 2
        if named and labels is not None:
            parts.append(_svg_bar_label(labels[i], left + width / 2, turned=tall > 0))
        if not math.isfinite(height):
            continue
        end = _to_y(y_axis.position(height))
        hint = safe_text(f"{labels[i] if labels is not None else i * each}: {height:.6g}")
        parts.append(
            f'<rect class="bar c0" x="{left:.2f}" y="{min(zero, end):.2f}" width="{width:.2f}" '
            f'height="{abs(zero - end):.2f}"><title>{hint}</title></rect>'
        )
    if y_axis.low < 0:
        parts.append(f'<line class="axis" x1="{LEFT}" y1="{zero:.1f}" x2="{WIDTH - RIGHT}" y2="{zero:.1f}"/>')
    if not np.isfinite(heights).any():
        parts.append(_svg_nothing())
    return _svg(title, _describe({y_label: (list(range(count)), list(heights))}), parts, tall=tall)


def draw_lines(
    title: str,
    series: Series,
    *,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    width: int = 2 * WIDTH,
    dark: bool = False,
) -> np.ndarray:
    """A line chart as pixels, for PNG files: the layout of `svg_lines`, with title and legend.

    Args:
        title: printed above the chart; may be empty.
        series: name to (x, y) of equal length; y may contain NaN.
        x_label: with the unit.
        y_label: with the unit.
        log_y: logarithmic y axis.
        width: width of the picture in pixels, at least 200, which also determines the height.
        dark: light lines on a dark background.

    Returns:
        (H, width, 3) uint8, rendered at three times the size and averaged.

    Raises:
        DataError: as `svg_lines`, or the width is below 200.
    """
    if width < 200:
        raise DataError(f"a chart needs at least 200 pixels of width, not {width}")
    cleaned = clean(series, log_y=log_y)
    x_axis, y_axis = axes_for_series(cleaned, log_y=log_y)
    zoom = 3 * width / WIDTH
    head = (26 if title else 0) + (22 if len(cleaned) > 1 else 0)
    ground, ink, faint, colours = (
        ("#14171c", "#dfe3e8", "#353b45", COLOURS_ON_DARK) if dark else ("#ffffff", "#30363d", "#dde1e6", COLOURS)
    )
    size = (3 * width, round((HEIGHT + head) * zoom / 3) * 3)
    canvas = Image.new("RGB", size, ground)
    pen = _Pen(ImageDraw.Draw(canvas), zoom, head)
    _draw_frame(pen, x_axis, y_axis, ink, faint)
    for index, (x, y) in enumerate(cleaned.values()):
        colour = colours[index % len(colours)]
        for points in _runs(x, y, x_axis, y_axis):
            pen.line(points, colour, 1.8)
    if not any(np.isfinite(y).any() for _, y in cleaned.values()):
        pen.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT / 2 - 44, "no data", ink, 14, "mm")
    pen.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x_label, ink, 12, "ms")
    if title:
        pen.text(LEFT, 20 - head, title, ink, 15, "ls")
    if len(cleaned) > 1:
        _draw_legend(pen, list(cleaned), colours, ink)
    _draw_turned(canvas, y_label, zoom, head, ink)
    return np.asarray(canvas.reduce(3))


# Coordinates and text, for both renderers


def _to_y(fraction: np.ndarray | float) -> float:
    """0..1 on the y axis -> coordinate, which grows downwards."""
    return HEIGHT - BOTTOM - float(fraction) * (HEIGHT - TOP - BOTTOM)


def _to_x(fraction: np.ndarray | float) -> float:
    """0..1 on the x axis -> coordinate."""
    return LEFT + float(fraction) * (WIDTH - LEFT - RIGHT)


def _runs(x: np.ndarray, y: np.ndarray, x_axis: Axis, y_axis: Axis) -> Iterator[list[tuple[float, float]]]:
    """The segments of a line between gaps, as coordinates."""
    run: list[tuple[float, float]] = []
    for px, py in zip(x, y, strict=True):
        if math.isnan(py):
            if run:
                yield run
            run = []
        else:
            run.append((_to_x(x_axis.position(px)), _to_y(y_axis.position(py))))
    if run:
        yield run


def _index_ticks(count: int) -> tuple[float, ...]:
    axis = axis_for(np.array([0.0, max(count, 1)]))
    return tuple(tick for tick in axis.ticks if tick <= count and tick == int(tick))


def _describe(series: Series) -> str:
    """Description of a chart in words, for screen readers."""
    parts = []
    for name, (_, y_values) in series.items():
        y = numbers(y_values, "values")
        y = y[np.isfinite(y)]
        if y.size == 0:
            parts.append(f"{name}: no values")
        else:
            parts.append(f"{name}: {y.size} values from {y.min():.4g} to {y.max():.4g}, last {y[-1]:.4g}")
    return "; ".join(parts) or "no series"


# SVG


def safe_text(text: object) -> str:
    """Text escaped for HTML and XML, with characters that XML forbids replaced."""
    return html.escape(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(text)))


def _svg(title: str, description: str, parts: list[str], *, tall: int = 0) -> str:
    body = "\n".join(parts)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT + tall}" role="img" xmlns="http://www.w3.org/2000/svg" '
        f'aria-label="{safe_text(title)}. {safe_text(description)}">\n{body}\n</svg>'
    )


def _svg_nothing() -> str:
    return (
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT / 2 - 44}" text-anchor="middle">no data</text>'
    )


def _svg_bar_label(label: str, x: float, *, turned: bool) -> str:
    short = label if len(label) <= 16 else label[:15] + "…"
    y = HEIGHT - BOTTOM + 16
    place = f'text-anchor="end" transform="rotate(-35 {x:.1f} {y})"' if turned else 'text-anchor="middle"'
    return f'<text class="tick" x="{x:.1f}" y="{y}" {place}>{safe_text(short)}</text>'


def _svg_frame(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str, *, tall: int = 0) -> str:
    """Grid lines, ticks and axis labels."""
    parts = []
    floor = HEIGHT - BOTTOM
    for tick, label in zip(y_axis.ticks, y_axis.labels(), strict=True):
        y = _to_y(y_axis.position(tick))
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for tick, label in zip(x_axis.ticks, x_axis.labels(), strict=True):
        x = _to_x(x_axis.position(tick))
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{floor}" x2="{x:.1f}" y2="{floor + 4}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{label}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{WIDTH - RIGHT}" y2="{floor}"/>')
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + floor) / 2
    parts.append(
        f'<text class="label" x="{middle_x}" y="{HEIGHT + tall - 8}" text-anchor="middle">{safe_text(x_label)}</text>'
    )
    parts.append(
        f'<text class="label" x="14" y="{middle_y}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle_y})">{safe_text(y_label)}</text>'
    )
    return "\n".join(parts)


# Pixels


@dataclass(frozen=True)
class _Pen:
    """Draws in CSS pixels on a canvas scaled by `zoom`, offset by `head` pixels from the top."""

    draw: ImageDraw.ImageDraw
    zoom: float
    head: float

    def line(self, points: list[tuple[float, float]], colour: str, thickness: float) -> None:
        scaled = [(x * self.zoom, (y + self.head) * self.zoom) for x, y in points]
        radius = thickness * self.zoom / 2
        if len(scaled) > 1:
            self.draw.line(scaled, fill=colour, width=max(round(2 * radius), 1), joint="curve")
        else:
            radius *= 2
        for x, y in (scaled[0], scaled[-1]):
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def text(self, x: float, y: float, text: str, colour: str, size: float, anchor: str) -> None:
        position = (x * self.zoom, (y + self.head) * self.zoom)
        self.draw.text(position, _one_line(text), fill=colour, font=_font(size * self.zoom), anchor=anchor)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_frame(pen: _Pen, x_axis: Axis, y_axis: Axis, ink: str, faint: str) -> None:
    floor = HEIGHT - BOTTOM
    for tick, label in zip(y_axis.ticks, y_axis.labels(), strict=True):
        y = _to_y(y_axis.position(tick))
        pen.line([(LEFT, y), (WIDTH - RIGHT, y)], faint, 1)
        pen.text(LEFT - 8, y, label, ink, 11, "rm")
    for tick, label in zip(x_axis.ticks, x_axis.labels(), strict=True):
        x = _to_x(x_axis.position(tick))
        pen.line([(x, floor), (x, floor + 4)], ink, 1)
        pen.text(x, floor + 18, label, ink, 11, "ms")
    pen.line([(LEFT, floor), (WIDTH - RIGHT, floor)], ink, 1)


def _draw_legend(pen: _Pen, names: list[str], colours: Sequence[str], ink: str) -> None:
    """Colour and name of each series in one row; series that do not fit are counted, as in "+ 3"."""
    x, y = float(LEFT), -8.0
    for index, name in enumerate(names):
        short = _one_line(name if len(name) <= 32 else name[:31] + "…")
        advance = 34 + _font(12 * pen.zoom).getlength(short) / pen.zoom
        if x + advance > WIDTH - RIGHT - 40 and index:
            pen.text(x, y, f"+ {len(names) - index}", ink, 12, "ls")
            return
        pen.line([(x, y - 4), (x + 16, y - 4)], colours[index % len(colours)], 2.4)
        pen.text(x + 22, y, short, ink, 12, "ls")
        x += advance + 8


def _draw_turned(canvas: Image.Image, text: str, zoom: float, head: float, ink: str) -> None:
    """The y label, rotated to read upwards."""
    text = _one_line(text)
    if not text:
        return
    font = _font(12 * zoom)
    left, top, right, bottom = (math.ceil(edge) for edge in font.getbbox(text))
    strip = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(strip).text((1 - left, 1 - top), text, fill=255, font=font)
    strip = strip.rotate(90, expand=True)
    middle = (head + (TOP + HEIGHT - BOTTOM) / 2) * zoom
    canvas.paste(ink, (round(8 * zoom), round(middle - strip.height / 2)), strip)
