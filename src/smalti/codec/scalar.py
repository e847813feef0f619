"""Payload of the transform codec: integer coefficients of tiles, entropy coded with the integer context net.

The coefficients are coded in the passes of `IntegerContext`: group by group, and with neighbours first the even and
then the odd tiles of each group. Inside a pass they follow image by image, tile by tile in rows, coefficient by
coefficient. A stream holds one or more images of one size and quality; several streams are coded side by side, as
lanes. The checksum of a stream is the CRC-32 of its codes as little-endian int32 in the layout (images, D, h, w).

Decoding is therefore exact on every machine; the pixels that codes stand for are not part of the payload.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from smalti.codec.context import IntegerContext
from smalti.codec.entropy import EntropyDecoder, EntropyEncoder, information_content
from smalti.codec.tables import scalar_tables


def codes_checksum(codes: np.ndarray) -> int:
    """CRC-32 of codes."""
    return zlib.crc32(np.ascontiguousarray(codes, dtype="<i4"))


def encode_codes(
    context: IntegerContext, codes: np.ndarray, quality: int, encoder: EntropyEncoder, *, per_stream: int = 1
) -> list[bytes]:
    """Encode codes with an encoder of ceil(B / per_stream) lanes.

    Args:
        codes: (B, D, h, w) integers.
        quality: step index of all of them, 0 to 127.
        per_stream: images in a stream; the last stream may have fewer.

    Returns:
        One byte string a stream.
    """
    whole = np.ascontiguousarray(codes, dtype=np.int32)
    tables = scalar_tables()
    flat = whole.transpose(0, 2, 3, 1).reshape(-1, whole.shape[1])
    levels = np.full(len(whole), quality)
    for group, phase in context.passes:
        rows, shifts = context.rows(whole, levels, group, phase)
        tiles = context.tiles(len(whole), *whole.shape[2:], phase)
        values = flat[tiles, context.bounds[group] : context.bounds[group + 1]] - shifts
        encoder.put(
            tables,
            _lanes(rows, len(whole), per_stream, encoder.lanes, -1),
            _lanes(values, len(whole), per_stream, encoder.lanes, 0),
        )
    parts = [whole[start : start + per_stream] for start in range(0, len(whole), per_stream)]
    return encoder.finish(np.array([codes_checksum(part) for part in parts], dtype=np.int64))


def decode_codes(
    context: IntegerContext, decoder: EntropyDecoder, shape: tuple[int, int, int, int], quality: int, *,
    per_stream: int = 1,
) -> np.ndarray:  # fmt: skip
    """Invert `encode_codes`.

    Args:
        shape: (B, D, h, w).

    Returns:
        (B, D, h, w) int32.

    Raises:
        CodecError: a stream is damaged.
    """
    codes = np.zeros(shape, dtype=np.int32)
    flat = np.zeros((shape[0] * shape[2] * shape[3], shape[1]), dtype=np.int32)
    tables, levels = scalar_tables(), np.full(shape[0], quality)
    for group, phase in context.passes:
        rows, shifts = context.rows(codes, levels, group, phase)
        tiles = context.tiles(shape[0], *shape[2:], phase)
        taken = decoder.take(tables, _lanes(rows, shape[0], per_stream, decoder.lanes, -1))
        start, end = context.bounds[group], context.bounds[group + 1]
        values = taken.reshape(-1, end - start)[: len(tiles)].astype(np.int64) + shifts
        # A damaged stream may decode to anything; the checksum finds it, numbers just have to stay numbers.
        flat[tiles, start:end] = np.clip(values, -(2**24), 2**24)
        codes[:, start:end] = flat[:, start:end].reshape(shape[0], *shape[2:], -1).transpose(0, 3, 1, 2)
    parts = [codes[start : start + per_stream] for start in range(0, len(codes), per_stream)]
    decoder.finish(np.array([codes_checksum(part) for part in parts], dtype=np.int64))
    return codes


def scalar_bits(context: IntegerContext, codes: np.ndarray, quality: int) -> float:
    """Information content of codes (B, D, h, w) in bits, by the tables that code them."""
    whole = np.ascontiguousarray(codes, dtype=np.int32)
    flat = whole.transpose(0, 2, 3, 1).reshape(-1, whole.shape[1])
    total = 0.0
    for group, phase in context.passes:
        rows, shifts = context.rows(whole, np.full(len(whole), quality), group, phase)
        tiles = context.tiles(len(whole), *whole.shape[2:], phase)
        values = flat[tiles, context.bounds[group] : context.bounds[group + 1]] - shifts
        total += information_content(scalar_tables(), rows, values)
    return total


def streams_of(count: int, per_stream: int) -> int:
    """Number of streams for some images."""
    return -(-count // per_stream)


def _lanes(values: np.ndarray, images: int, per_stream: int, lanes: int, fill: int) -> np.ndarray:
    """(images * tiles, n) -> (lanes, per_stream * tiles * n), filled where the last lane has fewer images."""
    tiles = len(values) // images
    missing = lanes * per_stream - images
    if missing:
        filling = np.full((missing * tiles, values.shape[1]), fill, dtype=values.dtype)
        values = np.concatenate([values, filling])
    return values.reshape(lanes, -1)


def stream_sizes(streams: Sequence[bytes]) -> int:
    """Bytes of some streams."""
    return sum(map(len, streams))
