"""Entropy coder for one long stream: the range coder of constriction.

The values of one call are sorted by row, and each row's are coded by one call of constriction. Its models are made of
floating-point weights w_i, from which it computes cumulative frequencies out of 2^24, for n symbols,

    floor((w_0 + ... + w_(i-1)) * (2^24 - n) / (w_0 + ... + w_(n-1))) + i        ("perfect=False")

With w_i = 256 * f_i - 1 the weights are whole numbers of sum 2^24 - n, so this is 256 * c_i without any rounding, and
the coder works in 64-bit integers: the result is the same on every machine. Symbols with frequencies of their own are
coded by one call as well, with a row of weights for each.

    stream  the shortest number in the final interval, without trailing zero bytes                    (big-endian)

Sources: Martin 1979 (range coding); Bamler 2022, arXiv:2201.01741 (constriction).
"""

from __future__ import annotations

from typing import Any

import constriction  # type: ignore[import-untyped]
import numpy as np

from smalti.codec.entropy import (
    CONTINUES,
    GROUP_BITS,
    NIBBLE_BITS,
    NIBBLES,
    FrequencyTables,
    damaged,
    dynamic,
    intervals,
    nibble,
    nibble_counts,
)

__all__ = ["RangeDecoder", "RangeEncoder"]


def _grouped(tables: FrequencyTables, rows: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """The order in which (1, n) values are coded, (k,) positions, and for each row its begin and end in this order."""
    rows = tables.rows(rows)[0]
    coded = np.flatnonzero(rows < len(tables))
    # numpy sorts 16-bit integers several times faster.
    keys = rows[coded].astype(np.uint16 if len(tables) <= 1 << 16 else np.int64)
    order = coded[np.argsort(keys, kind="stable")]
    begins = np.flatnonzero(np.diff(rows[order], prepend=-1))
    ends = np.append(begins, len(order))[1:]
    return order, list(zip(rows[order[begins]].tolist(), begins.tolist(), ends.tolist(), strict=True))


def _weights(frequencies: np.ndarray) -> np.ndarray:
    """What stands for exactly these frequencies, out of 65536, in constriction; see the head of this module."""
    return 256.0 * frequencies - 1


def _model(frequencies: np.ndarray) -> Any:
    return constriction.stream.model.Categorical(_weights(frequencies), perfect=False)


def _family() -> Any:
    """A model whose weights are given for each symbol."""
    return constriction.stream.model.Categorical(perfect=False)


def _together(frequencies: np.ndarray) -> bool:
    """Whether one call codes symbols with these (n, K): constriction wants K > 1, and gives all a probability."""
    return frequencies.shape[1] > 1 and bool(frequencies.min(initial=1) > 0)


def _row_model(tables: FrequencyTables, row: int) -> Any:
    return _model(np.diff(tables.cumulative[tables.starts[row] : tables.starts[row + 1]]))


def _uniform(bits: int) -> Any:
    return constriction.stream.model.Uniform(1 << bits)  # exact, as 2^24 is a multiple of its size


def _packed(coder: Any) -> bytes:
    """The shortest stream of a constriction encoder to which something was encoded."""
    # All that decodes to what was encoded: the words before, then 64 bits in [lower, lower + size).
    position, (lower, size) = coder.pos()
    before = coder.get_compressed()[:position].astype(">u4").tobytes()
    last = b""
    # constriction's own stream goes on with lower + 2^32 - 1. If that overflows, `before` is increased by one, and
    # zeros are in the interval.
    if lower + (1 << 32) <= 1 << 64:
        for zeros in range(64, -1, -8):
            point = -(-lower >> zeros) << zeros
            if point < min(lower + size, 1 << 64):
                last = point.to_bytes(8, "big")
                break
    return (before + last).rstrip(b"\0")


class RangeEncoder:
    """Range encoder of one stream of any length, an `EntropyEncoder` with L = 1. Checksum: all 32 bits."""

    def __init__(self) -> None:
        self.lanes = 1
        self._coder = constriction.stream.queue.RangeEncoder()

    def _encode(self, symbols: np.ndarray, model: Any) -> None:
        self._coder.encode(np.ascontiguousarray(symbols, np.int32), model)

    def put(self, tables: FrequencyTables, rows: np.ndarray, values: np.ndarray) -> None:
        """Code (1, n) values; see `EntropyEncoder`."""
        assert len(rows) == 1
        entries, excess = tables.locate(rows, values)
        order, groups = _grouped(tables, rows)
        entries, excess = entries[0, order], excess[0, order]
        for row, begin, end in groups:
            self._encode(entries[begin:end] - tables.starts[row], _row_model(tables, row))
        excess = excess[excess >= 0]
        counts = nibble_counts(excess)
        for index in range(int(counts.max(initial=0))):
            there = index < counts
            self._encode(nibble(excess[there], index, counts[there]), _uniform(NIBBLE_BITS))

    def put_dynamic(self, cumulative: np.ndarray, symbols: np.ndarray) -> None:
        """Code (1, n) symbols; see `EntropyEncoder`."""
        cumulative, symbols = dynamic(cumulative, 1), np.asarray(symbols)
        assert (intervals(cumulative, symbols)[1] > 0).all()
        frequencies = np.diff(cumulative[0], axis=1)
        if _together(frequencies):
            self._coder.encode(np.ascontiguousarray(symbols[0], np.int32), _family(), _weights(frequencies))
            return
        for symbol, column in zip(symbols[0], frequencies, strict=True):
            possible = np.flatnonzero(column)
            if len(possible) > 1:
                self._encode(np.searchsorted(possible, [symbol]), _model(column[possible]))

    def finish(self, checksums: np.ndarray) -> list[bytes]:
        """The stream, in a list; see `EntropyEncoder`."""
        self._encode(np.array(divmod(int(checksums[0]), 1 << 16)), _uniform(16))
        return [_packed(self._coder)]


class RangeDecoder:
    """Range decoder of one stream of any length, an `EntropyDecoder` with L = 1.

    constriction decodes beyond the end as if zeros followed, and does not tell where it is. Therefore what was decoded
    is encoded again, which takes a fifth of the time, and must give the same stream.

    Args:
        data: of `RangeEncoder`.
    """

    def __init__(self, data: bytes) -> None:
        self.lanes = 1
        self._data = data
        words = np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)
        self._again = constriction.stream.queue.RangeEncoder()

    def _decode(self, model: Any, amount: int | np.ndarray) -> np.ndarray:
        """The next symbols, int32: this many of a model, or one for each of the (n, K) weights of a family."""
        try:
            symbols: np.ndarray = self._coder.decode(model, amount)
        except AssertionError:  # rounding leaves a part of the interval, below 2^-8, to no symbol
            raise damaged(0, "holds a number that stands for no symbol") from None
        self._again.encode(symbols, model, *([] if isinstance(amount, int) else [amount]))
        return symbols

    def take(self, tables: FrequencyTables, rows: np.ndarray) -> np.ndarray:
        """Decode (1, n) values; see `EntropyDecoder`."""
        assert len(rows) == 1
        order, groups = _grouped(tables, rows)
        entries = np.empty(len(order), np.int64)
        for row, begin, end in groups:
            entries[begin:end] = tables.starts[row] + self._decode(_row_model(tables, row), end - begin)
        values = tables.entries.values[entries]
        escapes = np.flatnonzero(tables.entries.escapes[entries])
        if len(escapes):
            excess = self._excess(len(escapes))
            values[escapes] = tables.escaped(rows[0, order[escapes]], excess, np.zeros(len(escapes), np.int64))
        ordered = np.zeros(rows.shape, np.int32)
        ordered[0, order] = values
        return ordered

    def _excess(self, count: int) -> np.ndarray:
        """Decode the numbers e of escaped values: the first nibbles of all, then the second of those that have one."""
        excess = np.zeros(count, np.int64)
        left = np.arange(count)
        for index in range(NIBBLES):
            nibbles = self._decode(_uniform(NIBBLE_BITS), len(left)).astype(np.int64)
            excess[left] |= (nibbles & (CONTINUES - 1)) << GROUP_BITS * index
            left = left[nibbles >= CONTINUES]
            if not len(left):
                return excess
        raise damaged(0, f"holds a value of more than {NIBBLES} nibbles")

    def take_dynamic(self, cumulative: np.ndarray) -> np.ndarray:
        """Decode (1, n) symbols; see `EntropyDecoder`."""
        frequencies = np.diff(dynamic(cumulative, 1)[0], axis=1)
        if _together(frequencies):
            return self._decode(_family(), _weights(frequencies))[None]
        symbols = np.empty((1, len(frequencies)), np.int32)
        for index, column in enumerate(frequencies):
            possible = np.flatnonzero(column)
            found = self._decode(_model(column[possible]), 1)[0] if len(possible) > 1 else 0
            symbols[0, index] = possible[found]
        return symbols

    def finish(self, checksums: np.ndarray) -> None:
        """Check all 32 bits of one checksum; see `EntropyDecoder`."""
        high, low = self._decode(_uniform(16), 2).tolist()
        if high << 16 | low != int(checksums[0]) or _packed(self._again) != self._data:
            raise damaged(0, "does not end with the checksum of its content")
