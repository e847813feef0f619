"""docs/format.md: its examples are files that smalti writes, and a reader written from that page alone reads them.

The reader is in container_reader.py.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
from container_files import CHUNKS, EVERYTHING, FULL, NAMED, PLAIN, SINGLE, TINY, stream, write
from container_reader import read_archive, read_image

from smalti.codec.archive import ArchiveReader, ArchiveWriter, join_payloads
from smalti.codec.container import Chunk, ChunkKind, CoderKind, FullHeader, PayloadKind, write_single

PAGE = Path(__file__).parents[2] / "docs" / "format.md"


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
