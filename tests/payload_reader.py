"""A decoder of payloads in plain Python, written from docs/format.md alone: it knows nothing of smalti's code."""

from __future__ import annotations

import functools
import json
import struct
import zlib
from decimal import Decimal, localcontext
from fractions import Fraction
from math import ceil, floor, log2
from pathlib import Path
from typing import Any

from payload_coders import RangeDecoder, decoder_of

AROUND = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
EDGES = (1, 3, 4, 6)
Codes = dict[tuple[int, int, int], int]  # by (coefficient, row, column)


def clip(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


# --- Model


class Tensor:
    def __init__(self, shape: list[int], values: tuple[float, ...]) -> None:
        self.shape, self.values = shape, values

    def row(self, number: int) -> tuple[float, ...]:
        length = len(self.values) // self.shape[0]
        return self.values[number * length : (number + 1) * length]


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON object of a model, and its tensors."""
    data, tensors = path.read_bytes(), {}
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    card = json.loads(header.pop("__metadata__")["smalti"])
    for name, about in header.items():
        first, last = about["data_offsets"]
        letter, size = {"F32": ("f", 4), "F16": ("e", 2), "I64": ("q", 8)}[about["dtype"]]
        values = struct.unpack(f"<{(last - first) // size}{letter}", data[end + first : end + last])
        tensors[name] = Tensor(about["shape"], values)
    return card, tensors


class ModelFile:
    """What decoding needs of a model of the kind `codec`."""

    def __init__(self, path: Path) -> None:
        card, self.tensors = read_tensors(path)
        assert card["kind"] == "codec"
        self.digest = bytes.fromhex(card["digest"])
        self.native = tuple(card["spec"][name] for name in ("height", "width", "channels"))
        settings = card["config"]["model"]
        self.tile, self.coefficients = settings["tile"], settings["coefficients"]
        self.neighbours, self.shared = settings["context"]["neighbours"], settings["context"]["shared"]
        self.groups, begin = [], 0
        phases = 2 if self.neighbours else 1
        while begin < self.coefficients:
            net = phases * len(self.groups)
            count = self.tensors[f"context.nets.{net}.last_bias.weight"].shape[1] // 3
            self.groups.append((begin, begin + count))
            begin += count

    @functools.cache  # noqa: B019
    def net(self, number: int, quality: int) -> Net:
        prefix = f"context.nets.{number}."
        own = {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}
        begin, end = self.groups[number // 2 if self.neighbours else number]
        edges = end - begin if self.neighbours else 0
        return Net(own, 2 * begin + (16 * min(self.shared, end) if self.neighbours else 0), edges, (quality - 50) / 32)


class Net:
    """The layers of a net for one quality."""

    def __init__(self, own: dict[str, Tensor], inputs: int, edges: int, t: float) -> None:
        bounds = [255] * inputs + [1020] * edges
        width = own["first_bias.weight"].shape[1]
        self.first = [
            Output(own["first.weight"].row(unit)[: len(bounds)], bounds, *bias(own["first_bias.weight"], unit, t))
            for unit in range(width)
        ]
        hidden = [255] * width
        second = own["second.bias"].values
        self.second = [
            Output(own["second.weight"].row(unit), hidden, second[unit], abs(second[unit])) for unit in range(width)
        ]
        self.last = [
            Output(own["last.weight"].row(unit), hidden, *bias(own["last_bias.weight"], unit, t))
            for unit in range(own["last.weight"].shape[0])
        ]
        self.linear = []
        if "linear.weight" in own:
            matrix = own["linear.weight"]
            for unit in range(matrix.shape[0]):
                row = [weight / 64 for weight in matrix.row(unit)]
                self.linear.append(Output(row, [2047] * len(row), 0.0, 0.0, point=0))

    def __call__(self, inputs: list[int], linear_inputs: list[int]) -> list[tuple[int, int, int]]:
        """(m, u, v) of each coefficient."""
        for layer in (self.first, self.second):
            inputs = [clip(output(inputs, output.s), 0, 255) for output in layer]
        n = len(self.last) // 3
        out = [output(inputs, output.s + 2 + number // n) for number, output in enumerate(self.last)]
        means = out[:n]
        for number, output in enumerate(self.linear):
            means[number] += output(linear_inputs, output.s - 3)
        return list(zip(means, out[n : 2 * n], out[2 * n :], strict=True))


def bias(matrix: Tensor, unit: int, t: float) -> tuple[float, float]:
    """b and its bound B."""
    b0, b1, b2 = (matrix.row(number)[unit] for number in range(3))
    return (b0 + b1 * t) + b2 * (t * t), abs(b0) + 3 * abs(b1) + 9 * abs(b2)


class Output:
    def __init__(self, weights: Any, bounds: list[int], b: float, bound: float, *, point: int = 5) -> None:
        self.s = -1
        for s in range(15):
            total = sum(abs(round(w * 2**s)) * most for w, most in zip(weights, bounds, strict=True))
            if total + bound * 2 ** (s + point) + 2 ** (s + point) + 1 < 2**24:
                self.s = s
        assert self.s >= 0
        self.weights = [round(w * 2**self.s) for w in weights]
        self.bias = round(b * 2 ** (self.s + point))

    def __call__(self, inputs: list[int], e: int) -> int:
        total = sum(w * x for w, x in zip(self.weights, inputs, strict=True)) + self.bias
        total += 2 ** (e - 1) if e > 0 else 0
        return total >> e if e > 0 else total << -e


def feature(q: int) -> int:
    m = 1 + min(abs(q), 255)
    power = 1
    while 2 * power <= m:
        power *= 2
    size = min(255, 32 * round(log2(power)) + floor(Fraction(64 * (m - power) + power, 2 * power)))
    return size if q > 0 else -size if q < 0 else 0


# --- Streams


def read_stream(
    model: ModelFile, stream: bytes, coder: int, quality: int, images: int, height: int, width: int
) -> list[Codes]:
    """Codes of the images of a stream on grids of height x width tiles."""
    decoder, codes = decoder_of(stream, coder), [Codes() for _ in range(images)]
    for group, (begin, end) in enumerate(model.groups):
        for phase in range(2 if model.neighbours else 1):
            net = model.net(2 * group + phase if model.neighbours else group, quality)
            places, rows, shifts = [], list[tuple[int, int, int] | None](), []
            for image in range(images):
                for y in range(height):
                    for x in range(width):
                        if model.neighbours and (y + x) % 2 != phase:
                            continue
                        for d, row in enumerate(net(*inputs_of(model, codes[image], begin, end, phase, y, x)), begin):
                            i, j = clip(row[1] + 19, 0, 43), clip(row[2] + 6, 0, 15)
                            z = (row[0] + 4) // 8
                            places.append((image, d, y, x))
                            rows.append(None if i == 0 and z == 0 else (i, j, row[0] - 8 * z))
                            shifts.append(z)
            for (image, d, y, x), z, value in zip(places, shifts, decoder.values(rows), strict=True):
                codes[image][d, y, x] = z + value
    decoder.finish(codes_checksum(codes, model.coefficients, height, width))
    return codes


def inputs_of(
    model: ModelFile, codes: Codes, begin: int, end: int, phase: int, y: int, x: int
) -> tuple[list[int], list[int]]:
    own = [feature(codes[d, y, x]) for d in range(begin)]
    if not model.neighbours:
        return own + [abs(value) for value in own], []
    seen, linear = [], []
    for number, (down, right) in enumerate(AROUND):
        known = end if phase == 1 and number in EDGES else begin
        there = [codes.get((d, y + down, x + right), 0) if d < known else 0 for d in range(end)]
        seen += [feature(q) for q in there[: model.shared]]
        linear += [clip(q, -2047, 2047) for q in there[:16]]
    edges = [
        sum(abs(feature(codes.get((d, y + AROUND[n][0], x + AROUND[n][1]), 0))) for n in EDGES) if phase else 0
        for d in range(begin, end)
    ]
    return own + [abs(value) for value in own] + seen + [abs(value) for value in seen] + edges, linear


def codes_checksum(codes: list[Codes], coefficients: int, height: int, width: int) -> int:
    order = [
        image[d, y, x] for image in codes for d in range(coefficients) for y in range(height) for x in range(width)
    ]
    return zlib.crc32(struct.pack(f"<{len(order)}i", *order))


# --- Alpha and the exact difference


def read_alpha(chunk: bytes, height: int, width: int, bits: int) -> list[int]:
    raw = zlib.decompress(chunk[1:], -15)
    samples = struct.unpack(f"<{height * width}{'B' if bits == 8 else 'H'}", raw)
    plane = list(samples)
    for place in range(len(plane)):
        before = {1: place - 1 if place % width else -1, 2: place - width}.get(chunk[0], -1)
        plane[place] = (plane[place] + (plane[before] if before >= 0 else 0)) % 2**bits
    return plane


def read_difference(chunk: bytes, height: int, width: int, channels: int) -> list[int]:
    """Differences in the order row, column, channel."""
    length, at = 0, 0
    while True:
        length, at = length + ((chunk[at] & 127) << 7 * at), at + 1
        if chunk[at - 1] < 128:
            break
    scales, at = zlib.decompress(chunk[at : at + length], -15), at + length
    across = ceil(width / 8)
    rows = max(1, 16384 // (channels * across))
    bands = []
    for first in range(0, ceil(height / 8), rows):
        order = list[tuple[int, int, int]]()
        for block in range(first * across, min(first + rows, ceil(height / 8)) * across):
            for c in range(channels):
                for y in range(block // across * 8, min(block // across * 8 + 8, height)):
                    order += [(y, x, c) for x in range(block % across * 8, min(block % across * 8 + 8, width))]
        g = [scales[(y // 8 * across + x // 8) * channels + c] for y, x, c in order]
        lows = [max(0, ceil((each - 43) / 4)) for each in g]
        added = [0] * len(order)
        for place in range(8, -1, -1):
            there = [number for number, low in enumerate(lows) if low > place]
            for count, number in enumerate(there):
                added[number] += (chunk[at + count // 8] >> 7 - count % 8 & 1) << place
            at += ceil(len(there) / 8)
        bands.append((order, g, lows, added))
    decoder, at_place = RangeDecoder(chunk[at:]), dict[tuple[int, int, int], int]()
    for order, g, lows, added in bands:
        high = decoder.values([(each - 4 * low, 0, 0) for each, low in zip(g, lows, strict=True)])
        for place, value, low, more in zip(order, high, lows, added, strict=True):
            at_place[place] = value * 2**low + more - 2**low // 2
    found = [at_place[place] for place in sorted(at_place)]
    decoder.finish(zlib.crc32(struct.pack(f"<{len(found)}i", *found)))
    return found


def exact_samples(base: list[int], difference: list[int], channels: int, bits: int) -> list[int]:
    """In the order row, column, channel."""
    top, found = 2**bits - 1, []
    for number, (sample, more) in enumerate(zip(base, difference, strict=True)):
        if channels == 4 and number % 4 < 3:
            last = number - number % 4 + 3
            alpha = (base[last] + difference[last]) % 2**bits
            sample = min((sample * top + alpha // 2) // alpha, top) if alpha else 0
        found.append((sample + more) % 2**bits)
    return found


def single(value: float) -> float:
    """Rounded to float32."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def prediction(
    model: ModelFile, codes: Codes, quality: int, height: int, width: int, bits: int, kept: int
) -> list[int]:
    """The linear synthesis of the first channels in the order row, column, channel."""
    basis, mean = model.tensors["basis.weight"], model.tensors["mean"]
    tenth, channels, side, top = single(0.1), mean.shape[0], model.tile, 2**bits - 1
    rows = [[round(2**14 * single(a * tenth)) for a in basis.row(d)] for d in range(model.coefficients)]
    means = [round(2**30 * single(value * tenth)) for value in mean.values]
    with localcontext(prec=40):
        step = floor(((17 - Decimal(quality) / 16) * Decimal(2).ln()).exp() + Decimal("0.5"))
    found = []
    for y in range(height):
        for x in range(width):
            for c in range(min(channels, kept)):
                place = (c * side + y % side) * side + x % side
                total = sum(codes[d, y // side, x // side] * row[place] for d, row in enumerate(rows))
                v = step * total + means[place]
                found.append(clip(((v + 2**30) * top + 2**30) // 2**31, 0, top))
    return found
