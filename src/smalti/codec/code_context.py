"""Entropy coding of the codes of a VQ-VAE, with its context net in integers. Imports no torch.

The net is that of models/codec/code_context.py, in integers as in codec/context.py: weights with as many bits behind
the point as float32 sums allow, inputs and hidden units in units of 1/32. Its outputs are logits in units of 1/16, a:

    w_k = E[max a - a_k]                          E[d] = floor(2^24 exp(-d / 16)), filled by `decimal`
    c_k = k + floor((w_0 + ... + w_(k-1)) (2^16 - K) / (w_0 + ... + w_(K-1)))

The cumulative frequencies c of K symbols ascend strictly from 0 to 2^16. All products are below 2^52, where a quotient
in float64, rounded down, is that of the integers.
Order, in each stream: waves, then symbols, then the positions of the wave by rows (models/codec/code_symbols.py), then
the images of the stream. The checksum of a stream is the CRC-32 of its codes, (images, P, h, w) int32,
little-endian.
Layout: codes (N, P, h, w) and symbols (N, S, h, w), integers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, localcontext

import numpy as np

from smalti.codec.blas import one_blas_thread
from smalti.codec.context import LARGEST, POINT, IntegerLayer, integer_layer, rounded_bias
from smalti.codec.entropy import PRECISION, TOTAL, EntropyDecoder, EntropyEncoder, intervals
from smalti.codec.scalar import codes_checksum
from smalti.errors import CodecError, CodeRangeError
from smalti.models.codec.code_symbols import (
    ABOVE,
    LARGEST_ALPHABET,
    LEFT,
    NEIGHBOURS,
    RIGHT,
    low_size,
    symbol_sizes,
    waves,
)

LOGIT_POINT = 4  # bits behind the point of the logits
EXPONENTIAL_BITS = 24
ENTRIES = 2**20  # of the frequencies that are coded at once
CACHED = 2**16  # of the frequencies computed at once: several arrays of them fit a core's cache, which is twice as fast

_DOWN, _RIGHT = np.transpose(NEIGHBOURS)

Exchange = Callable[[np.ndarray, np.ndarray], np.ndarray]


@functools.cache
def exponentials() -> np.ndarray:
    """E[d] for d = 0, 1, ... up to the first 0."""
    with localcontext(prec=40):
        found = [1 << EXPONENTIAL_BITS]
        while found[-1]:
            found.append(int((1 << EXPONENTIAL_BITS) * (-Decimal(len(found)) / (1 << LOGIT_POINT)).exp()))
    return np.array(found, dtype=np.int64)


def cumulative_frequencies(logits: np.ndarray) -> np.ndarray:
    """(n, K) int32 logits in units of 1/16 -> (n, K + 1) int32, strictly ascending from 0 to 2^16."""
    count = logits.shape[1]
    below = np.subtract(logits.max(axis=1, keepdims=True), logits, dtype=np.intp)
    sums = np.zeros((len(logits), count + 1), dtype=np.int64)
    np.cumsum(exponentials().take(below, mode="clip"), axis=1, out=sums[:, 1:])
    shares = sums * float(TOTAL - count)
    shares /= sums[:, -1:]
    found = shares.astype(np.int32)  # rounded down, as none is negative
    found += np.arange(count + 1, dtype=np.int32)
    return found


class CodeContext:
    """The distribution of each symbol, given those coded before it, in integers.

    Args:
        tensors: weights of `CodeContextNet` (models/codec/code_context.py) by name.
        codebook_sizes: number of codes of each plane.

    Attributes:
        codebook_sizes: as given.
        sizes: number of values of each symbol.

    Raises:
        CodecError: weights are missing, of another shape, not finite or too large for exact sums.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], codebook_sizes: Sequence[int]) -> None:
        self.codebook_sizes, self.sizes = tuple(codebook_sizes), symbol_sizes(codebook_sizes)
        self._outputs = np.cumsum([0, *self.sizes])
        self._starts = self._outputs[:-1] + np.arange(len(self.sizes))  # rows of the table
        try:
            self._read(tensors)
        except (KeyError, IndexError, ValueError) as error:
            raise CodecError(f"the context net cannot be read ({error}); the model is damaged, get it again") from None

    def _read(self, tensors: Mapping[str, np.ndarray]) -> None:
        table, own = tensors["table"].astype(np.float64), tensors["own"]
        count, embedding = len(self.sizes), table.shape[1]
        if not np.isfinite(table).all():
            raise CodecError("the embeddings of the context net are NaN or infinite; train it again")
        self._table = np.clip(np.rint(np.ldexp(table, POINT)), -LARGEST, LARGEST).astype(np.float32)
        first = np.concatenate([tensors["around.weight"], *own], axis=1)
        self._first, self._first_bias = _layer(first, tensors["first_bias"])
        self._second, self._second_bias = _layer(tensors["second.weight"], tensors["second_bias"])
        self._around = len(NEIGHBOURS) * embedding
        self._last = []
        for start, end in zip(self._outputs[:-1], self._outputs[1:], strict=True):
            weights, bias = tensors["last"][start:end], tensors["last_bias"][None, start:end]
            self._last.append(_layer(weights, bias, shift=POINT - LOGIT_POINT))
        shapes = [self._table.shape, own.shape[:1], self._first_bias.shape[:1], tensors["last"].shape[:1]]
        if shapes != [(self._outputs[-1] + count, embedding), (count - 1,), (count,), (self._outputs[-1],)]:
            raise ValueError(f"its shapes are {shapes}")
        large = [size for size in self.codebook_sizes if size > LARGEST_ALPHABET]
        self._ranks = np.split(tensors["ranks"], np.cumsum(large)[:-1]) if large else []
        for ranks, size in zip(self._ranks, large, strict=True):
            if not np.array_equal(np.sort(ranks), np.arange(size)):
                raise ValueError("its ranks are no permutation")

    def symbols(self, codes: np.ndarray) -> np.ndarray:
        """(N, P, h, w) codes -> (N, S, h, w) int64 symbols.

        Raises:
            CodeRangeError: a code is outside of its plane's codebook, or there is another number of planes.
        """
        if codes.ndim != 4 or codes.shape[1] != len(self.codebook_sizes):
            raise CodeRangeError(f"codes have the shape {codes.shape}, not (N, {len(self.codebook_sizes)}, h, w)")
        found, large = [], iter(self._ranks)
        for plane, size in enumerate(self.codebook_sizes):
            values = codes[:, plane].astype(np.int64)
            if values.size and not 0 <= values.min() <= values.max() < size:
                raise CodeRangeError(f"plane {plane} holds codes outside of 0..{size - 1}; give codes of this model")
            if size > LARGEST_ALPHABET:
                ranks = next(large)[values]
                found += [ranks // low_size(size), ranks % low_size(size)]
            else:
                found.append(values)
        return np.stack(found, axis=1)

    def codes(self, symbols: np.ndarray) -> np.ndarray:
        """The inverse of `symbols`.

        Raises:
            CodecError: symbols stand for no code.
        """
        found, large, planes = [], iter(self._ranks), iter(np.moveaxis(symbols, 1, 0))
        for size in self.codebook_sizes:
            values = next(planes)
            if size > LARGEST_ALPHABET:
                values = values * low_size(size) + next(planes)
                if values.size and values.max() >= size:
                    raise CodecError("the compressed codes hold a code that does not exist; they are damaged")
                values = np.argsort(next(large))[values]
            found.append(values)
        return np.stack(found, axis=1)

    def around(self, padded: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """What the neighbours of positions contribute to the first layer.

        Args:
            padded: (N, S, h + 2, w + 3) rows of the table, from `padded`; those of later waves are not read.
            rows, columns: (D,) positions in the grid.

        Returns:
            (N * D, width) float32 integers.
        """
        chosen = padded[:, :, ABOVE + rows[:, None] + _DOWN, LEFT + columns[:, None] + _RIGHT]  # (N, S, D, neighbours)
        features = self._table[chosen[:, 0]]
        for index in range(1, len(self.sizes)):
            features += self._table[chosen[:, index]]
        np.clip(features, -LARGEST, LARGEST, out=features)
        return features.reshape(-1, self._around) @ self._first.weights[: self._around]

    def own(self, rows: np.ndarray, index: int) -> np.ndarray:
        """What a symbol contributes to the first layer of the later ones of its position: (n,) rows -> (n, width)."""
        embedding = self._table.shape[1]
        start = self._around + index * embedding
        return self._table[rows] @ self._first.weights[start : start + embedding]

    def cumulative(self, sums: np.ndarray, index: int) -> np.ndarray:
        """Cumulative frequencies of a symbol.

        Args:
            sums: (n, width) of `around`, and of `own` of all earlier symbols.
            index: number of the symbol.

        Returns:
            (n, K + 1) int32, strictly ascending from 0 to 65536.
        """
        found = np.empty((len(sums), self.sizes[index] + 1), dtype=np.int32)
        part = max(1, CACHED // self.sizes[index])
        for start in range(0, len(sums), part):
            found[start : start + part] = cumulative_frequencies(self._logits(sums[start : start + part], index))
        return found

    def _logits(self, sums: np.ndarray, index: int) -> np.ndarray:
        """(n, width) sums as in `cumulative` -> (n, K) int32."""
        hidden = _units(sums + self._first_bias[index], self._first)
        hidden = _units(hidden @ self._second.weights + self._second_bias[index], self._second)
        layer, bias = self._last[index]
        return layer.shifted(hidden @ layer.weights + bias[0], POINT - LOGIT_POINT).astype(np.int32)

    def padded(self, symbols: np.ndarray) -> np.ndarray:
        """Rows of the table for (N, S, h, w) symbols, surrounded by those of outside: (N, S, h + 2, w + 3)."""
        count, _, height, width = symbols.shape
        outside = (self._starts + self.sizes)[:, None, None]
        found = np.broadcast_to(outside, (count, len(self.sizes), height + ABOVE, width + LEFT + RIGHT)).copy()
        found[:, :, ABOVE:, LEFT : LEFT + width] = symbols + self._starts[:, None, None]
        return found

    def walk(self, symbols: np.ndarray, exchange: Exchange) -> None:
        """Pass all symbols in coding order.

        Args:
            symbols: (N, S, h, w); changed to what `exchange` returns.
            exchange: given (N, n, K + 1) cumulative frequencies of n positions and a copy of their symbols, (N, n),
                which need not be known yet; returns the symbols.
        """
        count, _, height, width = symbols.shape
        padded = self.padded(symbols)
        for rows, columns in waves(height, width):
            sums = self.around(padded, rows, columns)
            for index, size in enumerate(self.sizes):
                part = max(1, ENTRIES // max(count * size, 1))
                for start in range(0, len(rows), part):
                    place = (slice(None), index, rows[start : start + part], columns[start : start + part])
                    chosen = sums.reshape(count, len(rows), -1)[:, start : start + part]
                    tables = self.cumulative(chosen.reshape(-1, sums.shape[1]), index)
                    symbols[place] = exchange(tables.reshape(count, -1, size + 1), symbols[place])
                known = symbols[:, index, rows, columns] + self._starts[index]
                padded[:, index, ABOVE + rows, LEFT + columns] = known
                if index < len(self.sizes) - 1:
                    sums += self.own(known.ravel(), index)

    def information(self, codes: np.ndarray) -> np.ndarray:
        """Bits that the codes of each image take, -sum log2(f / 65536): (N, P, h, w) -> (N,) float64.

        Raises:
            CodeRangeError: as `symbols`.
        """
        bits = np.zeros(len(codes))

        def count(tables: np.ndarray, known: np.ndarray) -> np.ndarray:
            bits[:] += (PRECISION - np.log2(intervals(tables, known)[1])).sum(axis=1)
            return known

        self.walk(self.symbols(codes), count)
        return bits


def encode_codes(
    context: CodeContext, codes: np.ndarray, encoder: EntropyEncoder, *, per_stream: int = 1
) -> list[bytes]:
    """Encode codes with an encoder of ceil(N / per_stream) lanes.

    Args:
        codes: (N, P, h, w) integers, N > 0.
        per_stream: images in a stream; the last stream may have fewer.

    Returns:
        One byte string a stream.

    Raises:
        CodeRangeError: a code is outside of its plane's codebook, or there is another number of planes.
    """
    symbols, streams = context.symbols(codes), _Streams(len(codes), per_stream, encoder.lanes)

    def put(tables: np.ndarray, known: np.ndarray) -> np.ndarray:
        encoder.put_dynamic(streams.tables(tables), streams.joined(known, 0))
        return known

    with one_blas_thread():
        context.walk(symbols, put)
    return encoder.finish(_checksums(codes, per_stream))


def decode_codes(
    context: CodeContext, decoder: EntropyDecoder, count: int, grid: tuple[int, int], *, per_stream: int = 1
) -> np.ndarray:
    """Invert `encode_codes`.

    Args:
        count: N, number of images in all streams.
        grid: (h, w).

    Returns:
        (N, P, h, w) int64.

    Raises:
        CodecError: a stream is damaged, or was made with another model.
    """
    symbols = np.zeros((count, len(context.sizes), *grid), dtype=np.int64)
    streams = _Streams(count, per_stream, decoder.lanes)

    def take(tables: np.ndarray, _: np.ndarray) -> np.ndarray:
        return streams.parted(decoder.take_dynamic(streams.tables(tables)))

    with one_blas_thread():
        context.walk(symbols, take)
    codes = context.codes(symbols)
    decoder.finish(_checksums(codes, per_stream))
    return codes


class _Streams:
    """Images coded side by side and, in a stream, one after the other at each position."""

    def __init__(self, count: int, per_stream: int, lanes: int) -> None:
        assert count > 0
        assert lanes == -(-count // per_stream)
        self._count, self._lanes, self._per_stream = count, lanes, min(per_stream, count)
        self._missing = self._lanes * self._per_stream - count  # at the end of the last stream

    def tables(self, tables: np.ndarray) -> np.ndarray:
        """`joined` cumulative frequencies: symbol 0 is certain where an image is missing."""
        certain = np.full(tables.shape[2], TOTAL, dtype=tables.dtype)
        certain[0] = 0
        return self.joined(tables, certain)

    def joined(self, values: np.ndarray, missing: np.ndarray | int) -> np.ndarray:
        """What images have at n positions, (N, n, ...) -> the same in coding order, (lanes, n * images, ...)."""
        if self._missing:
            rest = np.broadcast_to(missing, (self._missing, *values.shape[1:]))
            values = np.concatenate([values, rest], dtype=values.dtype)
        parts = values.reshape(self._lanes, self._per_stream, *values.shape[1:]).swapaxes(1, 2)
        return parts.reshape(self._lanes, -1, *values.shape[2:])

    def parted(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `joined` for (lanes, n * images)."""
        parts = values.reshape(self._lanes, -1, self._per_stream).swapaxes(1, 2)
        return parts.reshape(self._lanes * self._per_stream, -1)[: self._count]


def _checksums(codes: np.ndarray, per_stream: int) -> np.ndarray:
    """CRC-32 of the codes of each stream, (lanes,) int64."""
    parts = (codes[start : start + per_stream] for start in range(0, len(codes), per_stream))
    return np.array([codes_checksum(part) for part in parts], dtype=np.int64)


def _layer(weights: np.ndarray, biases: np.ndarray, *, shift: int = 0) -> tuple[IntegerLayer, np.ndarray]:
    """An exact layer with inputs up to 255, and each symbol's biases, (symbols, outputs) -> the same in its units."""
    biases = biases.astype(np.float64)
    layer = integer_layer(weights, np.full(weights.shape[1], LARGEST), np.abs(biases).max(axis=0), point=POINT)
    return layer, np.stack([rounded_bias(bias, layer, shift) for bias in biases])


def _units(sums: np.ndarray, layer: IntegerLayer) -> np.ndarray:
    """Hidden units: rounded, 0 to 255."""
    return np.clip(layer.shifted(sums, 0), 0, LARGEST)
