"""A reader of compressed files written from docs/format.md alone: it knows nothing of smalti's code.

It checks as much as it needs to read an undamaged file.
"""

from __future__ import annotations

import json
import zlib
from typing import Any


class Cursor:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at, self.checked = data, at, 0

    def take(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.data)
        return self.data[self.at - count : self.at]

    def number(self, count: int = 1) -> int:
        return int.from_bytes(self.take(count), "little")

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.number()
            value, shift = value + ((byte & 127) << shift), shift + 7
            if byte < 128:
                return value

    def varints(self) -> list[int]:
        return [self.varint() for _ in range(self.varint())]

    def check(self) -> None:
        """A checksum, which covers everything from the one before it on."""
        covered = self.data[self.checked : self.at]
        self.checked = self.at
        assert self.number(4) == zlib.crc32(covered)


def unpacked(data: bytes) -> bytes:
    return data[1:] if data[0] == 0 else zlib.decompress(data[1:], -15)


def coding(cursor: Cursor) -> dict[str, Any]:
    """What the full form and archives have in common."""
    found: dict[str, Any] = {"digest": cursor.take(8)}
    byte, samples = cursor.number(), cursor.number()
    found["payload"], found["coder"] = byte >> 4, byte & 15
    found["bit_depth"], found["channels"] = 16 if samples & 128 else 8, samples & 127
    return found


def read_image(data: bytes) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    cursor = Cursor(data)
    assert cursor.take(2) == b"\x9e\x53"
    form = cursor.number()
    if form == 0x11:
        return {"digest": cursor.take(2), "step": cursor.number()}, [("S", data[6:])]
    assert form == 0x12
    found = coding(cursor)
    flags = cursor.number()
    found["width"], found["height"] = cursor.varint(), cursor.varint()
    found["original"] = (cursor.varint(), cursor.varint()) if flags & 0x08 else None
    found["step"], found["codes_checksum"], found["orientation"] = cursor.number(), cursor.number(4), flags % 8 + 1
    found["region"] = (cursor.varint(), cursor.varint()) if flags & 0x10 else None
    width, height = found["region"] or (found["width"], found["height"])
    columns, rows = (found["width"] + width - 1) // width, (found["height"] + height - 1) // height
    table = [("S", cursor.varint()) for _ in range(columns * rows)]
    if flags & 0x20:
        table += [(cursor.take(1).decode(), cursor.varint()) for _ in range(cursor.varint())]
    cursor.check()
    chunks = []
    for kind, length in table:
        chunk = cursor.take(length)
        cursor.check()
        if kind in "SAXWiem":
            chunks.append((kind, unpacked(chunk) if kind in "iem" else chunk))
    assert cursor.at == len(data)
    return found, chunks


def read_block(cursor: Cursor, number: int, header: dict[str, Any]) -> list[tuple[bytes, str | None, int | None]]:
    """Payload, name and label of each image; the whole payload for each if they are coded together."""
    start = cursor.at
    assert cursor.take(2) == b"\xb1\x0c"
    kind = cursor.number()
    count = 1 if kind == 16 else kind + 1
    length = cursor.varint()
    metadata = cursor.varint() if header["named"] or header["labelled"] else 0
    check = zlib.crc32(cursor.data[start : cursor.at]) & 0xFFFF
    assert cursor.number(2) == check ^ (number & 0xFFFF)
    names: list[str | None] = [None] * count
    labels: list[int | None] = [None] * count
    if metadata:
        text = Cursor(unpacked(cursor.take(metadata)))
        cursor.check()
        labels = [text.varint() - 1 for _ in range(count)] if header["labelled"] else labels
        name = b""
        for i in range(count if header["named"] else 0):
            name = name[: text.varint()] + text.take(text.varint())
            names[i] = name.decode()
        assert text.at == len(text.data)
    payload = Cursor(cursor.take(length))
    cursor.check()
    payloads = [payload.data] * count
    if header["apart"] and kind != 16:
        lengths = [payload.varint() for _ in range(count)]
        payloads = [payload.take(one) for one in lengths]
    return list(zip(payloads, names, labels, strict=True))


def read_archive(data: bytes) -> tuple[dict[str, Any], list[list[tuple[bytes, str | None, int | None]]]]:
    cursor = Cursor(data)
    assert cursor.take(3) == b"\x9e\x53\x13"
    header = coding(cursor)
    flags = cursor.number()
    header |= {"named": bool(flags & 1), "labelled": bool(flags & 2), "apart": bool(flags & 4)}
    header["width"], header["height"] = cursor.varint(), cursor.varint()
    header["step"], header["per_block"] = cursor.number(), cursor.number()
    text = json.loads(unpacked(cursor.take(cursor.varint())) or "{}")
    header["classes"], header["metadata"] = tuple(text.get("classes", ())), text.get("metadata", {})
    cursor.check()
    blocks = []
    begun = cursor.at
    while data[cursor.at : cursor.at + 2] != b"\x1d\x0e":
        blocks.append(read_block(cursor, len(blocks), header))
    # The index says the same.
    offset = cursor.at
    cursor.take(2)
    lengths, runs, gaps = cursor.varints(), cursor.varints(), cursor.varints()
    assert begun + sum(lengths) == offset
    assert sum(runs[1::2]) == len(lengths) == len(blocks)
    assert gaps == []
    assert cursor.number(8) == offset
    assert cursor.number(4) == sum(map(len, blocks))
    cursor.check()
    assert cursor.take(4) == b"\x53\x4d\x54\x9e"
    assert cursor.at == len(data)
    return header, blocks
