"""Compressed files of every form, whose payloads are bytes of no meaning, and damage to them."""

from __future__ import annotations

import dataclasses
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

from smalti.codec.archive import ArchiveHeader, ArchiveWriter
from smalti.codec.container import Chunk, ChunkKind, CoderKind, FullHeader, PayloadKind, TinyHeader, write_single
from smalti.errors import CodecError

DIGEST = bytes.fromhex("0123456789abcdef")
TINY = TinyHeader(digest=DIGEST[:2], step=40)
FULL = FullHeader(
    digest=DIGEST, width=300, height=200, channels=3, step=40, codes_checksum=0x12345678,
    payload=PayloadKind.SCALAR, coder=CoderKind.RANGE,
)  # fmt: skip
EVERYTHING = dataclasses.replace(
    FULL, channels=4, bit_depth=16, orientation=6, original=(400, 300), region=(256, 256), coder=CoderKind.LANES,
    payload=PayloadKind.CODES,
)  # fmt: skip
CHUNKS = (
    Chunk(ChunkKind.STREAM, b"hello"),
    Chunk(ChunkKind.STREAM, b""),
    Chunk(ChunkKind.ALPHA, b"alpha"),
    Chunk(ChunkKind.RESIDUAL, bytes(300)),
    Chunk(ChunkKind.DECODER, b"weights"),
    Chunk(ChunkKind.ICC, b"profile" * 100),
    Chunk(ChunkKind.EXIF, b"II*\0"),
    Chunk(ChunkKind.XMP, b""),
)
PLAIN = ArchiveHeader(
    digest=DIGEST, width=32, height=32, channels=3, step=40, payload=PayloadKind.SCALAR, coder=CoderKind.LANES
)
NAMED = dataclasses.replace(PLAIN, per_block=2, named=True, labelled=True, classes=("cat", "dog"))
SINGLE = write_single(
    FullHeader(
        digest=DIGEST, width=50, height=40, channels=3, step=40, codes_checksum=7, payload=PayloadKind.SCALAR,
        coder=CoderKind.RANGE,
    ),
    [Chunk(ChunkKind.STREAM, b"another size")],
)  # fmt: skip


def stream(data: bytes) -> list[Chunk]:
    return [Chunk(ChunkKind.STREAM, data)]


def by_hand(header: bytes, *chunks: bytes) -> bytes:
    """A file of the full form with these bytes, and right checksums."""
    content, last = header, zlib.crc32(header).to_bytes(4, "little")
    for chunk in chunks:
        content, last = content + last + chunk, zlib.crc32(last + chunk).to_bytes(4, "little")
    return content + last


def payload(block: int, size: int = 100) -> bytes:
    return bytes((block * 31 + i * i) % 251 for i in range(size))


def write(path: Path, blocks: int, header: ArchiveHeader = PLAIN, size: int = 100) -> bytes:
    """An archive of full blocks, of which the last has one image."""
    with ArchiveWriter(path, header, overwrite=True) as writer:
        for block in range(blocks):
            count = header.per_block if block < blocks - 1 else 1
            names = [f"{block}/{i}.png" for i in range(count)] if header.named else None
            labels = [(block + i) % 3 - 1 for i in range(count)] if header.labelled else None
            writer.write_block(payload(block, size), count=count, names=names, labels=labels)
    return path.read_bytes()


def header_by_hand(*, text: bytes = b"", flags: int = 0, middle: str = "2020", step: str = "2810") -> bytes:
    start = bytes.fromhex("9e53130123456789abcdef1203") + bytes([flags]) + bytes.fromhex(middle + step)
    start += bytes([len(text) + 1, 0]) + text
    return start + zlib.crc32(start).to_bytes(4, "little")


def mutations(content: bytes, others: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Bit flips, bytes replaced, inserted and removed, truncations, and splices with other files."""
    rng = random.Random(seed)
    for _ in range(count):
        mutated, kind = bytearray(content), rng.randrange(8)
        place = rng.randrange(len(mutated))
        if kind <= 1:
            for _ in range(rng.choice((1, 1, 1, 2, 8))):
                mutated[rng.randrange(len(mutated))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            mutated[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 3:
            mutated[place:place] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 4:
            del mutated[place : place + rng.randrange(1, 9)]
        elif kind == 5:
            del mutated[place:]
        elif kind == 6:  # a part of another file, at the same place or at another one
            other = rng.choice(others)
            start, length = rng.choice((place, rng.randrange(len(other)))), rng.randrange(1, 200)
            mutated[place : place + length] = other[start : start + length]
        else:  # a part of the same file
            start, length = rng.randrange(len(mutated)), rng.randrange(1, 200)
            mutated[place : place + rng.choice((0, length))] = mutated[start : start + length]
        yield bytes(mutated)


def check_line(error: CodecError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 400
