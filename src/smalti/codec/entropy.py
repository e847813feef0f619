"""Distributions of integers for entropy coding, and the interface of the coders in rans.py and range_coder.py.

Only integers decide, so every machine decodes the same: a symbol s of a row has the frequency f_s >= 1 out of
M = 2^16, the cumulative frequency c_s = f_0 + ... + f_(s-1), and costs log2(M / f_s) bits (Shannon 1948).

Each row covers a range of values lo..hi. The last symbol, the escape, stands for all others: a value v outside is coded
as the escape and then as the number

    e = 2 * (v - hi - 1) above, 2 * (lo - 1 - v) + 1 below

in nibbles of probability 1/16: 3 bits of e each, the lowest first, and a fourth bit that says whether another follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from smalti.errors import CodecError

__all__ = [
    "PRECISION",
    "TOTAL",
    "EntropyDecoder",
    "EntropyEncoder",
    "FrequencyTables",
    "frequencies_from",
    "information_content",
]

PRECISION = 16
TOTAL = 1 << PRECISION  # of the frequencies of one row

GROUP_BITS = 3
CONTINUES = 1 << GROUP_BITS  # the fourth bit
NIBBLES = 11  # 33 bits: enough for the distance of any two int32
NIBBLE_BITS = 4
NIBBLE_FREQUENCY = TOTAL >> NIBBLE_BITS

_INT32 = np.iinfo(np.int32)
_DAMAGED_MODEL = "the model is damaged, get it again"


class EntropyEncoder(Protocol):
    """An encoder: put all values in the order in which they are to be taken, then finish.

    Attributes:
        lanes: number L of independent streams.
    """

    lanes: int

    def put(self, tables: FrequencyTables, rows: np.ndarray, values: np.ndarray) -> None:
        """Code values.

        Args:
            tables: the distributions.
            rows: (L, n) integers, the row of `tables` for each value; -1 where nothing is coded.
            values: (L, n) integers within int32; those outside of their row are escaped.
        """

    def put_dynamic(self, cumulative: np.ndarray, symbols: np.ndarray) -> None:
        """Code symbols by frequencies of their own. One call for all columns makes the streams of one for each column.

        Args:
            cumulative: (L, n, K + 1) integers, each symbol's cumulative frequencies from 0 to 65536; they may repeat. A
                lane that has nothing to code has a symbol of frequency 65536, which costs nothing.
            symbols: (L, n) integers in 0..K-1 of positive frequency.
        """

    def finish(self, checksums: np.ndarray) -> list[bytes]:
        """The L streams.

        Args:
            checksums: (L,) integers in 0..2^32-1, of what was coded; a coder with small streams stores fewer bits.
        """


class EntropyDecoder(Protocol):
    """A decoder: the calls of the encoder again, in the same order and of the same shapes.

    Attributes:
        lanes: number L of independent streams.
    """

    lanes: int

    def take(self, tables: FrequencyTables, rows: np.ndarray) -> np.ndarray:
        """Decode values.

        Args:
            tables: the distributions.
            rows: (L, n) integers, as in `put`.

        Returns:
            (L, n) int32; 0 where the row is -1. They are meaningless if the stream is damaged, which `finish` reports.

        Raises:
            CodecError: an escaped value is outside of int32.
        """

    def take_dynamic(self, cumulative: np.ndarray) -> np.ndarray:
        """Decode (L, n) int32 symbols.

        Args:
            cumulative: (L, n, K + 1) integers, as in `put_dynamic`.
        """

    def finish(self, checksums: np.ndarray) -> None:
        """Check that the streams are used up and were those of the decoded values.

        Args:
            checksums: (L,) integers in 0..2^32-1, of what was decoded.

        Raises:
            CodecError: a stream is damaged, or was coded with other frequencies.
        """


class _Entries(NamedTuple):
    """One element for each of E entries: a symbol, or the end of a row. A last row has one symbol, 0, for row -1.

    Attributes:
        keys: (E + padding,) int64, row * 65536 + cumulative frequency: ascending throughout, so one search finds the
            symbols of many rows.
        starts, frequencies: (E,) int64.
        values: (E,) int32.
        escapes: (E,) bool.
        strides: the steps of a binary search, descending.
        depths: (R + 1,) int64, how many of the last strides the search in a row needs.
    """

    keys: np.ndarray
    starts: np.ndarray
    frequencies: np.ndarray
    values: np.ndarray
    escapes: np.ndarray
    strides: list[int]
    depths: np.ndarray


@dataclass(frozen=True, eq=False)
class FrequencyTables:
    """Distributions of integers, one per row; the last symbol of each row is the escape.

    Attributes:
        starts: (R + 1,) int64; row r is cumulative[starts[r]:starts[r + 1]].
        cumulative: (E,) int64; each row ascends strictly from 0 to 65536, so it has one symbol fewer than numbers.
        first: (R,) int32, the value of each row's first symbol; the others follow.

    Raises:
        CodecError: the arrays are not of this form.
    """

    starts: np.ndarray
    cumulative: np.ndarray
    first: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in (("starts", np.int64), ("cumulative", np.int64), ("first", np.int32)):
            given = np.asarray(getattr(self, name))
            if given.ndim != 1 or given.dtype.kind not in "iu" or (given.astype(dtype) != given).any():
                raise CodecError(
                    f"the {name} of the frequency tables are {given.dtype} of shape {given.shape}, not a vector of "
                    f"{np.dtype(dtype)}; {_DAMAGED_MODEL}"
                )
            object.__setattr__(self, name, np.ascontiguousarray(given, dtype))
        starts, cumulative, first = self.starts, self.cumulative, self.first
        lengths = np.diff(starts)
        ragged = len(starts) == len(first) + 1 and starts[0] == 0 and starts[-1] == len(cumulative)
        if not ragged or (lengths < 3).any() or (starts < 0).any():  # < 0: differences of large numbers overflow
            raise CodecError(
                f"the {len(starts)} starts do not cut {len(cumulative)} frequencies into {len(first)} rows of at least "
                f"two symbols; {_DAMAGED_MODEL}"
            )
        bad = np.diff(cumulative, prepend=-1) <= 0
        bad[starts[:-1]] = False  # where a row begins
        bad |= (cumulative < 0) | (cumulative > TOTAL)
        wrong = (cumulative[starts[:-1]] != 0) | (cumulative[starts[1:] - 1] != TOTAL)
        wrong[np.searchsorted(starts, np.flatnonzero(bad), "right") - 1] = True
        if wrong.any():
            raise CodecError(
                f"row {wrong.argmax()} of the frequency tables does not ascend from 0 to {TOTAL}; {_DAMAGED_MODEL}"
            )
        if (first + lengths - 3 > _INT32.max).any():
            raise CodecError(f"the frequency tables hold values above {_INT32.max}; {_DAMAGED_MODEL}")

    @classmethod
    def of(cls, frequencies: Sequence[np.ndarray], first: Sequence[int] | np.ndarray) -> FrequencyTables:
        """Tables of these rows.

        Args:
            frequencies: R arrays of positive integers, each of sum 65536; the last of each is that of the escape.
            first: (R,) the value of each row's first symbol.

        Raises:
            CodecError: the frequencies are not of this form.
        """
        rows = [np.concatenate([[0], np.cumsum(row, dtype=np.int64)]) for row in frequencies]
        starts = np.cumsum([0, *map(len, rows)])
        return cls(starts, np.concatenate(rows) if rows else np.zeros(0, np.int64), np.asarray(first, np.int64))

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def entries(self) -> _Entries:
        """What the coders look up, by entry."""
        lengths = np.append(np.diff(self.starts), 2)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        starts = np.append(self.cumulative, [0, TOTAL])
        ends = np.cumsum(lengths)
        frequencies = np.append(np.diff(starts), 0)
        frequencies[ends - 1] = 0
        escapes = np.zeros(len(starts), bool)
        escapes[ends[:-1] - 2] = True
        place = np.arange(len(starts)) - np.repeat(ends - lengths, lengths)
        values = np.where(frequencies > 0, place + np.append(self.first, np.int32(0))[rows], 0)
        depths = np.ceil(np.log2(lengths - 1)).astype(np.int64)  # bits of the largest index in a row
        strides = [1 << bit for bit in reversed(range(int(depths.max())))]
        padding = np.full(sum(strides), np.iinfo(np.int64).max)  # so that a search may look past the end
        keys = np.concatenate([(rows << PRECISION) + starts, padding])
        return _Entries(keys, starts, frequencies, values.astype(np.int32), escapes, strides, depths)

    def find(self, rows: np.ndarray, slots: np.ndarray, *, depth: int | None = None) -> np.ndarray:
        """The entries of the symbols at these cumulative frequencies.

        Args:
            rows: integers in 0..R, of any shape.
            slots: integers in 0..65535, of this shape.
            depth: the largest of these rows' `entries.depths`, if it is known.
        """
        keys, strides = self.entries.keys, self.entries.strides
        wanted = (rows << PRECISION) | slots
        found = self.starts[rows]
        for stride in (
            strides if depth is None else strides[len(strides) - depth :]
        ):  # branchless: the next rows' keys are larger, so no search leaves its row
            found = found + stride * (keys[found + stride] <= wanted)
        return found

    def locate(self, rows: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The entry of each value, and the number e that follows an escape, -1 without one.

        Args:
            rows: (L, n) integers in -1..R-1.
            values: (L, n) integers within int32.
        """
        rows, values = self.rows(rows), np.asarray(values, np.int64)
        assert values.shape == rows.shape
        assert not values.size or _INT32.min <= values.min() <= values.max() <= _INT32.max
        symbols = np.append(np.diff(self.starts), 2)[rows] - 1
        low = np.append(self.first.astype(np.int64), 0)[rows]
        high = low + symbols - 2
        above = np.where(values > high, 2 * (values - high - 1), -1)
        excess = np.where(values < low, 2 * (low - 1 - values) + 1, above)
        coded = rows < len(self)
        place = np.where(excess < 0, values - low, symbols - 1)
        return self.starts[rows] + np.where(coded, place, 0), np.where(coded, excess, -1)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows as they are looked up: R instead of -1."""
        rows = np.asarray(rows)
        assert rows.ndim == 2
        assert rows.dtype.kind in "iu"
        rows = rows.astype(np.int64)
        assert not rows.size or -1 <= rows.min() <= rows.max() < len(self)
        return np.where(rows < 0, len(self), rows)

    def escaped(self, rows: np.ndarray, excess: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """The values outside of these rows with these numbers e, all (k,).

        Raises:
            CodecError: a value is outside of int32; `lanes` are named.
        """
        low = self.first[rows].astype(np.int64)
        high = low + self.starts[rows + 1] - self.starts[rows] - 3
        values = np.where(excess & 1, low - 1 - (excess >> 1), high + 1 + (excess >> 1))
        outside = (values < _INT32.min) | (values > _INT32.max)
        if outside.any():
            raise damaged(int(lanes[outside.argmax()]), "holds a value outside of int32")
        return values


def damaged(lane: int, problem: str) -> CodecError:
    """The error about one stream."""
    return CodecError(
        f"compressed stream {lane} {problem}; it is damaged or was made with another model, get both again"
    )


def nibble_counts(excess: np.ndarray) -> np.ndarray:
    """Number of nibbles for each e; 0 for -1."""
    counts = (excess >= 0).astype(np.int64)
    for group in range(1, NIBBLES):
        counts += excess >= 1 << GROUP_BITS * group
    return counts


def nibble(excess: np.ndarray, index: int, counts: np.ndarray) -> np.ndarray:
    """The nibble at an index below the counts."""
    group = (excess >> GROUP_BITS * index) & (CONTINUES - 1)
    return np.where(index + 1 < counts, group + CONTINUES, group)


def dynamic(cumulative: np.ndarray, lanes: int) -> np.ndarray:
    """A caller's cumulative frequencies, (lanes, n, K + 1) int32, checked."""
    cumulative = np.asarray(cumulative)
    assert cumulative.ndim == 3
    assert cumulative.dtype.kind in "iu"
    assert len(cumulative) == lanes
    assert cumulative.shape[2] > 1
    assert (cumulative[..., 0] == 0).all()
    assert (cumulative[..., -1] == TOTAL).all()
    assert (cumulative[..., 1:] >= cumulative[..., :-1]).all()
    return cumulative.astype(np.int32, copy=False)


def intervals(cumulative: np.ndarray, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative frequencies and frequencies of symbols, both (L, n): of (L, n, K + 1) all and (L, n) symbols."""
    place = np.asarray(symbols).astype(np.int64)[..., None]
    assert place.shape[:2] == cumulative.shape[:2]
    starts = np.take_along_axis(cumulative, place, axis=2)[..., 0]
    frequencies = np.take_along_axis(cumulative, place + 1, axis=2)[..., 0] - starts
    assert (frequencies > 0).all()
    return starts, frequencies


def frequencies_from(weights: np.ndarray) -> np.ndarray:
    """Frequencies in proportion to weights, by largest remainders, but at least 1. For models in the making only.

    Args:
        weights: (R, n) non-negative, counts or probabilities; n <= 65536.

    Returns:
        (R, n) int64; each row sums to 65536.

    Raises:
        CodecError: weights are negative or not finite, or a row is all zeros or too long.
    """
    weights = np.asarray(weights, np.float64)
    assert weights.ndim == 2
    sums = weights.sum(axis=1, keepdims=True)
    valid = np.isfinite(sums).all() and (weights >= 0).all() and (sums > 0).all()
    if not valid or not 1 <= weights.shape[1] <= TOTAL:
        raise CodecError(
            f"weights of shape {weights.shape} are not up to {TOTAL} per row, non-negative, finite and with a positive "
            "sum; count on more data"
        )
    weights = weights / sums
    rare = np.zeros(weights.shape, bool)  # those that get 1; the others share the rest
    while True:
        rest = TOTAL - rare.sum(axis=1, keepdims=True)
        common = np.where(rare, 0, weights).sum(axis=1, keepdims=True)
        shares = rest * weights / np.maximum(common, np.finfo(np.float64).tiny)  # all are rare if n = 65536
        rarer = rare | (shares < 1)
        if (rarer == rare).all():
            break
        rare = rarer
    shares = np.where(rare, 1.0, shares)
    frequencies = np.floor(shares).astype(np.int64)
    missing = TOTAL - frequencies.sum(axis=1, keepdims=True)
    rank = np.argsort(np.argsort(frequencies - shares, axis=1, kind="stable"), axis=1)
    frequencies += rank < missing
    # Rounding errors of the shares may leave a few too many or too few, which the largest can bear.
    largest = frequencies.argmax(axis=1)
    frequencies[np.arange(len(frequencies)), largest] += TOTAL - frequencies.sum(axis=1)
    assert (frequencies > 0).all()
    return frequencies


def information_content(tables: FrequencyTables, rows: np.ndarray, values: np.ndarray) -> float:
    """Bits that coding these values takes, -sum log2(f / 65536), with the nibbles after escapes.

    Args:
        tables: the distributions.
        rows: (L, n) integers in -1..R-1.
        values: (L, n) integers.
    """
    entries, excess = tables.locate(rows, values)
    bits = PRECISION - np.log2(tables.entries.frequencies[entries])
    return float(bits.sum() + NIBBLE_BITS * nibble_counts(excess).sum())
