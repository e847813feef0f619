"""Damaged and hostile files of one image: refused with CodecError, or read as they were written, in little memory."""

from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest
from container_files import CHUNKS, EVERYTHING, FULL, TINY, by_hand, check_line, mutations, stream

from smalti.codec.archive import info
from smalti.codec.container import CHUNK_LIMIT, TinyHeader, chunk_spans, read_header, read_single, write_single
from smalti.codec.fields import varint
from smalti.errors import CodecError

MOST_MEMORY = 4 * 2**20  # bytes; the files below are small


def varied(seed: int) -> list[bytes]:
    """Files of the same layout with other contents."""
    rng = random.Random(seed)
    chunks = [type(chunk)(chunk.kind, rng.randbytes(len(chunk.data))) for chunk in CHUNKS]
    return [write_single(EVERYTHING, chunks), write_single(FULL, stream(rng.randbytes(500)))]


@pytest.mark.parametrize("number", [0, 1])
def test_damage_is_found_or_does_not_matter(number: int) -> None:
    content, others = varied(1)[number], varied(2)
    written = read_single(content)
    refused = 0
    for mutated in mutations(content, [content, *others], 3000, number):
        try:
            found = read_single(mutated)
        except CodecError as error:
            check_line(error)
            refused += 1
        else:
            # A splice may be a whole other file.
            assert found == written or mutated in others
        for read in (read_header, chunk_spans, info):
            try:
                read(mutated)
            except CodecError:
                continue
    assert refused > 2800


def test_chunks_of_other_files_and_other_places_are_found() -> None:
    (one, _), (two, _) = varied(1), varied(2)
    spans = chunk_spans(one)
    for span in spans[:5]:  # not deflated, so of the same length in both
        end = span.start + span.length + 4
        if span.length:
            with pytest.raises(CodecError, match="does not match its checksum"):
                read_single(one[: span.start] + two[span.start : end] + one[end:])
    swapped = write_single(EVERYTHING, [*stream(b"one"), *stream(b"two")])
    first, second = chunk_spans(swapped)
    parts = [swapped[span.start : span.start + 7] for span in (second, first)]
    with pytest.raises(CodecError, match="does not match its checksum"):
        read_single(swapped[: first.start] + b"".join(parts))


def test_the_tiny_form_is_refused_or_read_byte_by_byte() -> None:
    content = write_single(TINY, stream(bytes(range(50))))
    for mutated in mutations(content, [content, *varied(1)], 2000, 3):
        try:
            header, (chunk,) = read_single(mutated)
        except CodecError:
            continue
        if isinstance(header, TinyHeader):
            assert write_single(header, [chunk]) == mutated


def test_random_bytes_are_refused() -> None:
    rng = random.Random(4)
    for form in (b"", b"\x9eS", b"\x9eS\x12"):
        for _ in range(300):
            content = form + rng.randbytes(rng.randrange(100))
            if content[:3] != b"\x9eS\x11":
                with pytest.raises(CodecError):
                    read_single(content)


def test_hostile_lengths_allocate_nothing() -> None:
    start = bytes.fromhex("9e53120123456789abcdef130300ac02c8012878563412")
    others = bytes.fromhex("9e53120123456789abcdef130320ac02c801287856341205")
    regions = bytes.fromhex("9e53120123456789abcdef130310c0843d012878563412")
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    hostile = [
        by_hand(start + varint(CHUNK_LIMIT), b"hello"),
        by_hand(start + varint(CHUNK_LIMIT + 1), b"hello"),
        by_hand(start + b"\xff\xff\xff\xff\x0f", b"hello"),
        by_hand(others + b"\x40" + b"q\x80\x80\x80\x80\x01" * 64, b"hello"),
        by_hand(others + b"\x41" + b"q\x00" * 65, b"hello"),
        by_hand(others + b"\xff\xff\xff\xff\x0f", b"hello"),
        by_hand(regions + varint(123) + varint(1) + b"\xff" * 60_000),
        by_hand(regions + varint(1) + varint(1) + b"\x05" * 60_000),
        by_hand(regions + varint(123) + varint(1) + b"\x80\x80\x80\x80\x01" * 8131),
        by_hand(others + b"\x01i\x0a", b"hello", b"\1" + bomb.compress(bytes(10**6)) + bomb.flush()),
        start,
        start + b"\xff" * 2**16,
    ]
    tracemalloc.start()
    try:
        for content in hostile:
            for read in (read_single, read_header, info):
                try:
                    read(content)
                except CodecError as error:
                    check_line(error)
                else:
                    assert read is read_header
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
