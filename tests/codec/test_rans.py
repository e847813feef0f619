"""rANS: against one written here plainly, sizes, damage."""

from __future__ import annotations

import numpy as np
import pytest
from entropy_messages import CODERS, TINY, Message, drawn, mixed, tables

from smalti.codec.entropy import FrequencyTables, information_content
from smalti.codec.rans import IntegerDecoder, IntegerEncoder, encode_integer, encode_lanes
from smalti.errors import CodecError


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


def test_lanes_are_independent() -> None:
    rng = np.random.default_rng(0)
    message = mixed(rng, tables(rng, rows=20), 5, 30)
    together = message.encoded(CODERS["lanes"])
    for lane in range(5):
        alone = Message(1, [tuple(x if isinstance(x, FrequencyTables) else x[lane : lane + 1] for x in part)
                            for part in message.parts])  # fmt: skip
        assert alone.encoded(CODERS["lanes"]) == [together[lane]]


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


def test_many_lanes_take_hardly_longer_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by calls of the symbol search, not by a clock."""
    calls = []
    find = FrequencyTables.find
    monkeypatch.setattr(FrequencyTables, "find", lambda *args, **options: (calls.append(1), find(*args, **options))[1])
    rows = np.zeros((500, 7), int)
    message = Message(500, [(TINY, rows, rows)])
    assert message.agrees(message.decoded(CODERS["lanes"], message.encoded(CODERS["lanes"])))
    assert len(calls) == 7


def test_the_damaged_lane_is_named() -> None:
    rng = np.random.default_rng(8)
    message = mixed(rng, tables(rng, rows=30), 6, 20)
    streams = message.encoded(CODERS["lanes"])
    for lane in range(6):
        for bad in (streams[lane][:-1], streams[lane] + b"\1", b"", b"\1\0", b"\1\1\0", streams[lane - 1]):
            with pytest.raises(CodecError, match=f"stream {lane} "):
                message.decoded(CODERS["lanes"], [*streams[:lane], bad, *streams[lane + 1 :]])
