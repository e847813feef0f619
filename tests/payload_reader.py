"""A decoder of payloads in plain Python, written from docs/format.md alone: it knows nothing of smalti's code."""

from __future__ import annotations

import functools
import json
import struct
import zlib
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from math import ceil, floor, log2
from pathlib import Path
from typing import Any

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


class ModelFile:
    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        card = json.loads(header.pop("__metadata__")["smalti"])
        assert card["kind"] == "codec"
        self.digest = bytes.fromhex(card["digest"])
        self.native = tuple(card["spec"][name] for name in ("height", "width", "channels"))
        settings = card["config"]["model"]
        self.tile, self.coefficients = settings["tile"], settings["coefficients"]
        self.neighbours, self.shared = settings["context"]["neighbours"], settings["context"]["shared"]
        self.tensors = {}
        for name, about in header.items():
            first, last = about["data_offsets"]
            letter, size = {"F32": ("f", 4), "F16": ("e", 2)}[about["dtype"]]
            values = struct.unpack(f"<{(last - first) // size}{letter}", data[end + first : end + last])
            self.tensors[name] = Tensor(about["shape"], values)
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


# --- Frequencies


@functools.cache
def logistic(scale: int | None, count: int) -> list[int]:
    """S(0) to S(count) of the scale number i, or of 1/8."""
    with localcontext(prec=40):
        octaves = Decimal(-3) if scale is None else Decimal("-4.75") + Decimal(scale) / 4
        rate = 1 / (16 * (octaves * Decimal(2).ln()).exp())
        fine = [floor(2**31 * (-r * rate).exp()) for r in range(64)]
        coarse = [floor(2**31 * (-64 * c * rate).exp()) for c in range(count // 64 + 1)]
    exponentials = [c * r // 2**31 for c in coarse for r in fine]
    return [2**31 * e // (2**31 + e) for e in exponentials]


def masses(scale: int | None, reach: int, y: int) -> list[int]:
    """L(k, s) for k = -R ... R and the escape."""
    s, found = logistic(scale, 16 * reach + 32), []
    for k in range(-reach, reach + 1):
        d = abs(16 * k - 2 * y)
        near = 2**31 - s[8 - d] if d < 8 else s[d - 8]
        found.append(near - s[d + 8])
    return [*found, 2**31 - sum(found)]


@functools.cache
def row_of(i: int, j: int, y: int) -> tuple[int, list[int]]:
    """R and the cumulative frequencies of a row, from 0 to 2^16."""
    with localcontext(prec=40):
        reach = max(2, ceil(7 * ((Decimal("-4.75") + Decimal(i) / 4) * Decimal(2).ln()).exp() - Decimal("1e-30")))
        share = floor(4096 / (1 + (3 - Decimal(j) / 2).exp()) + Decimal("0.5")) if i < 31 else 0
    wide, narrow = masses(i, reach, y), masses(None, reach, y)
    count = 2 * reach + 2
    found = [1 + ((4096 - share) * a + share * b) * (2**16 - count) // 2**43 for a, b in zip(wide, narrow, strict=True)]
    found[found.index(max(found))] += 2**16 - sum(found)
    cumulative = [0]
    for frequency in found:
        cumulative.append(cumulative[-1] + frequency)
    return reach, cumulative


# --- Coders. Each takes the rows (i, j, y) of a pass, None where nothing is coded, and gives the values.


def outside(reach: int, nibbles: Callable[[], int]) -> int:
    """The value that an escape stands for."""
    e, place = 0, 0
    while True:
        nibble = nibbles()
        e += (nibble & 7) << 3 * place
        place += 1
        if nibble < 8:
            return -reach - 1 - e // 2 if e & 1 else reach + 1 + e // 2
        assert place < 11


class StateDecoder:
    """Coders 1 and 2."""

    def __init__(self, stream: bytes, coder: int) -> None:
        head = len(stream) if len(stream) <= 4 else 5 if len(stream) % 2 else 6
        assert stream[head - 1]
        self.x, self.coder = int.from_bytes(stream[:head], "little"), coder
        self.words = [int.from_bytes(stream[at : at + 2], "little") for at in range(head, len(stream), 2)]

    def symbol(self, cumulative: list[int]) -> int:
        slot = self.x % 2**16
        found = max(number for number, c in enumerate(cumulative[:-1]) if c <= slot)
        self.x = (cumulative[found + 1] - cumulative[found]) * (self.x // 2**16) + slot - cumulative[found]
        if self.x < 2**32 and self.words:
            self.x = 2**16 * self.x + self.words.pop(0)
        return found

    def values(self, rows: list[tuple[int, int, int] | None]) -> list[int]:
        found = []
        for row in rows:
            if row is None:
                found.append(0)
                continue
            reach, cumulative = row_of(*row)
            symbol = self.symbol(cumulative)
            escaped = symbol == 2 * reach + 1
            found.append(outside(reach, lambda: self.symbol(NIBBLES)) if escaped else symbol - reach)
        return found

    def finish(self, checksum: int) -> None:
        bits = self.x.bit_length() - 1
        assert not self.words
        assert bits == 16 if self.coder == 2 else 16 <= bits <= 23
        assert self.x == 2**bits + checksum % 2**bits


NIBBLES = [4096 * nibble for nibble in range(17)]


class RangeDecoder:
    """Coder 3."""

    def __init__(self, stream: bytes) -> None:
        assert not stream.endswith(b"\0")
        self.stream, self.at, self.range, self.d = stream, 0, 2**64 - 1, 0
        self.more(64)

    def more(self, bits: int) -> None:
        part = self.stream[self.at : self.at + bits // 8].ljust(bits // 8, b"\0")
        self.d, self.at = (self.d << bits) + int.from_bytes(part, "big"), self.at + bits // 8

    def symbol(self, cumulative: list[int]) -> int:
        unit = self.range // 2**24
        (found,) = (
            number
            for number in range(len(cumulative) - 1)
            if 256 * cumulative[number] * unit <= self.d < 256 * cumulative[number + 1] * unit
        )
        self.d -= 256 * cumulative[found] * unit
        self.range = 256 * (cumulative[found + 1] - cumulative[found]) * unit
        if self.range < 2**32:
            self.range *= 2**32
            self.more(32)
        return found

    def values(self, rows: list[tuple[int, int, int] | None]) -> list[int]:
        coded = [(number_of(*row), place, row) for place, row in enumerate(rows) if row is not None]
        found, escapes = [0] * len(rows), list[tuple[int, int]]()
        for _, place, row in sorted(coded, key=lambda each: each[0]):
            reach, cumulative = row_of(*row)
            symbol = self.symbol(cumulative)
            found[place] = symbol - reach
            if symbol == 2 * reach + 1:
                escapes.append((place, reach))
        nibbles: dict[int, list[int]] = {place: [] for place, _ in escapes}
        left = [place for place, _ in escapes]
        while left:
            for place in left:
                nibbles[place].append(self.symbol(NIBBLES))
            left = [place for place in left if nibbles[place][-1] >= 8]
        for place, reach in escapes:
            found[place] = outside(reach, iter(nibbles[place]).__next__)
        return found

    def finish(self, checksum: int) -> None:
        every = list(range(2**16 + 1))
        assert 2**16 * self.symbol(every) + self.symbol(every) == checksum


def number_of(i: int, j: int, y: int) -> int:
    return (16 * i + j) * 8 + y + 4 if i < 31 else 31 * 16 * 8 + (i - 31) * 8 + y + 4


def decoder_of(stream: bytes, coder: int) -> StateDecoder | RangeDecoder:
    return RangeDecoder(stream) if coder == 3 else StateDecoder(stream, coder)


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
    across, order = ceil(width / 8), list[tuple[int, int, int]]()
    for block in range(across * ceil(height / 8)):
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
    decoder = RangeDecoder(chunk[at:])
    high = decoder.values([(each - 4 * low, 0, 0) for each, low in zip(g, lows, strict=True)])
    at_place = {
        place: value * 2**low + more - 2**low // 2
        for place, value, low, more in zip(order, high, lows, added, strict=True)
    }
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
