"""docs/format.md: its examples are files that smalti writes, and a reader written from that page alone reads them.

The reader knows nothing of smalti's code, and checks as much as it needs to read an undamaged file.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from codec.test_archive import NAMED, PLAIN, SINGLE, write
from codec.test_container import CHUNKS, EVERYTHING, FULL, TINY, stream

from smalti.codec.archive import ArchiveReader, ArchiveWriter, join_payloads
from smalti.codec.container import Chunk, ChunkKind, CoderKind, FullHeader, PayloadKind, write_single

PAGE = Path(__file__).parents[2] / "docs" / "format.md"


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


def examples() -> list[bytes]:
    """The files in hexadecimal digits on the page."""
    return [bytes.fromhex(part.split("```")[0]) for part in PAGE.read_text("utf-8").split("```text\n")[1:]]


def full_example() -> bytes:
    header = FullHeader(
        digest=bytes.fromhex("0123456789abcdef"), width=300, height=200, channels=4, step=40, bit_depth=16,
        codes_checksum=0x12345678, payload=PayloadKind.SCALAR, coder=CoderKind.RANGE, orientation=6,
        original=(400, 300), region=(256, 256),
    )  # fmt: skip
    chunks = [Chunk(ChunkKind.ALPHA, b"al"), Chunk(ChunkKind.ICC, b"icc")]
    return write_single(header, [*stream(b"hello"), *stream(b"you"), *chunks])


def test_the_examples_are_what_is_written(tmp_path: Path) -> None:
    tiny, full, archive = examples()
    assert write_single(TINY, stream(b"abc")) == tiny
    assert full_example() == full
    with ArchiveWriter(tmp_path / "a.smt", NAMED) as writer:
        writer.write_block(b"abc", count=2, names=["cat", "dog"], labels=[1, -1])
        writer.write_block(b"z", count=1, names=["tom"], labels=[0])
    assert (tmp_path / "a.smt").read_bytes() == archive


@pytest.mark.parametrize(
    ("header", "chunks"), [(TINY, stream(b"abc")), (FULL, stream(b"x" * 999)), (EVERYTHING, CHUNKS)]
)
def test_a_reader_written_from_the_page_reads_images(header: Any, chunks: Any) -> None:
    found, there = read_image(write_single(header, chunks))
    assert found == vars(header)
    assert there == [(chunk.kind.value, chunk.data) for chunk in chunks]


def test_a_reader_written_from_the_page_reads_archives(tmp_path: Path) -> None:
    found, blocks = read_archive(write(tmp_path / "a.smt", 300, PLAIN, 200))
    assert found == vars(PLAIN)
    with ArchiveReader(tmp_path / "a.smt") as reader:
        assert [block[0][0] for block in blocks] == [reader.read_block(block).payload for block in range(300)]
    header = type(PLAIN)(**{**vars(NAMED), "apart": True, "metadata": {"by": "us"}})
    with ArchiveWriter(tmp_path / "b.smt", header) as writer:
        writer.write_block(join_payloads([b"a", b"bc"]), count=2, names=["a/1.png", "a/2.png"], labels=[0, 1])
        writer.write_single(SINGLE, name="large", label=-1)
        writer.write_block(join_payloads([b"d"]), count=1, names=["é"], labels=[1])
    found, blocks = read_archive((tmp_path / "b.smt").read_bytes())
    assert found == vars(header)
    assert blocks == [[(b"a", "a/1.png", 0), (b"bc", "a/2.png", 1)], [(SINGLE, "large", -1)], [(b"d", "é", 1)]]
    assert read_image(SINGLE)[1] == [("S", b"another size")]


def test_the_page_states_the_limits() -> None:
    page = PAGE.read_text("utf-8")
    for number in (10**6, 2**28 // 3, 2**16, 2**28, 2**26, 2**21, 8192, 4096, 2**20 + 1, 16 * (4096 + 16), 2**14):
        assert f"{number:,}" in page
    assert f"{zlib.crc32(b'123456789'):X}" in page
