"""Entropy coders: round trips, sizes, damage, and a plain rANS written here."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.codec.entropy import (
    EntropyDecoder,
    EntropyEncoder,
    FrequencyTables,
    frequencies_from,
    information_content,
)
from smalti.codec.range_coder import (
    IntegerDecoder,
    IntegerEncoder,
    LaneDecoder,
    LaneEncoder,
    RangeDecoder,
    RangeEncoder,
    encode_integer,
    encode_lanes,
)
from smalti.errors import CodecError

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


def mixed(rng: np.random.Generator, model: FrequencyTables, lanes: int, columns: int) -> Message:
    """Values with escapes and pauses, and dynamic symbols between."""
    rows, values = drawn(rng, model, (lanes, columns))
    rows[rng.random(rows.shape) < 0.1] = -1
    values[rows < 0] = 0
    cumulative = np.sort(rng.integers(0, 65537, (lanes, 6)), axis=1)
    cumulative[:, 0], cumulative[:, -1] = 0, 65536
    symbols = np.array([rng.choice(np.flatnonzero(np.diff(lane))) for lane in cumulative], np.int64)
    half = columns // 2
    return Message(
        lanes,
        [(model, rows[:, :half], values[:, :half]), (cumulative, symbols), (model, rows[:, half:], values[:, half:])],
    )


# --- Round trips


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
            parts.append(mixed(rng, model, lanes, 0).parts[1])
    return Message(lanes, parts)


@every_coder
@settings(max_examples=60)
@given(data=st.data())
def test_decoding_gives_back_what_was_coded(coder: Coder, data: st.DataObject) -> None:
    message = data.draw(messages(coder.many))
    found = message.decoded(coder, message.encoded(coder))
    assert message.agrees(found)
    assert all(part.dtype == np.int32 for part in found)


@every_coder
def test_every_value_around_a_row_is_coded(coder: Coder) -> None:
    values = np.arange(-600, 600)[None]
    rows = np.arange(1200)[None] % 2
    message = Message(1, [(TINY, rows, values)])
    assert message.agrees(message.decoded(coder, message.encoded(coder)))


@every_coder
def test_wide_rows_and_all_dtypes(coder: Coder) -> None:
    wide = FrequencyTables.of([np.ones(65536, np.uint32), np.array([1, 65535])], np.array([INT32.min, 5], np.int64))
    rows = np.array([[0, 1, 0, 0, -1, 1]], np.int8)
    values = np.array([[INT32.min, 5, INT32.min + 65534, INT32.max, 0, 6]], np.int32)
    message = Message(1, [(wide, rows, values), (np.array([[0, 65536]], np.uint32), np.array([0], np.uint8))])
    assert message.agrees(message.decoded(coder, message.encoded(coder)))


@every_coder
def test_nothing_coded_takes_the_checksum_only(coder: Coder) -> None:
    message = Message(
        1, [(TINY, np.full((1, 3), -1), np.zeros((1, 3), int)), (np.array([[0, 0, 65536]]), np.array([1]))]
    )
    (stream,) = message.encoded(coder)
    assert len(stream) <= (6 if coder is CODERS["range"] else 3)
    assert message.agrees(message.decoded(coder, [stream]))


def test_lanes_are_independent() -> None:
    rng = np.random.default_rng(0)
    message = mixed(rng, tables(rng, rows=20), 5, 30)
    together = message.encoded(CODERS["lanes"])
    for lane in range(5):
        alone = Message(1, [tuple(x if isinstance(x, FrequencyTables) else x[lane : lane + 1] for x in part)
                            for part in message.parts])  # fmt: skip
        assert alone.encoded(CODERS["lanes"]) == [together[lane]]


def test_a_range_coder_carries_through_many_words() -> None:
    """What streams like 7f ff ff ... decode to, coded again: whether that becomes 80 00 00 ... is open to the end."""
    rng = np.random.default_rng(11)
    sixteen_bits = np.arange(65537)[None]
    for trial in range(200):
        cumulative = np.sort(rng.integers(0, 65537, (trial % 60, 1, 4)), axis=2)
        cumulative[..., 0], cumulative[..., -1] = 0, 65536
        bounds = [*cumulative, sixteen_bits, sixteen_bits]
        decoder = RangeDecoder(b"\3" + rng.bytes(trial % 5) + [b"\xff", b"\0"][trial % 2] * 60)
        *symbols, high, low = [decoder.take_dynamic(each) for each in bounds]
        encoder = RangeEncoder()
        for each, symbol in zip(cumulative, symbols, strict=True):
            encoder.put_dynamic(each, symbol)
        checksum = high.astype(np.int64) << 16 | low
        again = RangeDecoder(*encoder.finish(checksum))
        assert [again.take_dynamic(each) for each in cumulative] == symbols
        again.finish(checksum)


# --- Against rANS written plainly


def plain(symbols: list[tuple[int, int]], state: int) -> bytes:
    """A stream of (start, frequency) pairs from this initial state, as the module describes it."""
    words: list[bytes] = []
    for start, frequency in reversed(symbols):
        if state >= 2**32 * frequency:
            words.insert(0, (state % 2**16).to_bytes(2, "little"))
            state //= 2**16
        state = 2**16 * (state // frequency) + start + state % frequency
    return state.to_bytes(-(-state.bit_length() // 8), "little") + b"".join(words)


def unbounded(symbols: list[tuple[int, int]], state: int) -> int:
    """rANS whose state grows without bound: what is lost by words, compared with this?"""
    for start, frequency in reversed(symbols):
        state = 2**16 * (state // frequency) + start + state % frequency
    return state


def pairs(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    cuts = np.sort(rng.choice(65537, (count, 2)), axis=1)
    cuts[:, 1] += cuts[:, 0] == cuts[:, 1]
    return [(int(low), int(high - low)) for low, high in cuts.clip(max=65536) if low < 65536]


def test_streams_are_those_of_plain_rans() -> None:
    rng = np.random.default_rng(1)
    for count in (*range(12), 100):
        lanes = [pairs(rng, count) for _ in range(8)]
        most = max(map(len, lanes))
        columns = np.array([lane + [(0, 0)] * (most - len(lane)) for lane in lanes]).reshape(8, most, 2)
        seeds = rng.integers(0, 65536, 8)
        expected = [plain(lane, 65536 + int(seed)) for lane, seed in zip(lanes, seeds, strict=True)]
        assert encode_lanes(columns[..., 0], columns[..., 1], seeds) == expected
        for lane, seed in zip(columns, seeds.tolist(), strict=True):
            stream = encode_integer(lane[:, 0], lane[:, 1], seed)
            assert stream in [plain([tuple(pair) for pair in lane.tolist() if pair[1]], 1 << c | seed & (1 << c) - 1)
                              for c in range(16, 24)]  # fmt: skip


def test_words_cost_nothing_compared_with_an_unbounded_state() -> None:
    rng = np.random.default_rng(2)
    differences = []
    for _ in range(200):
        symbols = pairs(rng, 60)
        seed = int(rng.integers(0, 65536))
        differences.append(len(plain(symbols, 65536 + seed)) - -(-unbounded(symbols, 65536 + seed).bit_length() // 8))
    assert set(differences) <= {-1, 0, 1}
    assert abs(np.mean(differences)) < 0.02


def test_constriction_codes_exactly_our_frequencies() -> None:
    """The first symbols of a stream divide [0, 1) as the frequencies do: decoding any fraction tells."""
    for row, symbols in ((0, 4), (1, 2)):
        begin = TINY.starts[row]
        for symbol in range(symbols - 1):
            border = int(TINY.cumulative[begin + symbol + 1])
            # constriction's interval is 2^64 - 1 long and its unit is this, so borders are a little lower than ours.
            unit = (2**64 - 1) >> 24
            for point, expected in ((border * 256 * unit - 1, symbol), (border * 256 * unit, symbol + 1)):
                decoder = RangeDecoder(point.to_bytes(8, "big"))
                (found,) = decoder.take_dynamic(TINY.cumulative[None, begin : begin + symbols + 1])
                assert found == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lanes", ["f072c07ca0019c3041fe", "8b3d09"]),
        ("integer", ["175f5f4e6cb0b83e49c9"]),
        ("range", ["8d3bf9827f21ee39e95f31"]),
    ],
)
def test_golden_streams(name: str, expected: list[str]) -> None:
    """The format: a change here makes files unreadable."""
    lanes = len(expected)
    rows = np.array([[0, 0, 1, 0, 0, 1, 0, 0, -1, 0, 0, 0]] * lanes)
    values = np.array([[-1, 0, 7, 1, -1, 5, 900, -1, 0, 0, -1, 1]] * lanes)
    rows[1:, 3:] = -1
    values[1:, 3:] = 0
    dynamic = np.array([[0, 1000, 1000, 65536]] * lanes), np.array([2] * lanes)
    message = Message(lanes, [(TINY, rows, values), dynamic])
    assert [stream.hex() for stream in message.encoded(CODERS[name])] == expected
    assert message.agrees(message.decoded(CODERS[name], [bytes.fromhex(stream) for stream in expected]))


# --- Sizes


def test_information_content_counts_escapes() -> None:
    bits = information_content(TINY, np.array([[0, 1, -1, 0, 0]]), np.array([[0, 7, 0, 2, 1000]]))
    e = 2 * (1000 - 1 - 1)  # 11 bits, hence 4 nibbles
    assert e.bit_length() == 11
    escape = 16 - np.log2(536)
    expected = 16 - np.log2(20000) + 16 - np.log2(65535) + (escape + 4) + (escape + 4 * 4)
    assert bits == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("columns", [1, 10, 300])
def test_lanes_take_their_information_and_17_bits_and_rounding(columns: int) -> None:
    rng = np.random.default_rng(3)
    model = tables(rng, rows=50)
    rows, values = drawn(rng, model, (400, columns))
    streams = Message(400, [(model, rows, values)]).encoded(CODERS["lanes"])
    content = np.array([information_content(model, rows[[lane]], values[[lane]]) for lane in range(400)])
    over = 8 * np.array([len(stream) for stream in streams]) - content
    # The initial state is 16 to 17 bits; with it, the first symbols to be coded may lose a bit by rounding.
    assert over.max() < 16 + 1 + 8 + 1
    if columns == 300:
        assert over.mean() < 16.56 + 4 + 0.2


def test_an_integer_takes_its_information_and_its_checksum_and_rounding() -> None:
    rng = np.random.default_rng(4)
    model = tables(rng, rows=50)
    over = []
    for columns in rng.integers(1, 60, 300):
        rows, values = drawn(rng, model, (1, int(columns)))
        (stream,) = Message(1, [(model, rows, values)]).encoded(CODERS["integer"])
        over.append(8 * len(stream) - information_content(model, rows, values))
    assert max(over) < 16 + 1 + 8 + 1
    assert np.mean(over) < 16.56 + 4 + 0.2


@pytest.mark.parametrize("columns", [1, 50, 20_000])
def test_a_range_coder_takes_its_information_and_32_bits_and_rounding(columns: int) -> None:
    rng = np.random.default_rng(5)
    model = tables(rng, rows=50)
    rows, values = drawn(rng, model, (1, columns))
    (stream,) = Message(1, [(model, rows, values)]).encoded(CODERS["range"])
    assert 8 * len(stream) < information_content(model, rows, values) * 1.0002 + 32 + 8 + 8


def stored_bits(model: FrequencyTables, rows: np.ndarray, stream: bytes, checksum: int, least: int) -> int:
    """How many bits of the checksum an integer stream checks; the others do not matter."""
    matters = []
    for bit in range(32):
        decoder = IntegerDecoder(stream, least=least)
        decoder.take(model, rows)
        try:
            decoder.finish(np.array([checksum ^ 1 << bit]))
            matters.append(False)
        except CodecError:
            matters.append(True)
    assert matters == sorted(matters, reverse=True)
    return sum(matters)


@pytest.mark.parametrize("least", [16, 17, 22, 25])
def test_the_checksum_of_an_integer_fills_its_last_byte(least: int) -> None:
    rng = np.random.default_rng(6)
    model = tables(rng, rows=50)
    bits = []
    for _ in range(40):
        rows, values = drawn(rng, model, (1, 12))
        checksum = int(rng.integers(0, 2**32))
        encoder = IntegerEncoder(least=least)
        encoder.put(model, rows, values)
        starts, frequencies = encoder.joined()
        (stream,) = encoder.finish(np.array([checksum]))
        bits.append(stored_bits(model, rows, stream, checksum, least))
        symbols = list(zip(starts[0].tolist(), frequencies[0].tolist(), strict=True))
        sizes = [len(plain(symbols, 1 << c | checksum & (1 << c) - 1)) for c in range(least, least + 8)]
        assert len(stream) == sizes[0]
        assert bits[-1] == max(c for c, size in enumerate(sizes, least) if size <= sizes[0])
    assert least + 3 < np.mean(bits) < least + 4.5


# --- Speed: no loop over lanes, and long streams in linear time


def test_many_lanes_take_hardly_longer_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by calls of the symbol search, not by a clock."""
    calls = []
    find = FrequencyTables.find
    monkeypatch.setattr(FrequencyTables, "find", lambda *args: (calls.append(1), find(*args))[1])
    rows = np.zeros((500, 7), int)
    message = Message(500, [(TINY, rows, rows)])
    assert message.agrees(message.decoded(CODERS["lanes"], message.encoded(CODERS["lanes"])))
    assert len(calls) == 7


# --- Damage


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


@every_coder
def test_damaged_streams_are_refused(coder: Coder) -> None:
    rng = np.random.default_rng(7)
    model = tables(rng, rows=30)
    tried = 0
    for columns in (0, 4, 24):
        message = mixed(rng, model, 1, columns)
        (stream,) = message.encoded(coder)
        for bad in damaged_streams(rng, stream, 250):
            tried += 1
            with pytest.raises(CodecError, match="get both again"):
                message.decoded(coder, [bad])
    assert tried > 1500


def test_the_damaged_lane_is_named() -> None:
    rng = np.random.default_rng(8)
    message = mixed(rng, tables(rng, rows=30), 6, 20)
    streams = message.encoded(CODERS["lanes"])
    for lane in range(6):
        for bad in (streams[lane][:-1], streams[lane] + b"\1", b"", b"\1\0", b"\1\1\0", streams[lane - 1]):
            with pytest.raises(CodecError, match=f"stream {lane} "):
                message.decoded(CODERS["lanes"], [*streams[:lane], bad, *streams[lane + 1 :]])


@every_coder
def test_another_checksum_is_refused(coder: Coder) -> None:
    encoder = coder.encoder(1)
    encoder.put(TINY, np.zeros((1, 4), int), np.zeros((1, 4), int))
    streams = encoder.finish(np.array([0xDEADBEEF]))
    for checksum, right in ((0xDEADBEEF, True), (0xDEADBEEE, False), (0xDEAD3EEF, False), (0, False)):
        decoder = coder.decoder(streams)
        decoder.take(TINY, np.zeros((1, 4), int))
        if right:
            decoder.finish(np.array([checksum], np.uint32))
        else:
            with pytest.raises(CodecError, match="checksum"):
                decoder.finish(np.array([checksum], np.uint32))


@every_coder
@pytest.mark.parametrize("count", [3, 5])
def test_taking_too_few_or_too_many_is_refused(coder: Coder, count: int) -> None:
    encoder = coder.encoder(1)
    encoder.put(TINY, np.zeros((1, 4), int), np.zeros((1, 4), int))
    decoder = coder.decoder(encoder.finish(np.array([0xDEADBEEF])))
    decoder.take(TINY, np.zeros((1, count), int))
    with pytest.raises(CodecError):
        decoder.finish(np.array([0xDEADBEEF]))


@every_coder
def test_endless_and_excessive_escapes_are_refused(coder: Coder) -> None:
    """An escape of symbol 1, then nibbles that always continue, or that give a number above 2^32."""
    model = FrequencyTables.of([np.array([1, 65535])], [0])
    nibbles = np.arange(0, 65537, 4096)[None]
    for digits, problem in (([15] * 14, "11 nibbles"), ([15] * 10 + [7], "int32")):
        encoder = coder.encoder(1)
        encoder.put_dynamic(np.array([[0, 1, 65536]]), np.array([1]))
        for digit in digits:
            encoder.put_dynamic(nibbles, np.array([digit]))
        decoder = coder.decoder(encoder.finish(np.array([1])))
        with pytest.raises(CodecError, match=problem):
            decoder.take(model, np.zeros((1, 1), int))


# --- Tables


def test_frequencies_sum_up_and_are_positive_and_in_proportion() -> None:
    rng = np.random.default_rng(9)
    for size, shape in ((1, 1), (2, 0.01), (30, 0.05), (30, 100), (5000, 0.01), (65536, 1)):
        weights = rng.dirichlet(np.full(size, shape), 5) * 10.0 ** rng.integers(-200, 200, (5, 1))
        found = frequencies_from(weights)
        assert found.dtype == np.int64
        assert (found.sum(axis=1) == 65536).all()
        assert found.min() >= 1
        order = np.argsort(weights, axis=1, kind="stable")
        assert (np.diff(np.take_along_axis(found, order, axis=1), axis=1) >= 0).all()
    weights = rng.dirichlet(np.full(30, 100), 50)
    assert np.abs(frequencies_from(weights) - 65536 * weights).max() < 1
    exact = np.array([[1, 5, 65530], [20000, 20000, 25536]])
    assert np.array_equal(frequencies_from(exact / 7), exact)
    assert frequencies_from(np.array([[1, 1, 1]])).tolist() == [[21846, 21845, 21845]]
    assert frequencies_from(np.array([[0, 0, 3]])).tolist() == [[1, 1, 65534]]


@pytest.mark.parametrize("weights", [[[0.0, 0.0]], [[1.0, -1.0]], [[np.nan, 1.0]], [[np.inf, 1.0]], [[]]])
def test_weights_that_are_none_are_refused(weights: list[list[float]]) -> None:
    with pytest.raises(CodecError, match="weights"):
        frequencies_from(np.array(weights))


@pytest.mark.parametrize(
    ("starts", "cumulative", "first", "problem"),
    [
        ([0, 3], [0, 5, 65535], [0], "row 0"),
        ([0, 3], [1, 5, 65536], [0], "row 0"),
        ([0, 3, 7], [0, 5, 65536, 0, 7, 7, 65536], [0, 0], "row 1"),
        ([0, 3, 7], [0, 5, 65536, 0, 7, -7, 65536], [0, 0], "row 1"),
        ([0, 3, 8], [0, 5, 65536, 0, 2**62, -(2**63), -1, 65536], [0, 0], "row 1"),
        ([0, 2], [0, 65536], [0], "two symbols"),
        ([0, 3], [0, 5, 65536], [0, 0], "two symbols"),
        ([0, 2, 3], [0, 5, 65536], [0, 0], "two symbols"),
        ([1, 3], [0, 5, 65536], [0], "two symbols"),
        ([0, 2**62, -(2**63), -1, 3], [0, 5, 65536], [0, 0, 0, 0], "two symbols"),
        ([], [], [], "vector"),
        ([0.0, 3.0], [0, 5, 65536], [0], "vector"),
        ([[0, 3]], [0, 5, 65536], [0], "vector"),
        ([0, 3], [0, 5, 65536], [2**31], "vector"),
        ([0, 4], [0, 5, 6, 65536], [2**31 - 1], "above 2147483647"),
    ],
)
def test_tables_of_another_form_are_refused(starts: list, cumulative: list, first: list, problem: str) -> None:
    with pytest.raises(CodecError, match=problem):
        FrequencyTables(np.array(starts), np.array(cumulative), np.array(first))


def test_the_largest_value_of_a_row_may_be_that_of_int32() -> None:
    model = FrequencyTables.of([np.array([5, 65531])], [INT32.max])
    assert model.escaped(np.array([0]), np.array([1]), np.array([0])).tolist() == [INT32.max - 1]
    with pytest.raises(CodecError, match="stream 3 "):
        model.escaped(np.array([0]), np.array([0]), np.array([3]))


def test_a_search_finds_the_symbol_of_every_slot() -> None:
    model = tables(np.random.default_rng(10), rows=7, most=80)
    slots = np.arange(65536)
    for row in range(7):
        begin, end = model.starts[row], model.starts[row + 1]
        expected = begin + np.searchsorted(model.cumulative[begin:end], slots, "right") - 1
        assert np.array_equal(model.find(np.full(65536, row), slots), expected)


def test_torch_stays_out() -> None:
    code = "import sys, smalti.codec.entropy, smalti.codec.range_coder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
