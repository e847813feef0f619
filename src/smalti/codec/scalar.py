"""Payload of the transform codec: integer coefficients of tiles, entropy coded with the integer context net.

The coefficients are coded in the passes of `IntegerContext`: group by group, and with neighbours first the even and
then the odd tiles of each group. Inside a pass they follow image by image, tile by tile in rows, coefficient by
coefficient. A stream holds one or more images of one size and quality; several streams are coded side by side, as
lanes. The checksum of a stream is the CRC-32 of its codes as little-endian int32 in the layout (images, D, h, w).

Decoding is therefore exact on every machine; the pixels that codes stand for are not part of the payload.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator

import numpy as np

from smalti.codec.blas import one_blas_thread
from smalti.codec.context import IntegerContext
from smalti.codec.entropy import EntropyDecoder, EntropyEncoder, information_content
from smalti.codec.tables import scalar_tables

LARGEST = 1 << 24  # of a code, in a damaged stream
FEW_TILES = 256  # whose matrix products are faster on one thread


def codes_checksum(codes: np.ndarray) -> int:
    """CRC-32 of codes."""
    return zlib.crc32(np.ascontiguousarray(codes, dtype="<i4").data)


def encode_codes(
    context: IntegerContext, codes: np.ndarray, quality: int, encoder: EntropyEncoder, *, per_stream: int = 1
) -> list[bytes]:
    """Encode codes with an encoder of ceil(B / per_stream) lanes.

    Args:
        codes: (B, D, h, w) int32; changed as by `exclude_codes`.
        quality: step index of all of them, 0 to 127.
        per_stream: images in a stream; the last stream may have fewer.

    Returns:
        One byte string a stream.
    """
    for rows, values in _excluding(context, codes, quality):
        packing = _Packing(rows, len(codes), per_stream, encoder.lanes)
        encoder.put(scalar_tables(), packing.pack(rows, -1), packing.pack(values, 0))
    return encoder.finish(_checksums(codes, per_stream))


def exclude_codes(context: IntegerContext, codes: np.ndarray, quality: int) -> None:
    """Set codes (B, D, h, w) that the context net excludes to zero, in place: see `IntegerContext`."""
    for _ in _excluding(context, codes, quality):
        pass


def _excluding(context: IntegerContext, codes: np.ndarray, quality: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and values relative to them, pass by pass; codes that are excluded become zero."""
    levels = np.full(len(codes), quality)
    for group, phase in context.passes:
        with _threads(codes.shape):
            rows, shifts = context.rows(codes, levels, group, phase)
        place = _Pass(context, codes.shape, group, phase)
        values = np.where(rows < 0, 0, place.read(codes))
        place.write(codes, values)
        yield rows, values - shifts


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
    levels = np.full(shape[0], quality)
    for group, phase in context.passes:
        with _threads(shape):
            rows, shifts = context.rows(codes, levels, group, phase)
        packing = _Packing(rows, shape[0], per_stream, decoder.lanes)
        values = packing.unpack(decoder.take(scalar_tables(), packing.pack(rows, -1))).astype(np.int64)
        # A damaged stream may decode to anything; the checksum finds it, numbers just have to stay numbers.
        values = np.where(rows < 0, 0, np.clip(values + shifts, -LARGEST, LARGEST))
        _Pass(context, shape, group, phase).write(codes, values)
    decoder.finish(_checksums(codes, per_stream))
    return codes


def _threads(shape: tuple[int, ...]) -> contextlib.AbstractContextManager[None]:
    """One thread for products of few rows, that is, tiles."""
    return one_blas_thread() if shape[0] * shape[2] * shape[3] <= FEW_TILES else contextlib.nullcontext()


class _Pass:
    """The coefficients that a pass codes, as (tiles, coefficients)."""

    def __init__(self, context: IntegerContext, shape: tuple[int, ...], group: int, phase: int) -> None:
        self.tiles = context.tiles(shape[0], shape[2], shape[3], phase)
        self.group = slice(context.bounds[group], context.bounds[group + 1])

    def read(self, codes: np.ndarray) -> np.ndarray:
        part = codes[:, self.group].transpose(0, 2, 3, 1)
        chosen: np.ndarray = part.reshape(-1, part.shape[3])[self.tiles]
        return chosen

    def write(self, codes: np.ndarray, values: np.ndarray) -> None:
        part = codes[:, self.group].transpose(0, 2, 3, 1)
        flat = part.reshape(-1, part.shape[3])  # a copy
        flat[self.tiles] = values
        codes[:, self.group] = flat.reshape(part.shape).transpose(0, 3, 1, 2)


class _Packing:
    """Values of a pass side by side as lanes, without those that are not coded.

    Args:
        rows: (tiles of all images, n), negative where nothing is coded.
    """

    def __init__(self, rows: np.ndarray, images: int, per_stream: int, lanes: int) -> None:
        tiles = len(rows) // images
        self.shape, self.missing = rows.shape, (lanes * per_stream - images) * tiles
        self.coded = self._lanes(rows, -1, lanes) >= 0
        self.position = np.cumsum(self.coded, axis=1)[self.coded] - 1
        self.lane = np.nonzero(self.coded)[0]
        self.lanes, self.columns = lanes, int(self.position.max(initial=-1)) + 1

    def pack(self, values: np.ndarray, fill: int) -> np.ndarray:
        """(tiles, n) -> (lanes, columns)."""
        packed = np.full((self.lanes, self.columns), fill, dtype=np.int64)
        packed[self.lane, self.position] = self._lanes(values, fill, self.lanes)[self.coded]
        return packed

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """(lanes, columns) -> (tiles, n), zero where nothing is coded."""
        values = np.zeros(self.coded.shape, dtype=packed.dtype)
        values[self.coded] = packed[self.lane, self.position]
        return values.reshape(-1, self.shape[1])[: self.shape[0]]

    def _lanes(self, values: np.ndarray, fill: int, lanes: int) -> np.ndarray:
        if self.missing:
            filling = np.full((self.missing, self.shape[1]), fill, dtype=values.dtype)
            values = np.concatenate([values, filling])
        return values.reshape(lanes, -1)


def _checksums(codes: np.ndarray, per_stream: int) -> np.ndarray:
    parts = (codes[start : start + per_stream] for start in range(0, len(codes), per_stream))
    return np.array([codes_checksum(part) for part in parts], dtype=np.int64)


def scalar_bits(context: IntegerContext, codes: np.ndarray, quality: int) -> float:
    """Information content of codes (B, D, h, w) in bits, by the tables that code them."""
    total = 0.0
    for group, phase in context.passes:
        rows, shifts = context.rows(codes, np.full(len(codes), quality), group, phase)
        values = _Pass(context, codes.shape, group, phase).read(codes) - shifts
        total += information_content(scalar_tables(), rows, np.where(rows < 0, 0, values))
    return total


def streams_of(count: int, per_stream: int) -> int:
    """Number of streams for some images."""
    return -(-count // per_stream)
