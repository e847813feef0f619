"""The range coder of constriction, with our frequencies."""

from __future__ import annotations

import numpy as np
import pytest
from entropy_messages import CODERS, TINY, Message, drawn, tables

from smalti.codec.entropy import information_content
from smalti.codec.range_coder import RangeDecoder, RangeEncoder


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


@pytest.mark.parametrize("columns", [1, 50, 20_000])
def test_a_range_coder_takes_its_information_and_32_bits_and_rounding(columns: int) -> None:
    rng = np.random.default_rng(5)
    model = tables(rng, rows=50)
    rows, values = drawn(rng, model, (1, columns))
    (stream,) = Message(1, [(model, rows, values)]).encoded(CODERS["range"])
    assert 8 * len(stream) < information_content(model, rows, values) * 1.0002 + 32 + 8 + 8
