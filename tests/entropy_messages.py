"""What the entropy coders code in the tests: random distributions, values that follow them, and damaged streams."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import strategies as st

from smalti.codec.entropy import EntropyDecoder, EntropyEncoder, FrequencyTables, frequencies_from
from smalti.codec.range_coder import RangeDecoder, RangeEncoder
from smalti.codec.rans import IntegerDecoder, IntegerEncoder, LaneDecoder, LaneEncoder

TINY = FrequencyTables.of([np.array([40000, 20000, 5000, 536]), np.array([65535, 1])], [-1, 7])


INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Coder:
    """One of the three coders, and whether it has more than one lane."""

    encoder: Callable[[int], EntropyEncoder]
    decoder: Callable[[list[bytes]], EntropyDecoder]
    many: bool = False


CODERS = {
    "lanes": Coder(LaneEncoder, LaneDecoder, many=True),
    "integer": Coder(lambda lanes: IntegerEncoder(), lambda streams: IntegerDecoder(*streams)),
    "range": Coder(lambda lanes: RangeEncoder(), lambda streams: RangeDecoder(*streams)),
}


every_coder = pytest.mark.parametrize("coder", CODERS.values(), ids=CODERS)


def tables(rng: np.random.Generator, *, rows: int, most: int = 40) -> FrequencyTables:
    """Random distributions, from nearly uniform to nearly certain."""
    shapes = zip(rng.integers(2, most + 1, rows), rng.choice([0.01, 0.3, 10.0], rows), strict=True)
    weights = [rng.dirichlet(np.full(size, shape)) for size, shape in shapes]
    return FrequencyTables.of([frequencies_from(row[None])[0] for row in weights], rng.integers(-60, 60, rows))


def drawn(rng: np.random.Generator, model: FrequencyTables, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and values that follow the distributions; escapes are a little outside."""
    rows = rng.integers(0, len(model), shape)
    found = model.find(rows, rng.integers(0, 1 << 16, shape))
    escapes = model.entries.escapes[found]
    return rows, model.entries.values[found] + np.where(escapes, rng.geometric(0.2, shape) - 1, 0)


def checksums(parts: list[np.ndarray], lanes: int) -> np.ndarray:
    """CRC-32 of each lane's values and symbols."""
    contents = [b"".join(part[lane].astype("<i4").tobytes() for part in parts) for lane in range(lanes)]
    return np.array([zlib.crc32(content) for content in contents], np.int64)


@dataclass(frozen=True)
class Message:
    """What is coded: (tables, rows, values), or (cumulative, symbols)."""

    lanes: int
    parts: list[tuple]

    def encoded(self, coder: Coder) -> list[bytes]:
        encoder = coder.encoder(self.lanes)
        assert encoder.lanes == self.lanes
        for part in self.parts:
            encoder.put(*part) if len(part) == 3 else encoder.put_dynamic(*part)
        return encoder.finish(checksums([np.asarray(part[-1]) for part in self.parts], self.lanes))

    def decoded(self, coder: Coder, streams: list[bytes]) -> list[np.ndarray]:
        decoder = coder.decoder(streams)
        assert decoder.lanes == self.lanes
        found = [decoder.take(*part[:2]) if len(part) == 3 else decoder.take_dynamic(part[0]) for part in self.parts]
        decoder.finish(checksums(found, self.lanes))
        return found

    def agrees(self, found: list[np.ndarray]) -> bool:
        return all(np.array_equal(part[-1], result) for part, result in zip(self.parts, found, strict=True))


def own_frequencies(rng: np.random.Generator, lanes: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative frequencies of five symbols for each lane and column, and symbols that follow them.

    In half of all cases many of the symbols are impossible.
    """
    cumulative = rng.integers(0, 65537, (lanes, columns, 6))
    if rng.random() < 0.5:
        cumulative[rng.random(cumulative.shape) < 0.4] = 0
    cumulative.sort(axis=2)
    cumulative[..., 0], cumulative[..., -1] = 0, 65536
    slots = rng.integers(0, 65536, (lanes, columns, 1))
    return cumulative, (cumulative[..., 1:] <= slots).sum(axis=2)


def mixed(rng: np.random.Generator, model: FrequencyTables, lanes: int, columns: int) -> Message:
    """Values with escapes and pauses, and dynamic symbols between."""
    rows, values = drawn(rng, model, (lanes, columns))
    rows[rng.random(rows.shape) < 0.1] = -1
    values[rows < 0] = 0
    half = columns // 2
    between = own_frequencies(rng, lanes, int(rng.integers(1, 4)))
    return Message(
        lanes, [(model, rows[:, :half], values[:, :half]), between, (model, rows[:, half:], values[:, half:])]
    )


@st.composite
def messages(draw: st.DrawFn, many: bool) -> Message:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    model = tables(rng, rows=draw(st.integers(1, 4)), most=draw(st.sampled_from([2, 3, 70])))
    lanes = draw(st.integers(0, 4)) if many else 1
    extreme = st.sampled_from([INT32.min, INT32.min + 1, -1000, -1, 0, 1, 7, 8, 1000, INT32.max - 1, INT32.max])
    parts: list[tuple] = []
    for columns in draw(st.lists(st.integers(0, 5), max_size=4)):
        rows, values = drawn(rng, model, (lanes, columns))
        if values.size and draw(st.booleans()):
            values.flat[draw(st.integers(0, values.size - 1))] = draw(extreme)
        rows[rng.random(rows.shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = -1
        values[rows < 0] = 0
        parts.append((model, rows, values))
        if draw(st.booleans()):
            parts.append(own_frequencies(rng, lanes, draw(st.integers(0, 4))))
    return Message(lanes, parts)


def damaged_streams(rng: np.random.Generator, stream: bytes, count: int) -> list[bytes]:
    """All truncations, all flips of one bit, and random changes."""
    made = [stream[:length] for length in range(len(stream))]
    for bit in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[bit // 8] ^= 1 << bit % 8
        made.append(bytes(flipped))
    for size in range(1, 10):
        made += [stream + bytes(size), stream + rng.bytes(size), bytes(size) + stream, rng.bytes(size), bytes(size)]
    for _ in range(count):
        edited = bytearray(stream)
        begin, size = rng.integers(0, len(stream)), rng.integers(1, 9)
        edited[begin : begin + size] = rng.bytes(rng.integers(0, 12))
        made += [bytes(edited), rng.bytes(len(stream))]
    return [each for each in made if each != stream]
