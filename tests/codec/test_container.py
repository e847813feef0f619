"""Files of one image: what is written is read, in few bytes, and bad input is one clear line."""

from __future__ import annotations

import dataclasses
import io
import zlib

import pytest
from container_files import CHUNKS, DIGEST, EVERYTHING, FULL, TINY, by_hand, stream
from hypothesis import given
from hypothesis import strategies as st

from smalti.codec.container import (
    HEADER_LIMIT,
    METADATA_LIMIT,
    PIXEL_LIMIT,
    STREAM_LIMIT,
    Chunk,
    ChunkKind,
    CoderKind,
    Form,
    FullHeader,
    PayloadKind,
    Span,
    TinyHeader,
    check_model,
    chunk_spans,
    form_of,
    is_compressed,
    read_header,
    read_single,
    read_stream,
    write_single,
)
from smalti.codec.fields import Fields, pack, unpack, varint, varint_list
from smalti.errors import CodecError

# Golden files: what was written once must be readable for ever. The ICC profile of the third is deflated.
GOLDEN_TINY = "9e5311012328616263"
GOLDEN_FULL = "9e53120123456789abcdef130300ac02c8012878563412 0526d168b9 68656c6c6fa188fba8"
GOLDEN_DEFLATED = (
    "9e53120123456789abcdef130320ac02c80128785634120501690ce770e46968656c6c6f11e4283c01cb4c4ececa4cce1ecc18000700a249"
)


def refused(data: bytes, *words: str, **options: int) -> None:
    for read in (read_single, read_header):
        with pytest.raises(CodecError) as caught:
            read(data, source="a.smt", **options)
        line = str(caught.value)
        assert all(word in line for word in ("a.smt", *words)), line
        assert "\n" not in line


headers = st.builds(
    FullHeader,
    digest=st.binary(min_size=8, max_size=8),
    width=st.integers(301, 5000),
    height=st.integers(1, 3000),
    channels=st.integers(1, 10),
    step=st.integers(0, 255),
    codes_checksum=st.integers(0, 2**32 - 1),
    payload=st.sampled_from(PayloadKind),
    coder=st.sampled_from(CoderKind),
    bit_depth=st.sampled_from((8, 16)),
    orientation=st.integers(1, 8),
    original=st.none() | st.tuples(st.integers(5001, 9000), st.integers(1, 3000)),
    region=st.none() | st.tuples(st.integers(200, 300), st.integers(500, 10**6)),
)


@given(headers, st.binary(max_size=40), st.lists(st.sampled_from(list(ChunkKind)[1:]), unique=True), st.data())
def test_what_is_written_is_read(header: FullHeader, data: bytes, kinds: list[ChunkKind], more: st.DataObject) -> None:
    chunks = stream(data) * header.streams + [Chunk(kind, more.draw(st.binary(max_size=99))) for kind in kinds]
    content = write_single(header, chunks)
    assert read_single(content) == (header, tuple(chunks))
    assert read_header(content) == read_header(content[:HEADER_LIMIT]) == read_header(io.BytesIO(content)) == header


@given(st.binary(min_size=2, max_size=2), st.integers(0, 255), st.binary(min_size=1, max_size=99))
def test_the_tiny_form_has_six_bytes_of_overhead(digest: bytes, step: int, payload: bytes) -> None:
    header = TinyHeader(digest=digest, step=step)
    content = write_single(header, stream(payload))
    assert len(content) == 6 + len(payload)
    assert read_single(content) == (header, (Chunk(ChunkKind.STREAM, payload),))
    assert read_header(content[:7]) == header
    assert read_stream(content, 0) == payload


@pytest.mark.parametrize("size", [128, 2000, 16383])
def test_a_photograph_has_33_bytes_of_overhead(size: int) -> None:
    header = dataclasses.replace(FULL, width=481, height=321)
    assert len(write_single(header, stream(bytes(size)))) == 33 + size


def test_golden_files() -> None:
    assert write_single(TINY, stream(b"abc")).hex() == GOLDEN_TINY
    assert write_single(FULL, stream(b"hello")) == bytes.fromhex(GOLDEN_FULL)
    assert read_single(bytes.fromhex(GOLDEN_TINY)) == (TINY, tuple(stream(b"abc")))
    assert read_single(bytes.fromhex(GOLDEN_FULL)) == (FULL, tuple(stream(b"hello")))
    _, chunks = read_single(bytes.fromhex(GOLDEN_DEFLATED))
    assert chunks == (*stream(b"hello"), Chunk(ChunkKind.ICC, b"icc" + b"jick" * 40))


def test_one_region_is_read_without_the_others() -> None:
    header = dataclasses.replace(FULL, region=(100, 100))
    assert header.streams == 6
    content = bytearray(write_single(header, [Chunk(ChunkKind.STREAM, bytes([i]) * (i + 1)) for i in range(6)]))
    spans = chunk_spans(bytes(content))
    assert [span.length for span in spans] == [1, 2, 3, 4, 5, 6]
    content[spans[2].start] ^= 1
    for number in (0, 1, 3, 4, 5):
        assert read_stream(bytes(content), number) == bytes([number]) * (number + 1)
    assert read_stream(bytes(content[: spans[5].start]), 4) == bytes([4]) * 5
    with pytest.raises(CodecError, match="does not match its checksum"):
        read_stream(bytes(content), 2)
    with pytest.raises(CodecError, match="cut short"):
        read_stream(bytes(content[: spans[5].start]), 5)


def test_the_header_alone_is_read() -> None:
    content = write_single(FULL, stream(bytes(100_000)))
    file = io.BytesIO(content)
    assert read_header(file) == FULL
    assert file.tell() <= 512
    many = dataclasses.replace(FULL, width=8192, height=1, region=(1, 1))
    content = write_single(many, stream(b"xy") * STREAM_LIMIT)
    file = io.BytesIO(content)
    assert read_header(file) == many
    assert file.tell() <= HEADER_LIMIT
    assert read_single(content)[0] == many


def test_metadata_are_deflated_and_nothing_else() -> None:
    content = write_single(EVERYTHING, CHUNKS)
    assert read_single(content) == (EVERYTHING, CHUNKS)
    lengths = {span.kind: span.length for span in chunk_spans(content)}
    assert lengths["i"] < 30
    assert lengths["X"] == 300
    assert (lengths["e"], lengths["m"]) == (5, 1)


def test_unknown_chunks_are_skipped_or_refused() -> None:
    header = bytes.fromhex("9e53120123456789abcdef130320ac02c801287856341205") + b"\x02q\x03q\x01"
    content = by_hand(header, b"hello", b"abc", b"d")
    assert read_single(content) == (FULL, tuple(stream(b"hello")))
    assert [span.kind for span in chunk_spans(content)] == ["S", "q", "q"]
    refused(by_hand(header.replace(b"q\x01", b"Q\x01"), b"hello", b"abc", b"d"), "chunk 'Q'", "update smalti")
    for letter in (b"S", b"1", b"\xe9"):
        refused(by_hand(header.replace(b"q\x01", letter + b"\x01"), b"hello", b"abc", b"d"), "damaged", "type")
    refused(by_hand(header.replace(b"q", b"i"), b"hello", b"abc", b"d"), "two chunks 'i'")
    for flag in (b"\x40", b"\x80"):
        refused(by_hand(header.replace(b"\x13\x03\x20", b"\x13\x03" + flag), b"hello"), "flags", "update smalti")
    for coding in (b"\x33", b"\x14", b"\x03"):
        refused(by_hand(header.replace(b"\x13\x03\x20", coding + b"\x03\x20"), b"hello"), "payload", "update smalti")


def test_other_files_are_refused() -> None:
    refused(b"", "is empty")
    refused(b"\x89PNG\r\n", "begins with 89 50 4e", "9e 53")
    refused(b"\x9e", "begins with 9e")
    refused(bytes.fromhex("9e5321") + bytes(50), "newer version", "format 2", "update smalti")
    refused(bytes.fromhex("9e53f9") + bytes(50), "newer version", "format 15")
    refused(bytes.fromhex("9e5301") + bytes(50), "begins with 9e 53 01")
    refused(bytes.fromhex("9e5314") + bytes(50), "its form is 4")
    refused(bytes.fromhex("9e5313") + bytes(50), "an archive")
    refused(bytes.fromhex(GOLDEN_TINY)[:6], "cut short")
    assert [is_compressed(bytes.fromhex(start)) for start in ("9e5311", "9e5312ff", "9e5313", "9e5325")] == [True] * 4
    assert not any(is_compressed(start) for start in (b"", b"\x9eS", b"\x9eS\x01", b"\xff\xd8\xff", b"RIFF"))
    assert form_of(bytes.fromhex(GOLDEN_FULL)) == Form.FULL


def test_longer_and_shorter_files_are_refused() -> None:
    content = write_single(EVERYTHING, CHUNKS)
    for length in range(len(content)):
        with pytest.raises(CodecError):
            read_single(content[:length])
    with pytest.raises(CodecError, match="3 bytes follow its last chunk"):
        read_single(content + b"abc")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (varint(0) + varint(200), ("the width is 0", "expected 1 to 1,000,000")),
        (varint(300) + varint(1_000_001), ("the height is 1,000,001", "expected 1 to 1,000,000")),
        (varint(1_000_000) + varint(1_000_000), ("1,000,000 x 1,000,000", "limit of 89,478,485", "pixel_limit")),
        (varint(2**33) + varint(200), ("8,589,934,592", "expected 0 to")),
        (b"\xac\x82\x00" + varint(200), ("shortest length",)),
        (b"\xff\xff\xff\xff\xff\x01" + varint(200), ("more than 5 bytes",)),
    ],
)
def test_absurd_sizes_are_refused(sizes: bytes, words: tuple[str, ...]) -> None:
    header = bytes.fromhex("9e53120123456789abcdef130300") + sizes + bytes.fromhex("287856341205")
    refused(by_hand(header, b"hello"), *words)


def test_the_limit_of_pixels_is_an_argument() -> None:
    large = dataclasses.replace(FULL, width=10_000, height=9_000)
    with pytest.raises(CodecError, match="10,000 x 9,000"):
        write_single(large, stream(b"x"))
    content = write_single(large, stream(b"x"), pixel_limit=10**8)
    refused(content, "10,000 x 9,000 pixels", "raise `pixel_limit`")
    assert read_single(content, pixel_limit=10**8)[0] == large
    refused(write_single(FULL, stream(b"x")), "300 x 200", pixel_limit=59_999)
    # Channels count too, and the size that the picture will be brought back to.
    for change in ({"channels": 100, "width": 4000, "height": 4000}, {"original": (10_000, 9_000)}):
        with pytest.raises(CodecError, match="above the limit"):
            write_single(dataclasses.replace(FULL, **change), stream(b"x"))
    assert PIXEL_LIMIT == 2**28 // 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "the width is 0, expected 1 to 1,000,000"),
        ({"height": 10**6 + 1}, "the height is 1,000,001"),
        ({"channels": 128}, "channels is 128, expected 1 to 127"),
        ({"orientation": 9}, "the orientation is 9, expected 1 to 8"),
        ({"step": 256}, "the step index is 256, expected 0 to 255"),
        ({"codes_checksum": 2**32}, "checksum of the codes"),
        ({"region": (0, 10)}, "a side is 0"),
        ({"region": (300, 200)}, "one region"),
        ({"original": (300, 200)}, "leave it out"),
        ({"region": (1, 1)}, "60,000 regions, expected up to 8,192"),
    ],
)
def test_a_header_out_of_range_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        dataclasses.replace(FULL, **change)


def test_metadata_are_bounded() -> None:
    with pytest.raises(CodecError, match="the length of chunk 'i'"):
        write_single(FULL, [*stream(b"x"), Chunk(ChunkKind.ICC, bytes(METADATA_LIMIT + 1))])
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"\1" + bomb.compress(bytes(METADATA_LIMIT + 1)) + bomb.flush()
    header = bytes.fromhex("9e53120123456789abcdef130320ac02c801287856341205") + b"\x01i"
    for data in (packed, b"\1" + packed[5:], packed[:-3], b"", b"\2abc", packed[:-1]):
        with pytest.raises(CodecError, match="chunk 'i'"):
            read_single(by_hand(header + varint(len(data)), b"hello", data))


def test_another_model_is_named_with_both_digests() -> None:
    model = DIGEST + bytes(24)
    check_model(TINY.digest, model, source="a.smt")
    check_model(FULL.digest, model, source="a.smt")
    with pytest.raises(CodecError) as caught:
        check_model(FULL.digest, b"\xff" + model[1:], source="a.smt")
    line = str(caught.value)
    assert "a.smt was compressed with the model 0123456789abcdef" in line
    assert "ff23456789abcdef" in line
    assert "smalti zoo" in caught.value.remedy


@given(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 300), max_size=50))
def test_varints(values: list[int]) -> None:
    fields = Fields(varint_list(values), "a.smt")
    assert fields.varint_list("numbers", 50).tolist() == values
    fields.finish("the numbers")
    fields = Fields(b"".join(map(varint, values)), "a.smt")
    assert [fields.varint("a number", 0, 2**63 - 1) for _ in values] == values


def test_long_lists_of_varints_are_read_in_pieces() -> None:
    values = [(i * 7919) % 2 ** (i % 63) for i in range(100_000)]
    assert Fields(varint_list(values), "a.smt").varint_list("numbers", 10**6).tolist() == values
    for data in (b"\x02\x80\x80", b"\x01\x80\x00", b"\x01" + b"\xff" * 9 + b"\x01", b"\x03\x01", b"\x0b" + bytes(11)):
        with pytest.raises(CodecError):
            Fields(data, "a.smt").varint_list("numbers", 10)


@given(st.binary(max_size=300) | st.binary(max_size=9).map(lambda data: data * 40))
def test_packing(data: bytes) -> None:
    packed = pack(data)
    assert len(packed) <= len(data) + 1
    assert unpack(packed, limit=len(data), name="it", source="a.smt") == data
    if data:
        with pytest.raises(CodecError, match=f"more than {len(data) - 1:,} bytes"):
            unpack(packed, limit=len(data) - 1, name="it", source="a.smt")


def test_spans_name_the_type() -> None:
    assert chunk_spans(bytes.fromhex(GOLDEN_TINY)) == (Span("S", 6, 3),)
