"""The range coder of constriction, with our frequencies."""

from __future__ import annotations

import constriction
import numpy as np
import pytest
from entropy_messages import CODERS, TINY, Message, drawn, tables

from smalti.codec.entropy import information_content
from smalti.codec.range_coder import RangeDecoder, RangeEncoder, _packed


def test_a_range_coder_carries_through_many_words() -> None:
    """What streams like 7f ff ff ... decode to, coded again: whether that becomes 80 00 00 ... is open to the end."""
    rng = np.random.default_rng(11)
    sixteen_bits = np.tile(np.arange(65537), (1, 2, 1))
    for trial in range(200):
        cumulative = np.sort(rng.integers(0, 65537, (1, trial % 60, 4)), axis=2)
        cumulative[..., 0], cumulative[..., -1] = 0, 65536
        decoder = RangeDecoder(b"\3" + rng.bytes(trial % 5) + [b"\xff", b"\0"][trial % 2] * 60)
        symbols = decoder.take_dynamic(cumulative)
        high, low = decoder.take_dynamic(sixteen_bits)[0].tolist()
        encoder, checksum = RangeEncoder(), np.array([high << 16 | low])
        encoder.put_dynamic(cumulative, symbols)
        again = RangeDecoder(*encoder.finish(checksum))
        assert np.array_equal(again.take_dynamic(cumulative), symbols)
        again.finish(checksum)


@pytest.mark.parametrize("count", [2, 3, 16, 512, 4096, 65536])
def test_symbols_coded_by_one_call_give_the_bytes_of_a_model_each(count: int) -> None:
    rng = np.random.default_rng(12)
    columns = 200 if count < 65536 else 2
    borders = [np.sort(rng.choice(65535, count - 1, replace=False)) + 1 for _ in range(columns)]
    frequencies = np.diff(np.stack(borders), prepend=0, append=65536)
    if count == 2:
        frequencies[:2] = [1, 65535], [65535, 1]
    symbols = rng.integers(0, count, (1, columns))
    plain = constriction.stream.queue.RangeEncoder()
    for symbol, row in zip(symbols[0].astype(np.int32), frequencies, strict=True):
        plain.encode(symbol[None], constriction.stream.model.Categorical(256.0 * row - 1, perfect=False))
    plain.encode(np.array([5, 7], np.int32), constriction.stream.model.Uniform(1 << 16))

    cumulative = np.cumsum(np.pad(frequencies, ((0, 0), (1, 0))), axis=1)[None]
    impossible = np.pad(cumulative, ((0, 0), (0, 0), (1, 0)))  # a first symbol that cannot occur: one call for each
    checksum = np.array([5 << 16 | 7])
    for bounds, shift in ((cumulative, 0), (impossible, 1)):
        encoder = RangeEncoder()
        encoder.put_dynamic(bounds, symbols + shift)
        assert encoder.finish(checksum) == [_packed(plain)]
        decoder = RangeDecoder(_packed(plain))
        assert np.array_equal(decoder.take_dynamic(bounds), symbols + shift)
        decoder.finish(checksum)


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
                assert decoder.take_dynamic(TINY.cumulative[None, None, begin : begin + symbols + 1]) == expected


@pytest.mark.parametrize("columns", [1, 50, 20_000])
def test_a_range_coder_takes_its_information_and_32_bits_and_rounding(columns: int) -> None:
    rng = np.random.default_rng(5)
    model = tables(rng, rows=50)
    rows, values = drawn(rng, model, (1, columns))
    (stream,) = Message(1, [(model, rows, values)]).encoded(CODERS["range"])
    assert 8 * len(stream) < information_content(model, rows, values) * 1.0002 + 32 + 8 + 8
