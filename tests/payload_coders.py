"""The frequencies and entropy coders of payloads in plain Python, written from docs/format.md alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal, localcontext
from math import ceil, floor

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
