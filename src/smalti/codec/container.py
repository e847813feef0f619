"""Files of one compressed image. What a payload encodes is none of its business: payloads are byte strings.

    tiny form   header 6 | payload to the end of the file
    full form   header | chunk | checksum 4 | chunk | checksum 4 | ...

The chunks are the streams, region by region in rows, then the others in the order of the header's table. Headers are in
headers.py, checksums in fields.py, and docs/format.md describes every byte. The tiny form has 6 bytes of overhead. The
full form has 33, with sides of 128 to 16,383 pixels, one region, a stream of less than 16 KiB and no other chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from smalti.codec.fields import (
    CHECKSUM_BYTES,
    PIXEL_LIMIT,
    CoderKind,
    EndOfFieldsError,
    Form,
    PayloadKind,
    check_model,
    check_range,
    checksum,
    damaged,
    form_of,
    is_compressed,
    pack,
    start_of,
    unpack,
    varint,
)
from smalti.codec.headers import (
    CHUNK_LIMIT,
    HEADER_LIMIT,
    METADATA,
    METADATA_LIMIT,
    OTHER_LIMIT,
    STREAM_LIMIT,
    Chunk,
    ChunkKind,
    FullHeader,
    Header,
    Span,
    TinyHeader,
    check_sizes,
    header_bytes,
    parse,
)
from smalti.errors import CodecError

__all__ = [
    "CHUNK_LIMIT",
    "HEADER_LIMIT",
    "METADATA_LIMIT",
    "OTHER_LIMIT",
    "PIXEL_LIMIT",
    "STREAM_LIMIT",
    "Chunk",
    "ChunkKind",
    "CoderKind",
    "Form",
    "FullHeader",
    "Header",
    "PayloadKind",
    "Span",
    "TinyHeader",
    "check_file_size",
    "check_model",
    "chunk_spans",
    "form_of",
    "is_compressed",
    "read_header",
    "read_single",
    "read_stream",
    "write_single",
]

_FIRST_READ = 512  # bytes; contains most headers


def write_single(header: Header, chunks: Sequence[Chunk], *, pixel_limit: int = PIXEL_LIMIT) -> bytes:
    """The file of one image.

    Args:
        header: its type is that of the form.
        chunks: one stream for each region, by rows, and for the full form others, no two of a kind. The tiny form has
            exactly one stream.
        pixel_limit: of width x height.

    Raises:
        CodecError: the picture, a chunk or the header is above its limit.
    """
    streams = [chunk.data for chunk in chunks if chunk.kind == ChunkKind.STREAM]
    others = [chunk for chunk in chunks if chunk.kind != ChunkKind.STREAM]
    if isinstance(header, TinyHeader):
        assert len(streams) == 1
        assert not others
        assert streams[0]  # an empty file after the header would read as a cut one
        return start_of(Form.TINY) + header.digest + bytes([header.step]) + streams[0]
    assert len(streams) == header.streams
    assert len({chunk.kind for chunk in others}) == len(others)
    check_sizes(header, pixel_limit)
    stored = [*streams, *(_stored(chunk) for chunk in others)]
    for data in stored:
        check_range("the length of a chunk", len(data), 0, CHUNK_LIMIT)
    start = header_bytes(header, bool(others))
    start += b"".join(varint(len(data)) for data in streams)
    if others:
        start += varint(len(others))
        start += b"".join(
            chunk.kind.encode() + varint(len(data)) for chunk, data in zip(others, stored[len(streams) :], strict=True)
        )
    last = checksum(start)
    parts = [start, last]
    for data in stored:
        last = checksum(last, data)
        parts += [data, last]
    return b"".join(parts)


def read_header(data: bytes | BinaryIO, *, pixel_limit: int = PIXEL_LIMIT, source: str = "this file") -> Header:
    """The header of a file of one image, without the image.

    Args:
        data: the file, its beginning (`HEADER_LIMIT` bytes are always enough), or a file open at its beginning, of
            which 512 bytes are read, or `HEADER_LIMIT` if the header is longer.
        pixel_limit: of width x height, in pixels.
        source: name of the file, for the messages.

    Raises:
        CodecError: it is no such file, damaged, cut within its header, above the limit or of a newer version.
    """
    if isinstance(data, bytes):
        return parse(data, pixel_limit, source)[0]
    start = data.read(_FIRST_READ)
    try:
        return parse(start, pixel_limit, source)[0]
    except EndOfFieldsError:
        return parse(start + data.read(HEADER_LIMIT - len(start)), pixel_limit, source)[0]


def chunk_spans(data: bytes, *, pixel_limit: int = PIXEL_LIMIT, source: str = "this file") -> tuple[Span, ...]:
    """Where the chunks are, the unknown ones too, from the header alone; see `read_header`.

    The length of the tiny form's stream is that of `data`.
    """
    return parse(data, pixel_limit, source)[1]


def check_file_size(spans: Sequence[Span], size: int, *, source: str = "this file") -> None:
    """Raise CodecError if a file of the full form is longer or shorter than its header says."""
    expected = spans[-1].start + spans[-1].length + CHECKSUM_BYTES
    if size < expected:
        raise CodecError(f"{source} was cut short: it has {size:,} of {expected:,} bytes; get or make it again")
    if size > expected:
        raise damaged(source, f"{size - expected:,} bytes follow its last chunk")


def read_stream(data: bytes, number: int, *, pixel_limit: int = PIXEL_LIMIT, source: str = "this file") -> bytes:
    """The stream of one region, by rows; the others are neither read nor checked.

    Raises:
        CodecError: the header or this stream is damaged.
    """
    header, spans = parse(data, pixel_limit, source)
    if isinstance(header, TinyHeader):
        assert number == 0
        return data[spans[0].start :]
    assert 0 <= number < header.streams
    return _checked(data, spans[number], source)


def read_single(
    data: bytes, *, pixel_limit: int = PIXEL_LIMIT, source: str = "this file"
) -> tuple[Header, tuple[Chunk, ...]]:
    """Invert `write_single`.

    Args:
        data: the whole file.
        pixel_limit: of width x height, in pixels.
        source: name of the file, for the messages.

    Returns:
        The header and the chunks, without unknown ones that may be skipped.

    Raises:
        CodecError: as `read_header`; or a chunk is damaged or must be known and is not; or the file is longer or
            shorter than its header says. In the tiny form, only the entropy coder can find damage.
    """
    header, spans = parse(data, pixel_limit, source)
    if isinstance(header, TinyHeader):
        return header, (Chunk(ChunkKind.STREAM, data[spans[0].start :]),)
    check_file_size(spans, len(data), source=source)
    chunks = []
    for span in spans:
        stored = _checked(data, span, source)
        if span.kind in list(ChunkKind):
            kind = ChunkKind(span.kind)
            if kind in METADATA:
                stored = unpack(stored, limit=METADATA_LIMIT, name=f"chunk {span.kind!r}", source=source)
            chunks.append(Chunk(kind, stored))
    return header, tuple(chunks)


def _checked(data: bytes, span: Span, source: str) -> bytes:
    """The bytes of a chunk, after a comparison with its checksum."""
    end = span.start + span.length
    if len(data) < end + CHECKSUM_BYTES:
        raise EndOfFieldsError(f"{source} was cut short: it ends within chunk {span.kind!r}; get or make it again")
    view = memoryview(data)
    if checksum(view[span.start - CHECKSUM_BYTES : end]) != view[end : end + CHECKSUM_BYTES]:
        raise damaged(source, f"chunk {span.kind!r} at byte {span.start:,} does not match its checksum")
    return data[span.start : end]


def _stored(chunk: Chunk) -> bytes:
    if chunk.kind not in METADATA:
        return chunk.data
    check_range(f"the length of chunk {chunk.kind.value!r}", len(chunk.data), 0, METADATA_LIMIT)
    return pack(chunk.data)
