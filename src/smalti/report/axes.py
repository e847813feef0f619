"""Axes and ticks of charts, and the cleaning and downsampling of their series.

    linear axis    about five ticks, at steps of 1, 2 or 5 times a power of ten
    log axis       ticks at powers of ten, and at 2 and 5 times a power of ten if there are few
    downsampling   keeps the minimum and maximum of each bucket, so that no spike is lost

NaN, infinite and (on a log axis) non-positive values become NaN, which leaves a gap in the line.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smalti.errors import DataError

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Name to (x, y), two equally long sequences of numbers."""

POINTS_PER_SERIES = 400
# Beyond these, differences and quotients of doubles overflow or underflow; no metric reaches them.
_OVERFLOW, _UNDERFLOW = 1e150, 1e-150


@dataclass(frozen=True)
class Axis:
    """One axis: its ends and ticks in data units, and whether it is logarithmic."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def position(self, values: np.ndarray | float) -> np.ndarray:
        """Data units -> 0 (low end) .. 1 (high end)."""
        position: np.ndarray
        if self.log:
            position = (np.log10(values) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        else:
            position = (np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low)
        return position

    def labels(self) -> tuple[str, ...]:
        """One label per tick."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 and not self.log else None
        return tuple(tick_label(tick, step) for tick in self.ticks)


def tick_label(value: float, step: float | None = None) -> str:
    """Short label of a tick: 0.25, 1500, 20k, 3M, 1e-05.

    Args:
        value: position of the tick.
        step: distance to the next tick, which determines the decimal places; None: a plain short number.
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
    """An axis that covers all finite values.

    Args:
        values: any shape; NaN and infinite values are ignored, on a log axis also non-positive ones.
        log: logarithmic.
        around: a value that the axis must include, such as 0 for bars.

    Returns:
        An axis whose ends differ, even for a single value or none.
    """
    usable = values[np.isfinite(values) & (values > _UNDERFLOW if log else True)]
    if around is not None:
        usable = np.append(usable, around)
    if usable.size == 0:
        return Axis(1, 10, (1, 10), log=True) if log else Axis(0, 1, (0, 0.5, 1))
    low, high = float(usable.min()), float(usable.max())
    if log:
        return _log_axis(low, high)
    size = max(abs(low), abs(high))
    if high - low <= max(1e-12 * size, _UNDERFLOW):
        room = 0.1 * size if size > _UNDERFLOW else 1.0  # a constant line runs through the middle
        low, high = low - room, high + room
    step = _nice_step((high - low) / 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, tuple(k * step for k in range(first, last + 1)))


def _nice_step(rough: float) -> float:
    """The smallest of 1, 2, 5, 10 times a power of ten that is at least `rough`, to within 0.1 %."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _log_axis(low: float, high: float) -> Axis:
    """A log axis that ends at 1, 2 or 5 times a power of ten, with at most about eight ticks."""
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
    """Downsample a series and keep its outline.

    Args:
        x: (N,), in drawing order.
        y: (N,), with NaN for gaps.
        limit: maximum number of points, at least 4.

    Returns:
        x and y of at most `limit` points: the two ends, and the minimum and maximum of each of (limit - 2) / 2 buckets.
    """
    if len(x) <= limit:
        return x, y
    edges = np.linspace(0, len(x), (limit - 2) // 2 + 1).astype(int)
    kept = {0, len(x) - 1}
    for start, stop in itertools.pairwise(edges):
        bucket = y[start:stop]
        if np.isnan(bucket).all():
            kept.add(int(start))  # preserves the gap
        else:
            kept |= {int(start + np.nanargmin(bucket)), int(start + np.nanargmax(bucket))}
    chosen = np.array(sorted(kept))
    return x[chosen], y[chosen]


def clean(series: Series, *, log_y: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All series as downsampled float64 vectors, with NaN for gaps.

    Args:
        series: name to (x, y); points without a finite x are dropped.
        log_y: whether non-positive y become NaN as well.

    Raises:
        DataError: x and y of a series differ in length, or are not numbers.
    """
    cleaned = {}
    for name, (x_values, y_values) in series.items():
        x, y = numbers(x_values, f"x of {name!r}"), numbers(y_values, f"y of {name!r}")
        if len(x) != len(y):
            raise DataError(f"series {name!r} has {len(x)} x but {len(y)} y values")
        if log_y:
            y[~(y > _UNDERFLOW)] = np.nan
        x, y = x[np.isfinite(x)], y[np.isfinite(x)]
        cleaned[name] = thin(x, y)
    return cleaned


def axes_for_series(cleaned: dict[str, tuple[np.ndarray, np.ndarray]], *, log_y: bool) -> tuple[Axis, Axis]:
    """The x and y axes for the series returned by `clean`."""
    x_all = np.concatenate([np.empty(0), *(x for x, _ in cleaned.values())])
    y_all = np.concatenate([np.empty(0), *(y for _, y in cleaned.values())])
    x_axis = axis_for(x_all)
    if x_all.size and x_all.min() < x_all.max():
        # The x axis ends at the data; only the y axis extends to the next tick.
        low, high = float(x_all.min()), float(x_all.max())
        room = 1e-9 * (high - low)
        x_axis = Axis(low, high, tuple(tick for tick in x_axis.ticks if low - room <= tick <= high + room))
    return x_axis, axis_for(y_all, log=log_y)


def numbers(values: Sequence[float] | np.ndarray, what: str) -> np.ndarray:
    """A new float64 vector with NaN for None and for values that cannot be drawn.

    Args:
        values: (N,).
        what: name of the values in error messages.

    Raises:
        DataError: a value is not a number.
    """
    try:
        result = np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} of a chart must be numbers: {error}") from error
    result[~(np.abs(result) < _OVERFLOW)] = np.nan
    return result
