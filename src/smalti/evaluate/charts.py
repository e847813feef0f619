"""Charts without a plotting library: SVG for pages, pixels for PNG files.

Both kinds share the axes, the ticks and the thinning, so a curve looks the same on a page and in a README:

    linear axis   steps of 1, 2 or 5 times a power of ten, about five of them
    log axis      powers of ten, with 2 and 5 between them when there are few
    thinning      the lowest and highest point of each bucket stay, so that no spike is lost

NaN, infinite and (on a log axis) non-positive values leave a gap in the line. Pixels are (H, W, 3) uint8.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smalti.errors import DataError

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]

POINTS_PER_SERIES = 400
BARS_AT_MOST = 640  # about one bar a pixel; above it, each bar is the mean of several values
COLOURS = ("#2563eb", "#d9480f", "#0d8a5f", "#9333ea", "#c2255c", "#0c8599", "#946200", "#5c6770")
COLOURS_ON_DARK = ("#74a9ff", "#ff9a5c", "#4fd1a5", "#c99bff", "#ff8fb8", "#5fd3e6", "#e0b64a", "#aab4be")

# One layout for both renderers, in CSS pixels.
WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 14, 46
_OVERFLOW = 1e150  # beyond it differences and squares overflow; nothing we measure is there


@dataclass(frozen=True)
class Axis:
    """One axis: its ends in data units, its ticks, and whether it is logarithmic."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """Data units to 0 (low end) .. 1 (high end)."""
        if self.log:
            return (np.log10(values) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return (np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low)

    def labels(self) -> tuple[str, ...]:
        """One text a tick."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 and not self.log else None
        return tuple(tick_label(tick, step) for tick in self.ticks)


def tick_label(value: float, step: float | None = None) -> str:
    """A short text for a tick: 0.25, 1500, 20k, 3M, 1e-05.

    Args:
        value: the tick.
        step: distance to the next tick, which decides the decimals; None: two significant digits.
    """
    if value == 0 or (step is not None and abs(value) < step * 1e-9):
        return "0"
    size = abs(value)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= 10 * 1e3 and unit <= size < unit * 1e3:
            digits = 0 if step is None else max(0, -math.floor(math.log10(step / unit) + 1e-9))
            return f"{value / unit:.{digits}f}{letter}"
    if size < 1e-4 or size >= 1e12 or (step is not None and step < 1e-6):
        return f"{value:.3g}"
    if step is None:
        return f"{value:g}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def axis_for(values: np.ndarray, *, log: bool = False, around: float | None = None) -> Axis:
    """An axis that holds all finite values.

    Args:
        values: any shape; NaN and infinite values are passed over, on a log axis also those up to 0.
        log: logarithmic.
        around: a value the axis must show as well, e.g. 0 for bars.

    Returns:
        An axis whose ends differ, also when there is one value or none.
    """
    usable = values[np.isfinite(values) & (values > 0 if log else True)]
    if around is not None:
        usable = np.append(usable, around)
    if usable.size == 0:
        return Axis(1, 10, (1, 10), log=True) if log else Axis(0, 1, (0, 0.5, 1))
    low, high = float(usable.min()), float(usable.max())
    if log:
        return _log_axis(low, high)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = abs(low) * 0.1 or 1.0  # a constant runs through the middle
        low, high = low - room, high + room
    step = _nice_step((high - low) / 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, tuple(k * step for k in range(first, last + 1)))


def _nice_step(rough: float) -> float:
    """The smallest of 1, 2, 5, 10 times a power of ten that is at least `rough`, almost."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _log_axis(low: float, high: float) -> Axis:
    """Ends on 1, 2 or 5 times a power of ten; at most about eight ticks."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    marks = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    bottom = max((mark for mark in marks if mark <= low * 1.0000001), default=low)
    top = min((mark for mark in marks if mark >= high * 0.9999999), default=high)
    if bottom >= top:
        bottom, top = bottom / 2, top * 2
    ticks = [mark for mark in marks if bottom * 0.999 <= mark <= top * 1.001]
    if len(ticks) > 8:
        every = -(-round(math.log10(top / bottom)) // 7) or 1
        ticks = [10.0**power for power in range(first, last + 1) if power % every == 0]
        ticks = [mark for mark in ticks if bottom * 0.999 <= mark <= top * 1.001]
    return Axis(bottom, top, tuple(ticks), log=True)


def thin(x: np.ndarray, y: np.ndarray, *, limit: int = POINTS_PER_SERIES) -> tuple[np.ndarray, np.ndarray]:
    """Fewer points with the same outline.

    Args:
        x: (N,), in the order drawn.
        y: (N,), NaN where there is a gap.
        limit: most points to keep, at least 4.

    Returns:
        x and y of at most `limit` points: the ends, and the lowest and highest of each of (limit - 2) / 2 buckets.
    """
    if len(x) <= limit:
        return x, y
    edges = np.linspace(0, len(x), (limit - 2) // 2 + 1).astype(int)
    kept = {0, len(x) - 1}
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        bucket = y[start:stop]
        if np.isnan(bucket).all():
            kept.add(int(start))  # a gap stays a gap
        else:
            kept |= {int(start + np.nanargmin(bucket)), int(start + np.nanargmax(bucket))}
    chosen = np.array(sorted(kept))
    return x[chosen], y[chosen]


def svg_lines(title: str, series: Series, *, x_label: str, y_label: str, log_y: bool = False) -> str:
    """A line chart as one `<svg>` element, coloured by the page's classes c0..c7 and `--` variables.

    Args:
        title: for screen readers; the page prints its own.
        series: name to (x, y), equally long; y may hold NaN.
        x_label: with the unit, e.g. "images seen".
        y_label: with the unit, e.g. "PSNR (dB)".
        log_y: logarithmic y axis.

    Raises:
        DataError: x and y of a series differ in length, or hold no numbers.
    """
    cleaned = _clean(series, log_y=log_y)
    x_axis, y_axis = _axes(cleaned, log_y=log_y)
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
    """A bar chart as one `<svg>` element; more than 640 bars are averaged in equal groups.

    Args:
        title: for screen readers; the page prints its own.
        values: (N,) in the order shown; NaN leaves a place empty.
        labels: N names, printed under the bars when there are at most 40, else shown by the pointer only.
        x_label: what a bar is.
        y_label: what its height is, with the unit.

    Raises:
        DataError: not one label a value, or values that are no numbers.
    """
    heights = _numbers(values, "values")
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
    width = max(slot - min(0.2 * slot, 4), 0.6)
    zero = _down(y_axis.place(0.0))
    for i, height in enumerate(heights):
        left = LEFT + i * slot + (slot - width) / 2
        if named and labels is not None:
            parts.append(_svg_bar_label(labels[i], left + width / 2, turned=tall > 0))
        if not math.isfinite(height):
            continue
        end = _down(y_axis.place(height))
        hint = _safe(f"{labels[i] if labels is not None else i * each}: {height:.6g}")
        parts.append(
            f'<rect class="bar c0" x="{left:.2f}" y="{min(zero, end):.2f}" width="{width:.2f}" '
            f'height="{abs(zero - end):.2f}"><title>{hint}</title></rect>'
        )
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
    """A line chart as pixels, for PNG files in a README: the layout of `svg_lines` with title and legend.

    Args:
        title: printed above the chart; may be empty.
        series: name to (x, y), equally long; y may hold NaN.
        x_label: with the unit.
        y_label: with the unit.
        log_y: logarithmic y axis.
        width: of the picture in pixels, at least 200; the height follows.
        dark: light lines on a dark ground.

    Returns:
        (H, width, 3) uint8, drawn three times as large and averaged.

    Raises:
        DataError: as `svg_lines`, or a picture too small to draw in.
    """
    if width < 200:
        raise DataError(f"a chart needs at least 200 pixels of width, not {width}")
    cleaned = _clean(series, log_y=log_y)
    x_axis, y_axis = _axes(cleaned, log_y=log_y)
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
        pen.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT / 2 - 16, "no data", ink, 14, "mm")
    pen.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x_label, ink, 12, "ms")
    if title:
        pen.text(LEFT, 20 - head, title, ink, 15, "ls")
    if len(cleaned) > 1:
        _draw_legend(pen, list(cleaned), colours, ink)
    _draw_turned(canvas, y_label, zoom, head, ink)
    return np.asarray(canvas.reduce(3))


# Shared by both renderers


def _numbers(values: Sequence[float] | np.ndarray, what: str) -> np.ndarray:
    """A fresh float64 vector, NaN for what cannot be drawn."""
    try:
        numbers = np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} of a chart must be numbers: {error}") from error
    numbers[~(np.abs(numbers) < _OVERFLOW)] = np.nan
    return numbers


def _clean(series: Series, *, log_y: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every series as float64 vectors, thinned, NaN where there is nothing to draw."""
    cleaned = {}
    for name, (x_values, y_values) in series.items():
        x, y = _numbers(x_values, f"x of {name!r}"), _numbers(y_values, f"y of {name!r}")
        if len(x) != len(y):
            raise DataError(f"series {name!r} has {len(x)} x but {len(y)} y values")
        if log_y:
            y[~(y > 1e-150)] = np.nan
        x, y = x[np.isfinite(x)], y[np.isfinite(x)]
        cleaned[name] = thin(x, y)
    return cleaned


def _axes(cleaned: dict[str, tuple[np.ndarray, np.ndarray]], *, log_y: bool) -> tuple[Axis, Axis]:
    x_all = np.concatenate([np.empty(0), *(x for x, _ in cleaned.values())])
    y_all = np.concatenate([np.empty(0), *(y for _, y in cleaned.values())])
    x_axis = axis_for(x_all)
    if x_all.size and x_all.min() < x_all.max():
        # Time runs to the edge of the chart; only y gets room up to the next tick.
        low, high = float(x_all.min()), float(x_all.max())
        room = 1e-9 * (high - low)
        x_axis = Axis(low, high, tuple(tick for tick in x_axis.ticks if low - room <= tick <= high + room))
    return x_axis, axis_for(y_all, log=log_y)


def _down(fraction: np.ndarray | float) -> float:
    """0..1 on the y axis to a coordinate, which grows downwards."""
    return HEIGHT - BOTTOM - float(fraction) * (HEIGHT - TOP - BOTTOM)


def _across(fraction: np.ndarray | float) -> float:
    return LEFT + float(fraction) * (WIDTH - LEFT - RIGHT)


def _runs(x: np.ndarray, y: np.ndarray, x_axis: Axis, y_axis: Axis) -> Iterator[list[tuple[float, float]]]:
    """The unbroken pieces of a line, as coordinates."""
    run: list[tuple[float, float]] = []
    for px, py in zip(x, y, strict=True):
        if math.isnan(py):
            if run:
                yield run
            run = []
        else:
            run.append((_across(x_axis.place(px)), _down(y_axis.place(py))))
    if run:
        yield run


def _index_ticks(count: int) -> tuple[float, ...]:
    axis = axis_for(np.array([0.0, max(count, 1)]))
    return tuple(tick for tick in axis.ticks if tick <= count and tick == int(tick))


def _describe(series: Series) -> str:
    """What a chart shows, in words, for those who cannot see it."""
    told = []
    for name, (_, y_values) in series.items():
        y = _numbers(y_values, "values")
        y = y[np.isfinite(y)]
        if y.size == 0:
            told.append(f"{name}: no values")
        else:
            told.append(f"{name}: {y.size} values from {y.min():.4g} to {y.max():.4g}, last {y[-1]:.4g}")
    return "; ".join(told) or "no series"


# SVG


def _safe(text: object) -> str:
    """Text for HTML and XML alike: escaped, and without the control characters and surrogates XML forbids."""
    return html.escape(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(text)))


def _svg(title: str, description: str, parts: list[str], *, tall: int = 0) -> str:
    body = "\n".join(parts)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT + tall}" role="img" xmlns="http://www.w3.org/2000/svg" '
        f'aria-label="{_safe(title)}. {_safe(description)}">\n{body}\n</svg>'
    )


def _svg_nothing() -> str:
    return f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT / 2 - 16}" text-anchor="middle">no data</text>'


def _svg_bar_label(label: str, x: float, *, turned: bool) -> str:
    short = label if len(label) <= 16 else label[:15] + "…"
    y = HEIGHT - BOTTOM + 16
    place = f'text-anchor="end" transform="rotate(-35 {x:.1f} {y})"' if turned else 'text-anchor="middle"'
    return f'<text class="tick" x="{x:.1f}" y="{y}" {place}>{_safe(short)}</text>'


def _svg_frame(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str, *, tall: int = 0) -> str:
    """Grid lines, ticks and the two labels."""
    parts = []
    floor = HEIGHT - BOTTOM
    for tick, label in zip(y_axis.ticks, y_axis.labels(), strict=True):
        y = _down(y_axis.place(tick))
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for tick, label in zip(x_axis.ticks, x_axis.labels(), strict=True):
        x = _across(x_axis.place(tick))
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{floor}" x2="{x:.1f}" y2="{floor + 4}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{label}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{WIDTH - RIGHT}" y2="{floor}"/>')
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + floor) / 2
    parts.append(
        f'<text class="label" x="{middle_x}" y="{HEIGHT + tall - 8}" text-anchor="middle">{_safe(x_label)}</text>'
    )
    parts.append(
        f'<text class="label" x="14" y="{middle_y}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle_y})">{_safe(y_label)}</text>'
    )
    return "\n".join(parts)


# Pixels


@dataclass(frozen=True)
class _Pen:
    """Draws in CSS pixels on a canvas that is `zoom` times larger, `head` pixels below its top."""

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
        place = (x * self.zoom, (y + self.head) * self.zoom)
        self.draw.text(place, _one_line(text), fill=colour, font=_font(size * self.zoom), anchor=anchor)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_frame(pen: _Pen, x_axis: Axis, y_axis: Axis, ink: str, faint: str) -> None:
    floor = HEIGHT - BOTTOM
    for tick, label in zip(y_axis.ticks, y_axis.labels(), strict=True):
        y = _down(y_axis.place(tick))
        pen.line([(LEFT, y), (WIDTH - RIGHT, y)], faint, 1)
        pen.text(LEFT - 8, y, label, ink, 11, "rm")
    for tick, label in zip(x_axis.ticks, x_axis.labels(), strict=True):
        x = _across(x_axis.place(tick))
        pen.line([(x, floor), (x, floor + 4)], ink, 1)
        pen.text(x, floor + 18, label, ink, 11, "ms")
    pen.line([(LEFT, floor), (WIDTH - RIGHT, floor)], ink, 1)


def _draw_legend(pen: _Pen, names: list[str], colours: Sequence[str], ink: str) -> None:
    """Colour and name of each series in one row; what does not fit is counted."""
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
    """The y label, from bottom to top."""
    text = _one_line(text)
    if not text:
        return
    font = _font(12 * zoom)
    left, top, right, bottom = (math.ceil(edge) for edge in font.getbbox(text))
    strip = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(strip).text((1 - left, 1 - top), text, fill=255, font=font)
    strip = strip.rotate(90, expand=True)
    middle = (head + (TOP + HEIGHT - BOTTOM) / 2) * zoom
    canvas.paste(ink, (round(4 * zoom), round(middle - strip.height / 2)), strip)
