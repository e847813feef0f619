"""Entropy coders by asymmetric numeral systems (rANS): many streams side by side, and one.

Coding a symbol of frequency f and cumulative frequency c out of M = 2^16 takes the state x to x'; decoding takes x'
back to x:

    encode  x' = M * floor(x / f) + c + x mod f
    decode  the symbol is that with c <= x' mod M < c + f;   x = f * floor(x' / M) + x' mod M - c

A symbol lengthens x by log2(M / f) bits, which is its information content. To keep x below 2^48, the encoder moves
16 bits to the stream before x would grow beyond; the decoder takes them back when x is below 2^32:

    encode  if x >= 2^32 * f: write x mod 2^16, x = floor(x / 2^16)          before the symbol
    decode  if x < 2^32 and a word is left: x = 2^16 * x + word              after the symbol

Encoding starts at an x below 2^32, and this is still exact: encoding never makes x smaller, and from the first word on
x is at least 2^32; a decoder that finds x below 2^32 and no word is where the encoder was before the first word. So a
stream costs its initial state and rounding up to a byte, and on average nothing else. The initial state is a 1 and
then bits of a checksum, and decoding must end with it. The last symbol is coded first.

    stream  x, 3 to 6 bytes without leading zeros | words, 2 bytes each, in the order of decoding     (little-endian)

x has 5 or 6 bytes if there are words, so whether a stream's length is odd tells which.

Sources: Duda 2013, arXiv:1311.2540; Giesen 2014, arXiv:1402.3392 (interleaved).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from smalti.codec.entropy import (
    CONTINUES,
    GROUP_BITS,
    NIBBLE_FREQUENCY,
    NIBBLES,
    PRECISION,
    TOTAL,
    FrequencyTables,
    damaged,
    dynamic,
    intervals,
    nibble,
    nibble_counts,
)

__all__ = ["IntegerDecoder", "IntegerEncoder", "LaneDecoder", "LaneEncoder", "encode_integer", "encode_lanes"]

_MASK = TOTAL - 1
_LOW = 1 << 32  # the decoder takes a word below this state


class _Columns:
    """What is to be coded, as columns of cumulative frequencies and frequencies, because rANS begins with the last."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        none = np.zeros((lanes, 0), np.int32)
        self._starts, self._frequencies = [none], [none]

    def put(self, tables: FrequencyTables, rows: np.ndarray, values: np.ndarray) -> None:
        assert len(rows) == self.lanes
        entries, excess = tables.locate(rows, values)
        counts = nibble_counts(excess)
        # Escaped values take further columns, in which the other lanes code nothing.
        widths = 1 + counts.max(axis=0, initial=0)
        first = np.cumsum(widths) - widths
        starts, frequencies = np.zeros((2, self.lanes, int(widths.sum())), np.int32)
        starts[:, first] = tables.entries.starts[entries]
        frequencies[:, first] = np.where(np.asarray(rows) < 0, 0, tables.entries.frequencies[entries])
        lanes, columns = np.nonzero(counts)
        excess, counts = excess[lanes, columns], counts[lanes, columns]
        for index in range(int(counts.max(initial=0))):
            there = index < counts
            place = lanes[there], first[columns[there]] + 1 + index
            starts[place] = nibble(excess[there], index, counts[there]) * NIBBLE_FREQUENCY
            frequencies[place] = NIBBLE_FREQUENCY
        self._starts.append(starts)
        self._frequencies.append(frequencies)

    def put_dynamic(self, cumulative: np.ndarray, symbols: np.ndarray) -> None:
        starts, frequencies = intervals(dynamic(cumulative, self.lanes), symbols)
        self._starts.append(starts)
        self._frequencies.append(frequencies)

    def joined(self) -> tuple[np.ndarray, np.ndarray]:
        """Cumulative frequencies and frequencies, both (L, columns) int32."""
        return np.concatenate(self._starts, axis=1), np.concatenate(self._frequencies, axis=1)


def encode_lanes(starts: np.ndarray, frequencies: np.ndarray, seeds: np.ndarray) -> list[bytes]:
    """rANS streams of L lanes.

    Args:
        starts: (L, n) integers in 0..65535, cumulative frequencies.
        frequencies: (L, n) integers in 0..65536; 0 where the lane codes nothing.
        seeds: (L,) integers in 0..65535, which the decoder ends with: the initial state is 2^16 + seed.
    """
    lanes, columns = starts.shape
    state = TOTAL + np.asarray(seeds).astype(np.int64)
    words = np.zeros((columns, lanes), "<u2")
    written = np.zeros((columns, lanes), bool)
    by_column = np.ascontiguousarray(starts.T), np.ascontiguousarray(frequencies.T)
    for column in reversed(range(columns)):
        active = np.flatnonzero(by_column[1][column])
        start, frequency = (array[column, active].astype(np.int64) for array in by_column)
        current = state[active]
        full = np.flatnonzero(current >= frequency << 32)
        words[column, active[full]] = current[full] & _MASK
        written[column, active[full]] = True
        current[full] >>= PRECISION
        quotient = current // frequency
        state[active] = (quotient << PRECISION) + (current - quotient * frequency) + start
    heads = state.astype("<i8").view(np.uint8).reshape(lanes, 8)
    sizes = (state[:, None] >> 8 * np.arange(8) > 0).sum(axis=1).tolist()
    body = words.T[written.T].tobytes()
    ends = np.append(0, 2 * np.cumsum(written.sum(axis=0))).tolist()
    return [heads[lane, : sizes[lane]].tobytes() + body[ends[lane] : ends[lane + 1]] for lane in range(lanes)]


class LaneEncoder(_Columns):
    """rANS encoder of L streams side by side, an `EntropyEncoder`. Checksums: the lower 16 bits."""

    def finish(self, checksums: np.ndarray) -> list[bytes]:
        """The L streams; see `EntropyEncoder`."""
        return encode_lanes(*self.joined(), np.asarray(checksums).astype(np.int64) & _MASK)


class LaneDecoder:
    """rANS decoder of L streams side by side, an `EntropyDecoder`.

    Args:
        streams: L byte strings of `encode_lanes`.

    Raises:
        CodecError: a stream is too short or begins with zeros.
    """

    def __init__(self, streams: Sequence[bytes]) -> None:
        self.lanes = len(streams)
        lengths = np.array([len(stream) for stream in streams], np.int64)
        heads = np.minimum(lengths, 6 - lengths % 2)
        if (lengths < 3).any():
            lane = int((lengths < 3).argmax())
            raise damaged(lane, f"has {lengths[lane]} bytes, not at least 3")
        content = np.frombuffer(b"".join(streams), np.uint8)
        offsets = np.cumsum(lengths) - lengths
        self._state = np.zeros(self.lanes, np.int64)
        in_words = np.ones(len(content), bool)
        for index in range(6):
            there = index < heads
            place = offsets[there] + index
            self._state[there] |= content[place].astype(np.int64) << 8 * index
            in_words[place] = False
        leading = self._state >> 8 * (heads - 1)
        if (leading == 0).any():
            raise damaged(int((leading == 0).argmax()), "begins with a zero, which is never written")
        self._words = content[in_words].view("<u2")
        self._end = np.cumsum((lengths - heads) // 2)
        self._position = self._end - (lengths - heads) // 2

    def take(self, tables: FrequencyTables, rows: np.ndarray) -> np.ndarray:
        """Decode (L, n) values; see `EntropyDecoder`."""
        assert len(rows) == self.lanes
        columns = np.ascontiguousarray(tables.rows(rows).T)
        _, starts, frequencies, symbol_values, escapes, _, depths = tables.entries
        deepest = depths[columns].max(axis=1, initial=0).tolist()  # few columns need the whole search
        values = np.empty(columns.shape, np.int32)
        every = slice(None)
        for column, row in enumerate(columns):
            slots = self._state & _MASK
            found = tables.find(row, slots, depth=deepest[column])
            values[column] = symbol_values[found]
            self._drop(every, slots, starts[found], frequencies[found])
            if escapes[found].any():
                lanes = np.flatnonzero(escapes[found])
                values[column, lanes] = tables.escaped(row[lanes], self._excess(lanes), lanes)
        return np.ascontiguousarray(values.T)

    def _drop(self, lanes: np.ndarray | slice, slots: np.ndarray, starts: np.ndarray, frequencies: np.ndarray) -> None:
        """Go back to the states before these symbols."""
        state = frequencies * (self._state[lanes] >> PRECISION) + slots - starts
        position = self._position[lanes]
        hungry = np.flatnonzero((state < _LOW) & (position < self._end[lanes]))
        state[hungry] = (state[hungry] << PRECISION) | self._words[position[hungry]]
        position[hungry] += 1
        self._state[lanes], self._position[lanes] = state, position

    def _excess(self, lanes: np.ndarray) -> np.ndarray:
        """Decode the number e of an escaped value in some lanes, int64."""
        excess = np.zeros(len(lanes), np.int64)
        left = np.arange(len(lanes))
        for index in range(NIBBLES):
            slots = self._state[lanes[left]] & _MASK
            nibbles = slots // NIBBLE_FREQUENCY
            self._drop(lanes[left], slots, nibbles * NIBBLE_FREQUENCY, np.full(len(left), NIBBLE_FREQUENCY))
            excess[left] |= (nibbles & (CONTINUES - 1)) << GROUP_BITS * index
            left = left[nibbles >= CONTINUES]
            if not len(left):
                return excess
        raise damaged(int(lanes[left[0]]), f"holds a value of more than {NIBBLES} nibbles")

    def take_dynamic(self, cumulative: np.ndarray) -> np.ndarray:
        """Decode (L, n) symbols; see `EntropyDecoder`."""
        cumulative = dynamic(cumulative, self.lanes)
        symbols = np.empty(cumulative.shape[:2], np.int32)
        every = np.arange(self.lanes)
        for column in range(cumulative.shape[1]):
            bounds, slots = cumulative[:, column], self._state & _MASK
            # Slots in the type of the bounds: otherwise numpy would convert all bounds.
            found = (bounds[:, 1:] > slots.astype(np.int32)[:, None]).argmax(axis=1)
            starts = bounds[every, found]
            self._drop(slice(None), slots, starts, bounds[every, found + 1] - starts)
            symbols[:, column] = found
        return symbols

    def finish(self, checksums: np.ndarray) -> None:
        """Check the lower 16 bits of (L,) checksums; see `EntropyDecoder`."""
        expected = TOTAL + (np.asarray(checksums).astype(np.int64) & _MASK)
        wrong = self._state != expected  # also if words are left, because the state is then at least 2^32
        if wrong.any():
            raise damaged(int(wrong.argmax()), "does not end with the checksum of its content")


def _encode_from(state: int, starts: list[int], frequencies: list[int]) -> bytes:
    """One rANS stream from this initial state."""
    words = []
    for start, frequency in zip(reversed(starts), reversed(frequencies), strict=True):
        if state >= frequency << 32:
            words.append(state & _MASK)
            state >>= PRECISION
        quotient, remainder = divmod(state, frequency)
        state = (quotient << PRECISION) + remainder + start
    head = state.to_bytes((state.bit_length() + 7) // 8, "little")
    return head + np.array(words[::-1], "<u2").tobytes()


def encode_integer(starts: np.ndarray, frequencies: np.ndarray, checksum: int, *, least: int = 16) -> bytes:
    """One rANS stream with as many bits of a checksum as cost no further byte.

    The initial state is 2^c plus the lower c bits of the checksum, least <= c <= least + 7.

    Args:
        starts: (n,) integers in 0..65535, cumulative frequencies.
        frequencies: (n,) integers in 0..65536; 0 where nothing is coded.
        checksum: in 0..2^32-1.
        least: number of checksum bits to pay for, in 16..25; a state below 2^16 would waste bits on the first symbol.
    """
    assert 16 <= least <= 25
    coded = np.asarray(frequencies) > 0
    columns = np.asarray(starts)[coded].tolist(), np.asarray(frequencies)[coded].tolist()
    shortest = _encode_from(1 << least | checksum & (1 << least) - 1, *columns)
    for bits in range(least + 7, least, -1):
        stream = _encode_from(1 << bits | checksum & (1 << bits) - 1, *columns)
        if len(stream) <= len(shortest):
            return stream
    return shortest


def _head_size(length: int) -> int:
    """Bytes of the state in a stream."""
    return min(length, 6 - length % 2)


class IntegerEncoder(_Columns):
    """rANS encoder of one stream of few symbols, an `EntropyEncoder` with L = 1.

    Args:
        least: number of checksum bits to pay for; up to 7 more are stored if they cost no further byte.
    """

    def __init__(self, *, least: int = 16) -> None:
        super().__init__(1)
        self._least = least

    def finish(self, checksums: np.ndarray) -> list[bytes]:
        """The stream, in a list; see `EntropyEncoder`."""
        starts, frequencies = self.joined()
        return [encode_integer(starts[0], frequencies[0], int(checksums[0]), least=self._least)]


class IntegerDecoder:
    """rANS decoder of one stream of few symbols, an `EntropyDecoder` with L = 1.

    Args:
        data: of `encode_integer`.
        least: as there.

    Raises:
        CodecError: the stream is too short or begins with zeros.
    """

    def __init__(self, data: bytes, *, least: int = 16) -> None:
        self.lanes = 1
        head = _head_size(len(data))
        self._least, self._state = least, int.from_bytes(data[:head], "little")
        if self._state >> least == 0:
            raise damaged(0, f"has {len(data)} bytes, too few for a checksum of {least} bits")
        if data[head - 1] == 0:
            raise damaged(0, "begins with a zero, which is never written")
        self._words = np.frombuffer(data, "<u2", offset=head).tolist()
        self._words.reverse()  # so that the next is the last, which a list gives up quickly

    def _drop(self, slot: int, start: int, frequency: int) -> None:
        """Go back to the state before this symbol."""
        self._state = frequency * (self._state >> PRECISION) + slot - start
        if self._state < _LOW and self._words:
            self._state = self._state << PRECISION | self._words.pop()

    def take(self, tables: FrequencyTables, rows: np.ndarray) -> np.ndarray:
        """Decode (1, n) values; see `EntropyDecoder`."""
        assert len(rows) == 1
        rows = tables.rows(rows)[0]
        cumulative = tables.cumulative.data  # its elements are Python integers
        values = []
        for row, start, end, first in zip(
            rows.tolist(),
            tables.starts[rows].tolist(),
            np.append(tables.starts[1:], 0)[rows].tolist(),
            np.append(tables.first, np.int32(0))[rows].tolist(),
            strict=True,
        ):
            if row == len(tables):
                values.append(0)
                continue
            slot = self._state & _MASK
            found = bisect_right(cumulative, slot, start, end) - 1
            self._drop(slot, cumulative[found], cumulative[found + 1] - cumulative[found])
            if found < end - 2:
                values.append(first + found - start)
            else:
                excess = np.array([self._excess()])
                values.append(int(tables.escaped(np.array([row]), excess, np.zeros(1, np.int64))[0]))
        return np.array([values], np.int32)

    def _excess(self) -> int:
        """Decode the number e of an escaped value."""
        excess = 0
        for index in range(NIBBLES):
            slot = self._state & _MASK
            found = slot // NIBBLE_FREQUENCY
            self._drop(slot, found * NIBBLE_FREQUENCY, NIBBLE_FREQUENCY)
            excess |= (found & CONTINUES - 1) << GROUP_BITS * index
            if found < CONTINUES:
                return excess
        raise damaged(0, f"holds a value of more than {NIBBLES} nibbles")

    def take_dynamic(self, cumulative: np.ndarray) -> np.ndarray:
        """Decode (1, n) symbols; see `EntropyDecoder`."""
        cumulative = dynamic(cumulative, 1)
        bounds, width = np.ravel(cumulative).data, cumulative.shape[2]  # its elements are Python integers
        symbols = []
        for start in range(0, len(bounds), width):
            slot = self._state & _MASK
            found = bisect_right(bounds, slot, start, start + width) - 1
            self._drop(slot, bounds[found], bounds[found + 1] - bounds[found])
            symbols.append(found - start)
        return np.array([symbols], np.int32)

    def finish(self, checksums: np.ndarray) -> None:
        """Check the lower bits of one checksum, as many as are stored; see `EntropyDecoder`."""
        bits = self._state.bit_length() - 1
        # If words are left, the state is at least 2^32, and more bits than can be stored.
        stored = self._least <= bits <= self._least + 7
        if not stored or (int(checksums[0]) ^ self._state) & (1 << bits) - 1:
            raise damaged(0, "does not end with the checksum of its content")
