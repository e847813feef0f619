"""Lossless planes: the alpha channel beside a colour codec, and the difference to the exact picture.

    alpha       filter byte (0 none, 1 left, 2 up) | raw deflate of the filtered samples
    difference  length of the scales, varint | scales, raw deflate | low bits, band by band | range-coded stream

The difference between the stored pixels and a prediction is cut into blocks of 8 x 8 pixels of one channel. Each block
has a scale of the grid in models/codec/grid.py; its values are coded with the row of that scale, mean 0 and the lowest
spike. Where the scale is beyond the grid, as it often is with 16 bits, the values are first divided by a power of two,
and the low bits are stored as they are. A band of blocks is coded at once, so that memory is bounded. The prediction
must be the same on every machine, so it is the linear synthesis in integers (`linear_levels`), not what the float
decoder makes. Layout: (H, W, C). Imports no torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from decimal import Decimal, localcontext

import numpy as np

from smalti.codec.fields import Fields, varint
from smalti.codec.range_coder import RangeDecoder, RangeEncoder
from smalti.codec.tables import SCALES, row_numbers, scalar_tables
from smalti.errors import CodecError
from smalti.models.codec.grid import LOG_SCALE_LOW, SCALE_UNITS

BLOCK = 8
BAND = 1 << 14  # blocks that are coded at once, but at least one row of them
LARGEST_SHIFT = 9  # low bits of a value; the scale of differences of 16 bits is at most 2^14.5
BASIS_POINT, STEP_POINT = 14, 16  # bits behind the point of the basis and of the step
LARGEST_SUM = 2.0**28  # of basis and codes: 2^14 steps; real pictures stay far below, and all products below 2^63


def encode_alpha(alpha: np.ndarray) -> bytes:
    """(H, W) uint8 or uint16 -> bytes."""
    stored = alpha.dtype.newbyteorder("<")
    options = [bytes([kind]) + _deflate(_filtered(alpha, kind).astype(stored)) for kind in range(3)]
    return min(options, key=len)


def decode_alpha(data: bytes, height: int, width: int, bit_depth: int) -> np.ndarray:
    """Invert `encode_alpha`.

    Raises:
        CodecError: the data are damaged.
    """
    kind, dtype = (data[0] if data else 255), np.dtype("<u1" if bit_depth == 8 else "<u2")
    if kind > 2:
        raise CodecError("the alpha plane has an unknown filter; the file is damaged, get it again")
    raw = _inflate(data[1:], height * width * dtype.itemsize, "alpha plane")
    plane = np.frombuffer(raw, dtype=dtype).reshape(height, width).astype(np.uint8 if bit_depth == 8 else np.uint16)
    return plane if kind == 0 else np.cumsum(plane, axis=2 - kind, dtype=plane.dtype)


def _filtered(plane: np.ndarray, kind: int) -> np.ndarray:
    if kind == 0:
        return plane
    axis = 2 - kind  # left: along the columns
    return np.diff(plane, axis=axis, prepend=np.zeros_like(plane).take([0], axis=axis))


def encode_difference(difference: np.ndarray, bit_depth: int) -> bytes:
    """Encode pixels minus their prediction: see `difference_to`.

    Args:
        difference: (H, W, C) integers; only their residue modulo 2^bit_depth is kept.
    """
    encoder, scales, low, check = RangeEncoder(), [], [], 0
    for rows, _ in _bands(difference.shape):
        values = _centred(difference[rows], bit_depth)
        blocks, inside = _blocks(values), _inside(values.shape)
        scales.append(_scales(blocks))
        shifts = _shifts(scales[-1])
        raised = blocks + _middle(shifts)
        high = raised >> shifts[:, None]
        encoder.put(scalar_tables(), _rows(scales[-1], inside), high.reshape(1, -1))
        low.append(_low_bits(raised - (high << shifts[:, None]), shifts, inside))
        check = zlib.crc32(np.ascontiguousarray(values, dtype="<i4").data, check)
    side = _deflate(np.concatenate(scales))
    (stream,) = encoder.finish(np.array([check]))
    return varint(len(side)) + side + b"".join(low) + stream


def decode_difference(data: bytes, shape: tuple[int, int, int], bit_depth: int) -> np.ndarray:
    """Invert `encode_difference`: (H, W, C) int32.

    Raises:
        CodecError: the data are damaged.
    """
    fields = Fields(data, "the exact difference")
    side = fields.take(fields.varint("the length of the scales", 0, len(data)), "the scales")
    count = -(-shape[0] // BLOCK) * -(-shape[1] // BLOCK) * shape[2]
    scales = np.frombuffer(_inflate(side, count, "exact difference"), dtype=np.uint8)
    if scales.size and scales.max() >= SCALES + SCALE_UNITS * LARGEST_SHIFT:
        raise CodecError("the exact difference has an unknown scale; the file is damaged, get it again")
    values, check = np.empty(shape, dtype=np.int32), 0
    bands = [(rows, _shifts(scales[blocks]), scales[blocks]) for rows, blocks in _bands(shape)]
    size = sum(_low_size(shifts, _inside(values[rows].shape)) for rows, shifts, _ in bands)
    low_fields = Fields(fields.take(size, "the low bits"), fields.source)
    decoder = RangeDecoder(fields.take(fields.left, "the stream"))
    for rows, shifts, some in bands:
        inside = _inside(values[rows].shape)
        high = decoder.take(scalar_tables(), _rows(some, inside)).reshape(-1, BLOCK * BLOCK)
        blocks = (high << shifts[:, None]) + _read_low_bits(low_fields, shifts, inside) - _middle(shifts)
        values[rows] = _pixels(blocks, values[rows].shape)
        check = zlib.crc32(np.ascontiguousarray(values[rows], dtype="<i4").data, check)
    decoder.finish(np.array([check]))
    return values


def difference_to(prediction: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Pixels minus their prediction, (H, W, C) int32.

    Args:
        prediction: (H, W, C) levels of `linear_levels`; with four channels the colours are premultiplied.
        pixels: (H, W, C) uint8 or uint16.
    """
    levels = pixels.astype(np.int32)
    return levels - _divided(prediction, levels[..., 3:], np.iinfo(pixels.dtype).max)


def restored(prediction: np.ndarray, difference: np.ndarray, bit_depth: int) -> np.ndarray:
    """The exact pixels: (H, W, C) uint8 or uint16; inverts `difference_to`."""
    top = (1 << bit_depth) - 1
    alpha = (prediction[..., 3:] + difference[..., 3:]) & top
    levels = (_divided(prediction, alpha, top) + difference) & top
    return levels.astype(np.uint8 if bit_depth == 8 else np.uint16)


def _divided(prediction: np.ndarray, alpha: np.ndarray, top: int) -> np.ndarray:
    """A prediction whose colours, if there are four channels, are divided by the exact alpha (H, W, 1)."""
    if prediction.shape[2] != 4:
        return prediction
    colours = (prediction[..., :3].astype(np.int64) * top + alpha // 2) // np.maximum(alpha, 1)
    exact = np.where(alpha > 0, np.minimum(colours, top), 0).astype(np.int32)
    return np.concatenate([exact, prediction[..., 3:]], axis=2)


def linear_levels(
    basis: np.ndarray, mean: np.ndarray, codes: np.ndarray, step_index: int, bit_depth: int
) -> np.ndarray:
    """The linear synthesis of codes in integers, the same on every machine.

    Args:
        basis: (D, C * S * S) float; `mean` (C, S, S) float.
        codes: (D, h, w) int32.
        step_index: quality of the codes.

    Returns:
        (h * S, w * S, C) int32 levels, 0 to 2^bit_depth - 1.

    Raises:
        CodecError: the codes are beyond all pictures.
    """
    channels, side, _ = mean.shape
    _, height, width = codes.shape
    whole = np.rint(np.ldexp(basis.astype(np.float64), BASIS_POINT))
    level_one = 1 << (BASIS_POINT + STEP_POINT)
    offset = np.rint(np.ldexp(mean.astype(np.float64), BASIS_POINT + STEP_POINT)).astype(np.int64).ravel()
    step, top = step_integer(step_index), (1 << bit_depth) - 1
    levels = np.empty((height, side, width, side, channels), dtype=np.int32)
    for row in range(height):
        # Exact in float64: every sum is an integer below 2^53.
        sums = codes[:, row].T.astype(np.float64) @ whole
        if np.abs(sums).max() >= LARGEST_SUM:
            raise CodecError("the codes are beyond all pictures; the file is damaged, get it again")
        values = sums.astype(np.int64) * step + offset
        rounded = ((values + level_one) * top + level_one) >> (BASIS_POINT + STEP_POINT + 1)
        levels[row] = rounded.clip(0, top).reshape(width, channels, side, side).transpose(2, 0, 3, 1)
    return levels.reshape(height * side, width * side, channels)


def step_integer(step_index: int) -> int:
    """The quantisation step 2^(1 - quality/16) in units of 2^-16."""
    with localcontext(prec=40):
        exponent = 1 - Decimal(step_index) / 16
        return int((exponent * Decimal(2).ln()).exp() * (1 << STEP_POINT) + Decimal("0.5"))


def _centred(difference: np.ndarray, bit_depth: int) -> np.ndarray:
    half = 1 << (bit_depth - 1)
    return (((difference.astype(np.int64) + half) & (2 * half - 1)) - half).astype(np.int32)


def _blocks(values: np.ndarray) -> np.ndarray:
    """(H, W, C) -> (blocks, 64), padded with the last row and column; by rows, columns, channels."""
    height, width, channels = values.shape
    padded = np.pad(values, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)), mode="edge")
    down, right = padded.shape[0] // BLOCK, padded.shape[1] // BLOCK
    return padded.reshape(down, BLOCK, right, BLOCK, channels).transpose(0, 2, 4, 1, 3).reshape(-1, BLOCK * BLOCK)


def _pixels(blocks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Invert `_blocks`."""
    height, width, channels = shape
    down, right = -(-height // BLOCK), -(-width // BLOCK)
    whole = blocks.reshape(down, right, channels, BLOCK, BLOCK).transpose(0, 3, 1, 4, 2)
    return whole.reshape(down * BLOCK, right * BLOCK, channels)[:height, :width]


def _bands(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Rows of pixels, and blocks, that are coded at once."""
    height, width, channels = shape
    across, down = -(-width // BLOCK) * channels, -(-height // BLOCK)
    size = max(1, BAND // across)
    for top in range(0, down, size):
        end = min(top + size, down)
        yield slice(top * BLOCK, min(end * BLOCK, height)), slice(top * across, end * across)


def _inside(shape: tuple[int, ...]) -> np.ndarray:
    """Which values of the blocks are in the picture, (blocks, 64) bool; the others are not coded."""
    height, width, channels = shape
    down, right = np.arange(height + -height % BLOCK), np.arange(width + -width % BLOCK)
    return _blocks(np.repeat(((down < height)[:, None] & (right < width))[..., None], channels, axis=2))


def _scales(blocks: np.ndarray) -> np.ndarray:
    """The scale of each block, (blocks,) uint8."""
    # The scale of a logistic is about .7 of the mean distance from its centre.
    spread = 0.72 * np.abs(blocks).mean(axis=1)
    scales = np.rint((np.log2(np.maximum(spread, 2.0**LOG_SCALE_LOW)) - LOG_SCALE_LOW) * SCALE_UNITS)
    return np.clip(scales, 0, SCALES - 1 + SCALE_UNITS * LARGEST_SHIFT).astype(np.uint8)


def _rows(scales: np.ndarray, inside: np.ndarray) -> np.ndarray:
    zero = np.zeros(len(scales), dtype=np.int64)
    rows, _ = row_numbers(zero, scales - SCALE_UNITS * _shifts(scales), zero)
    return np.where(inside, rows[:, None], -1).reshape(1, -1)


def _shifts(scales: np.ndarray) -> np.ndarray:
    """Numbers of low bits that bring scales into the grid, (blocks,) int32."""
    beyond = scales.astype(np.int32) - (SCALES - 1)
    return np.maximum(-(-beyond // SCALE_UNITS), 0)


def _middle(shifts: np.ndarray) -> np.ndarray:
    """What is added before low bits are cut off, so that values are rounded: (blocks, 1)."""
    return ((1 << shifts) >> 1)[:, None]


def _low_bits(low: np.ndarray, shifts: np.ndarray, inside: np.ndarray) -> bytes:
    """(blocks, 64) -> a plane of bits for each place, the highest first, of the values that have it."""
    planes = ((low[(shifts > place)[:, None] & inside] >> place) & 1 for place in reversed(range(LARGEST_SHIFT)))
    return b"".join(np.packbits(plane).tobytes() for plane in planes)


def _low_size(shifts: np.ndarray, inside: np.ndarray) -> int:
    """Bytes of `_low_bits`."""
    counts = inside.sum(axis=1)
    return sum(-(-int(counts[shifts > place].sum()) // 8) for place in range(LARGEST_SHIFT))


def _read_low_bits(fields: Fields, shifts: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Invert `_low_bits`."""
    low = np.zeros(inside.shape, dtype=np.int32)
    for place in reversed(range(LARGEST_SHIFT)):
        there = (shifts > place)[:, None] & inside
        count = int(there.sum())
        stored = np.frombuffer(fields.take(-(-count // 8), "the low bits"), dtype=np.uint8)
        low[there] |= np.unpackbits(stored)[:count].astype(np.int32) << place
    return low


def _deflate(array: np.ndarray) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(np.ascontiguousarray(array).tobytes()) + packer.flush()


def _inflate(data: bytes, size: int, name: str) -> bytes:
    """Raw deflate of exactly `size` bytes."""
    unpacker = zlib.decompressobj(-15)
    try:
        raw = unpacker.decompress(data, size + 1)
    except zlib.error:
        raw = b""
    if len(raw) != size or unpacker.unconsumed_tail or unpacker.unused_data or not unpacker.eof:
        raise CodecError(f"the {name} does not unpack to {size:,} bytes; the file is damaged, get it again")
    return raw
