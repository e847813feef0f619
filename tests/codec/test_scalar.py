"""Payloads of the transform codec: round trips, sizes, damage."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest
from codec_models import QUALITY, drawn_codec, engine_of, integer_context, some_codes, trained_codec
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.codec.context import IntegerContext
from smalti.codec.entropy import EntropyDecoder, EntropyEncoder
from smalti.codec.range_coder import RangeDecoder, RangeEncoder
from smalti.codec.rans import IntegerDecoder, IntegerEncoder, LaneDecoder, LaneEncoder
from smalti.codec.scalar import codes_checksum, decode_codes, encode_codes, scalar_bits, streams_of
from smalti.errors import CodecError

CONTEXTS = {
    name: integer_context(drawn_codec(neighbours=name == "neighbours").context) for name in ("alone", "neighbours")
}
Shape = tuple[int, int, int, int]
Single = tuple[Callable[[], EntropyEncoder], Callable[[bytes], EntropyDecoder]]
SINGLE: dict[str, Single] = {
    "integer": (IntegerEncoder, IntegerDecoder),
    "lane": (lambda: LaneEncoder(1), lambda stream: LaneDecoder([stream])),
    "range": (RangeEncoder, RangeDecoder),
}
both = pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
every_coder = pytest.mark.parametrize("coder", SINGLE.values(), ids=SINGLE)


def excluded(context: IntegerContext, codes: np.ndarray, quality: int) -> np.ndarray:
    """Where codes must be zero, given that they are in their order."""
    found = np.zeros(codes.shape, bool)
    for group, phase in context.passes:
        rows, _ = context.rows(codes, np.full(len(codes), quality), group, phase)
        tiles = context.tiles(len(codes), *codes.shape[2:], phase)
        part = np.zeros((codes.shape[0] * codes.shape[2] * codes.shape[3], rows.shape[1]), bool)
        part[tiles] = rows < 0
        start, end = context.bounds[group : group + 2]
        found[:, start:end] |= part.reshape(len(codes), *codes.shape[2:], -1).transpose(0, 3, 1, 2)
    return found


@both
@settings(max_examples=12)
@given(data=st.data())
def test_lanes_give_back_what_was_coded(context: IntegerContext, data: st.DataObject) -> None:
    """Any grid, any number of images in a stream, the last of which may have fewer."""
    images, per_stream = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 16))
    grid = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    quality = data.draw(st.integers(1, 100))
    codes = some_codes((images, 48, *grid), seed=data.draw(st.integers(0, 2**32)))
    given_codes = codes.copy()
    lanes = streams_of(images, per_stream)
    streams = encode_codes(context, codes, quality, LaneEncoder(lanes), per_stream=per_stream)
    zeroed = excluded(context, codes, quality)
    assert not codes[zeroed].any()
    assert np.array_equal(codes[~zeroed], given_codes[~zeroed])
    shape = (images, 48, *grid)
    assert np.array_equal(decode_codes(context, LaneDecoder(streams), shape, quality, per_stream=per_stream), codes)
    # Each stream alone, as a reader of one block sees it.
    last = images - (lanes - 1) * per_stream
    alone = decode_codes(context, LaneDecoder(streams[-1:]), (last, *shape[1:]), quality, per_stream=last)
    assert np.array_equal(alone, codes[-last:])


@both
@every_coder
@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 1), (1, 7), (3, 3), (7, 5)])
def test_every_coder_gives_back_every_grid(context: IntegerContext, coder: Single, grid: tuple[int, int]) -> None:
    encoder, decoder = coder
    codes = some_codes((1, 48, *grid))
    (stream,) = encode_codes(context, codes, QUALITY, encoder())
    assert np.array_equal(decode_codes(context, decoder(stream), (1, 48, *grid), QUALITY), codes)


@both
def test_extreme_codes_are_coded(context: IntegerContext) -> None:
    codes = np.zeros((1, 48, 2, 2), np.int32)
    codes[0, :4] = np.array([2**24, -(2**24), 65536, -255])[:, None, None]
    (stream,) = encode_codes(context, codes, 100, IntegerEncoder())
    assert np.array_equal(decode_codes(context, IntegerDecoder(stream), codes.shape, 100), codes)


@both
def test_a_stream_is_the_same_alone_and_in_a_batch(context: IntegerContext) -> None:
    codes = some_codes((9, 48, 2, 3))
    together = encode_codes(context, codes.copy(), QUALITY, LaneEncoder(5), per_stream=2)
    for lane in range(5):
        part = codes[2 * lane : 2 * lane + 2].copy()
        assert encode_codes(context, part, QUALITY, LaneEncoder(1), per_stream=2) == [together[lane]]


@both
def test_encoding_twice_changes_nothing_more(context: IntegerContext) -> None:
    codes = some_codes((3, 48, 2, 3))
    first = encode_codes(context, codes, QUALITY, LaneEncoder(3))
    once = codes.copy()
    assert encode_codes(context, codes, QUALITY, LaneEncoder(3)) == first
    assert np.array_equal(codes, once)


def test_the_checksum_is_the_crc_of_the_codes_as_int32() -> None:
    codes = np.array([[[[1, -1]]], [[[300, 2**24]]]])
    content = b"\1\0\0\0" + b"\xff" * 4 + b"\x2c\1\0\0" + b"\0\0\0\1"
    assert codes_checksum(codes) == zlib.crc32(content)
    assert codes_checksum(codes.transpose(0, 3, 1, 2).transpose(0, 2, 3, 1)) == zlib.crc32(content)


# --- Sizes


@pytest.mark.parametrize("neighbours", [False, True], ids=["alone", "neighbours"])
@every_coder
def test_payloads_take_their_information_and_three_bytes(coder: Single, neighbours: bool) -> None:
    codec = trained_codec(neighbours=neighbours)
    engine = engine_of(codec)
    chance = np.random.default_rng(0)
    for quality, (height, width) in ((10, (8, 8)), (40, (16, 16)), (70, (40, 24))):
        images = np.repeat(np.repeat(chance.integers(0, 256, (1, 5, 3, 3), np.uint8), 8, axis=1), 8, axis=2)
        codes = engine.codes_of(images[:, :height, :width], quality, effort=1)
        (stream,) = encode_codes(engine.context, codes, quality, coder[0]())
        information = scalar_bits(engine.context, codes, quality) / 8
        allowed = 5.5 if coder is SINGLE["range"] else 3.5  # a checksum of 4 or 2 bytes; a byte that is not full
        assert len(stream) <= 1.01 * information + allowed


def test_payloads_take_their_information_and_three_bytes_on_average() -> None:
    engine = engine_of(trained_codec())
    codes = some_codes((100, 48, 2, 2))
    streams = encode_codes(engine.context, codes, QUALITY, LaneEncoder(100))
    assert sum(map(len, streams)) <= 1.01 * scalar_bits(engine.context, codes, QUALITY) / 8 + 3 * 100
    together = encode_codes(engine.context, codes, QUALITY, RangeEncoder(), per_stream=100)
    assert len(together[0]) <= 1.001 * scalar_bits(engine.context, codes, QUALITY) / 8 + 5


# --- Damage


def damages(stream: bytes, chance: np.random.Generator) -> list[bytes]:
    made = [stream[:length] for length in range(0, len(stream), 3)]
    made += [stream + b"\0", stream + chance.bytes(3), chance.bytes(len(stream)), b"", bytes(len(stream))]
    for bit in range(0, 8 * len(stream), 7):
        flipped = bytearray(stream)
        flipped[bit // 8] ^= 1 << bit % 8
        made.append(bytes(flipped))
    return made


@both
@every_coder
def test_damaged_streams_are_refused(context: IntegerContext, coder: Single) -> None:
    encoder, decoder = coder
    codes = some_codes((1, 48, 1, 2), seed=3)
    (stream,) = encode_codes(context, codes, QUALITY, encoder())
    for bad in damages(stream, np.random.default_rng(0)):
        with pytest.raises(CodecError, match="get both again"):
            decode_codes(context, decoder(bad), codes.shape, QUALITY)


@both
def test_other_settings_are_refused(context: IntegerContext) -> None:
    """A stream of another quality, of another grid, of another model."""
    codes = some_codes((1, 48, 2, 2), seed=3)
    (stream,) = encode_codes(context, codes, QUALITY, IntegerEncoder())
    other = integer_context(drawn_codec(seed=1, neighbours=context.neighbours).context)
    tried: list[tuple[IntegerContext, Shape, int]] = [
        (context, (1, 48, 2, 2), QUALITY + 30), (context, (1, 48, 2, 3), QUALITY), (other, (1, 48, 2, 2), QUALITY)
    ]  # fmt: skip
    for net, shape, quality in tried:
        with pytest.raises(CodecError, match="another model"):
            decode_codes(net, IntegerDecoder(stream), shape, quality)


def test_a_damaged_lane_is_named() -> None:
    context = CONTEXTS["alone"]
    codes = some_codes((4, 48, 1, 1))
    streams = encode_codes(context, codes, QUALITY, LaneEncoder(4))
    bad = bytearray(streams[2])
    bad[-1] ^= 1
    with pytest.raises(CodecError, match="stream 2 "):
        decode_codes(context, LaneDecoder([*streams[:2], bytes(bad), streams[3]]), codes.shape, QUALITY)
