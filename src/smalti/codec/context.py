"""The context net in integers: the same rows of frequencies on every machine. Imports no torch.

A weight row w becomes round(w 2^s). Its inputs are integers, so a sum is an integer, and it is exact in float32 in any
order of summation if no partial sum can reach 2^24. s is the largest exponent for which that is certain:

    sum_i |round(w_i 2^s)| max|x_i| + |bias| < 2^24

Biases that depend on the quality are computed in float64, product by product, and rounded. Hidden units are integers
in units of 1/32, 0 to 255: h = floor((sum + bias) 2^-s + 1/2) clipped, a shift. The outputs are indices of the
parameter grid (models/codec/grid.py). Float weights in, integers out, by operations that IEEE 754 rounds in one way
(products with powers of two, rounding to integer), so only the weights are stored.

A coefficient whose scale is the lowest of the grid and whose mean rounds to zero is excluded: it is zero and not coded
(row -1). That saves half of the time and 10^-4 bits for each, which is the least that a row of the tables takes.

The net itself and its inputs: models/codec/context.py. Source: Balle et al. 2019, "Integer networks for data
compression with latent-variable models".

Layout: codes (B, D, h, w) int32; rows of a net are tiles in the order (b, y, x).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from smalti.codec.tables import SCALES, SPIKES, row_numbers
from smalti.errors import CodecError
from smalti.models.codec.grid import LOG_SCALE_LOW, MEAN_UNITS, SCALE_UNITS, SPIKE_LOW, SPIKE_UNITS

POINT = 5  # bits behind the point of inputs and hidden units
LARGEST = 255  # of an input or hidden unit
EXACT = 1 << 24  # float32 holds all integers below
FINEST = 14  # largest s
LINEAR, LINEAR_POINT = 16, 6  # coefficients in the linear part of the mean; its weights are stored times 2^6
LARGEST_LINEAR = 2047
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
EDGES = (1, 3, 4, 6)
LARGEST_T = 3.0  # |t| of all qualities 0 to 127 is below

_MAGNITUDES = np.array(
    [min(LARGEST, 32 * (n.bit_length() - 1) + ((n - p) * 64 + p) // (2 * p))
     for n in range(1, 257) for p in [1 << (n.bit_length() - 1)]], dtype=np.float32
)  # fmt: skip


@dataclass(frozen=True)
class IntegerLayer:
    """An exact linear layer: weights (inputs, outputs) with integer values, and s of each output."""

    weights: np.ndarray
    exponents: np.ndarray

    def shifted(self, sums: np.ndarray, extra: np.ndarray | int) -> np.ndarray:
        """floor(sums 2^-(s + extra)), exact: a product with a power of two."""
        scales = np.ldexp(np.float32(1), -(self.exponents + extra))
        return np.floor(sums * scales, out=sums)


def integer_layer(weights: np.ndarray, largest: np.ndarray, bias_bound: np.ndarray, *, point: int) -> IntegerLayer:
    """Round weights as finely as float32 sums allow.

    Args:
        weights: (outputs, inputs).
        largest: (inputs,) bounds of |x|, integers.
        bias_bound: (outputs,) bounds of the bias, in real units; with `point` bits behind the point of the inputs.

    Raises:
        CodecError: the weights are not finite or so large that no exponent fits.
    """
    weights = weights.astype(np.float64)
    if not (np.isfinite(weights).all() and np.isfinite(bias_bound).all()):
        raise CodecError("the context net holds NaN or infinite weights; the model is damaged, train it again")
    exponents = np.full(len(weights), -1, dtype=np.int64)
    for exponent in range(FINEST + 1):
        scaled = np.rint(np.ldexp(weights, exponent))
        bound = np.abs(scaled) @ largest + np.ldexp(bias_bound, exponent + point) + 2.0 ** (exponent + point) + 1
        exponents[bound < EXACT] = exponent
    if (exponents < 0).any():
        raise CodecError(
            "the context net's weights are too large for exact sums in float32 (2^24); train it with smaller ones"
        )
    return IntegerLayer(np.rint(np.ldexp(weights, exponents[:, None])).T.astype(np.float32).copy(), exponents)


class IntegerGroupNet:
    """The net of one group and phase.

    Args:
        tensors: weights by name, as `GroupNet` of models/codec/context.py names them, float.
        largest: (inputs,) bounds of the inputs.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], largest: np.ndarray) -> None:
        self.bias, self.last_bias = tensors["first_bias.weight"], tensors["last_bias.weight"]
        width = self.bias.shape[1]
        self.count = self.last_bias.shape[1] // 3
        self.first = integer_layer(
            tensors["first.weight"][:, : len(largest)], largest, _bias_bound(self.bias), point=POINT
        )
        hidden = np.full(width, LARGEST)
        second_bias = tensors["second.bias"].astype(np.float64)
        self.second = integer_layer(tensors["second.weight"], hidden, np.abs(second_bias), point=POINT)
        self.second_bias = rounded_bias(second_bias, self.second, 0)
        self.last = integer_layer(tensors["last.weight"], hidden, _bias_bound(self.last_bias), point=POINT)
        # The outputs have 3, 2 and 1 bits behind the point.
        self.output_shift = POINT - np.repeat([_log2(MEAN_UNITS), _log2(SCALE_UNITS), _log2(SPIKE_UNITS)], self.count)
        self.linear: IntegerLayer | None = None
        if "linear.weight" in tensors:
            weights = np.ldexp(tensors["linear.weight"].astype(np.float64), -LINEAR_POINT)
            bounds = np.full(weights.shape[1], LARGEST_LINEAR)
            self.linear = integer_layer(weights, bounds, np.zeros(len(weights)), point=0)

    def __call__(
        self, inputs: np.ndarray, linear_inputs: np.ndarray | None, quality: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and shifts of the group's coefficients, (N, count) each, for inputs (N, inputs), qualities (N,).

        Row -1 is that of an excluded coefficient.
        """
        t = (quality.astype(np.float64) - 50) / 32
        levels, which = np.unique(t, return_inverse=True)
        bias = np.stack([rounded_bias(_polynomial(self.bias, level), self.first, 0) for level in levels])
        sums = inputs @ self.first.weights + bias[which] if inputs.shape[1] else bias[which]
        hidden = np.clip(self.first.shifted(sums, 0), 0, LARGEST)
        hidden = np.clip(self.second.shifted(hidden @ self.second.weights + self.second_bias, 0), 0, LARGEST)
        bias = np.stack(
            [rounded_bias(_polynomial(self.last_bias, level), self.last, self.output_shift) for level in levels]
        )
        out = self.last.shifted(hidden @ self.last.weights + bias[which], self.output_shift).astype(np.int32)
        mean, scale, spike = np.split(out, 3, axis=1)
        if self.linear is not None:
            assert linear_inputs is not None
            shift = -_log2(MEAN_UNITS)
            half = _half(self.linear.exponents + shift).astype(np.float32)
            mean = mean + self.linear.shifted(linear_inputs @ self.linear.weights + half, shift).astype(np.int32)
        lowest = round(LOG_SCALE_LOW * SCALE_UNITS), round(SPIKE_LOW * SPIKE_UNITS)
        scale, spike = np.clip(scale - lowest[0], 0, SCALES - 1), np.clip(spike - lowest[1], 0, SPIKES - 1)
        rows, shifts = row_numbers(mean, scale, spike)
        return np.where((scale == 0) & (shifts == 0), -1, rows), shifts


class IntegerContext:
    """Rows of the frequency tables for the coefficients of each group and phase.

    Args:
        tensors: weights of `ContextNet` (models/codec/context.py) by name.
        bounds: boundaries of the groups.
        neighbours, shared: as in `ContextConfig`.

    Raises:
        CodecError: weights are missing, of another shape, or not finite.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], bounds: list[int], *, neighbours: bool, shared: int) -> None:
        self.bounds, self.neighbours, self.shared = bounds, neighbours, shared
        self.phases = 2 if neighbours else 1
        self.nets = []
        for index in range((len(bounds) - 1) * self.phases):
            prefix = f"nets.{index}."
            own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            start, end = bounds[index // self.phases], bounds[index // self.phases + 1]
            largest = np.full(2 * start + (self._around(end) if neighbours else 0), LARGEST)
            if neighbours:
                largest = np.concatenate([largest, np.full(end - start, 4 * LARGEST)])
            try:
                self.nets.append(IntegerGroupNet(own, largest))
            except (KeyError, IndexError, ValueError) as error:
                raise CodecError(
                    f"the context net of group {index} cannot be read ({error}); the model is damaged, get it again"
                ) from None

    def _around(self, end: int) -> int:
        return len(NEIGHBOURS) * 2 * min(self.shared, end)

    @property
    def passes(self) -> list[tuple[int, int]]:
        """(group, phase) in coding order."""
        return [(group, phase) for group in range(len(self.bounds) - 1) for phase in range(self.phases)]

    def tiles(self, batch: int, height: int, width: int, phase: int) -> np.ndarray:
        """Indices of the tiles that a phase codes, among batch * height * width."""
        if not self.neighbours:
            return np.arange(batch * height * width)
        odd = (np.arange(height)[:, None] + np.arange(width)) % 2
        return np.flatnonzero(np.tile(odd.ravel() == phase, batch))

    def rows(self, codes: np.ndarray, quality: np.ndarray, group: int, phase: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and shifts of a group's coefficients in the tiles of a phase.

        Args:
            codes: (B, D, h, w) int32; what is not yet coded is ignored.
            quality: (B,) integers, 0 to 127.

        Returns:
            (rows, shifts), each (tiles of the phase, coefficients of the group), int32; row -1: excluded.
        """
        batch, _, height, width = codes.shape
        start, end = self.bounds[group], self.bounds[group + 1]
        chosen = self.tiles(batch, height, width, phase)
        if not len(chosen):  # a picture of one tile has no odd ones
            none = np.zeros((0, end - start), dtype=np.int32)
            return none, none
        levels = np.repeat(quality, height * width)[chosen]
        known = _features(codes[:, :start]).transpose(0, 2, 3, 1).reshape(batch * height * width, start)[chosen]
        net = self.nets[group * self.phases + phase]
        if not self.neighbours:
            return net(np.concatenate([known, np.abs(known)], axis=1), None, levels)
        mask = np.zeros((len(NEIGHBOURS), 1, end), dtype=np.float32)
        mask[:, :, :start] = 1
        if phase == 1:
            mask[list(EDGES)] = 1
        seen = _surroundings(_features(codes[:, : min(self.shared, end)]), chosen, mask)
        linear = _surroundings(
            np.clip(codes[:, : min(LINEAR, end)], -LARGEST_LINEAR, LARGEST_LINEAR).astype(np.float32), chosen, mask
        )
        inputs = [known, np.abs(known), seen, np.abs(seen)]
        if phase == 1:
            inputs.append(_edge_sums(np.abs(_features(codes[:, start:end])), chosen))
        else:
            inputs.append(np.zeros((len(chosen), end - start), dtype=np.float32))
        return net(np.concatenate(inputs, axis=1), linear, levels)


def _log2(power: int) -> int:
    return power.bit_length() - 1


def _polynomial(coefficients: np.ndarray, t: float) -> np.ndarray:
    """b0 + b1 t + b2 t^2 in float64, one operation at a time."""
    b0, b1, b2 = coefficients.astype(np.float64)
    linear = b1 * t
    quadratic = b2 * (t * t)
    return (b0 + linear) + quadratic


def _bias_bound(coefficients: np.ndarray) -> np.ndarray:
    b0, b1, b2 = np.abs(coefficients.astype(np.float64))
    return b0 + b1 * LARGEST_T + b2 * LARGEST_T**2


def rounded_bias(bias: np.ndarray, layer: IntegerLayer, extra: np.ndarray | int) -> np.ndarray:
    """Bias in the units of the sums, with the half that turns `floor` into rounding."""
    half = _half(layer.exponents + extra)
    return (np.rint(np.ldexp(bias, layer.exponents + POINT)) + half).astype(np.float32)


def _half(bits: np.ndarray) -> np.ndarray:
    """Half of the unit that a shift by so many bits leaves; 0 where it drops none, so that sums stay integers."""
    return np.where(bits > 0, np.ldexp(0.5, bits), 0)


def _features(codes: np.ndarray) -> np.ndarray:
    """32 f(q), rounded, at most 255 in size."""
    return np.sign(codes).astype(np.float32) * _MAGNITUDES[np.minimum(np.abs(codes), 255)]


def _surroundings(values: np.ndarray, chosen: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The eight neighbours of chosen tiles, zero outside: (B, K, h, w) -> (tiles, 8 K), neighbour by neighbour."""
    height, width = values.shape[2:]
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
    parts = []
    for (y, x), known in zip(NEIGHBOURS, mask, strict=True):
        part = padded[:, :, 1 + y : 1 + y + height, 1 + x : 1 + x + width].transpose(0, 2, 3, 1)
        parts.append(part.reshape(-1, values.shape[1])[chosen] * known[:, : values.shape[1]])
    return np.concatenate(parts, axis=1)


def _edge_sums(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Sum over the four neighbours that share an edge: (B, D, h, w) -> (tiles, D)."""
    height, width = values.shape[2:]
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
    shifts = [NEIGHBOURS[index] for index in EDGES]
    total = sum(padded[:, :, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in shifts)
    return np.asarray(total).transpose(0, 2, 3, 1).reshape(-1, values.shape[1])[chosen]
