"""Headers of the files of one image, with the table of the chunks.

    tiny form   start 3 | model id 2 | step 1
    full form   start 3 | digest 8 | coding 1 | samples 1 | flags 1 | width v | height v | [original width v, height v]
                | step 1 | checksum of the codes 4 | [region width v, height v] | length v of each stream
                | [number v, then type 1 and length v of each other chunk] | checksum 4

v is a varint; start and checksum are those of fields.py; every field is described in docs/format.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from smalti.codec.fields import (
    CHANNEL_LIMIT,
    CHECKSUM_BYTES,
    DIGEST_BYTES,
    MODEL_ID_BYTES,
    SIDE_LIMIT,
    STEP_LIMIT,
    CoderKind,
    EndOfFieldsError,
    Fields,
    Form,
    PayloadKind,
    check_range,
    check_size,
    checksum,
    damaged,
    form_of,
    named,
    start_of,
    unknown,
    varint,
)
from smalti.errors import CodecError

HEADER_LIMIT = 2**16  # bytes of any header, start and checksum included
STREAM_LIMIT = 8192  # regions of a picture
OTHER_LIMIT = 64  # chunks that are not streams
CHUNK_LIMIT = 2**28  # bytes of a chunk
METADATA_LIMIT = 2**24  # bytes of ICC profile, EXIF or XMP, unpacked

_SIXTEEN_BITS = 0x80  # in `samples`
_ORIENTATION, _ORIGINAL, _REGIONS, _OTHERS = 0x07, 0x08, 0x10, 0x20  # in `flags`


class ChunkKind(StrEnum):
    """Type of a chunk: its ASCII letter. Readers skip unknown small letters and refuse unknown capital letters."""

    STREAM = "S"  # entropy-coded codes of a region; not in the table, where only its length is
    ALPHA = "A"  # alpha plane, lossless
    RESIDUAL = "X"  # difference to the exact picture, lossless
    DECODER = "W"  # change of the decoder's weights for this picture
    ICC = "i"
    EXIF = "e"
    XMP = "m"


METADATA = (ChunkKind.ICC, ChunkKind.EXIF, ChunkKind.XMP)


class Chunk(NamedTuple):
    """One chunk of an image, unpacked."""

    kind: ChunkKind
    data: bytes


class Span(NamedTuple):
    """Where a chunk is in its file: type (a letter), first byte and length, without the checksum after it."""

    kind: str
    start: int
    length: int


@dataclass(frozen=True, kw_only=True)
class TinyHeader:
    """Header of the tiny form: an image of the model's native size, 8 bits, without metadata.

    Attributes:
        digest: first 2 bytes of the model's digest.
        step: index of the quantiser's step, 0..255.

    Raises:
        CodecError: a value is out of range.
    """

    digest: bytes
    step: int

    def __post_init__(self) -> None:
        assert len(self.digest) == MODEL_ID_BYTES
        check_range("the step index", self.step, 0, STEP_LIMIT)


@dataclass(frozen=True, kw_only=True)
class FullHeader:
    """Header of the full form.

    Attributes:
        digest: first 8 bytes of the model's digest.
        width, height: pixels of the picture that decoding gives, before orientation.
        channels: of that picture, alpha included, 1..127.
        step: index of the quantiser's step, 0..255.
        codes_checksum: CRC-32 of the decoded codes.
        payload: what the streams encode.
        coder: the entropy coder of the streams.
        bit_depth: 8 or 16, of that picture.
        orientation: as in EXIF, 1..8; to be applied by the viewer. It overrules that of an EXIF chunk.
        original: (width, height) before the picture was resized for the codec, or None if it was not.
        region: (width, height) of the regions that are coded as streams of their own, the last of a row or column
            being smaller; None if the picture is one region.

    Raises:
        CodecError: a value is out of range.
    """

    digest: bytes
    width: int
    height: int
    channels: int
    step: int
    codes_checksum: int
    payload: PayloadKind
    coder: CoderKind
    bit_depth: int = 8
    orientation: int = 1
    original: tuple[int, int] | None = None
    region: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        assert len(self.digest) == DIGEST_BYTES
        assert self.bit_depth in (8, 16)
        check_range("the width", self.width, 1, SIDE_LIMIT)
        check_range("the height", self.height, 1, SIDE_LIMIT)
        check_range("the number of channels", self.channels, 1, CHANNEL_LIMIT)
        check_range("the step index", self.step, 0, STEP_LIMIT)
        check_range("the checksum of the codes", self.codes_checksum, 0, 2**32 - 1)
        check_range("the orientation", self.orientation, 1, 8)
        for side in (*(self.original or ()), *(self.region or ())):
            check_range("a side", side, 1, SIDE_LIMIT)
        # One encoding for one content: what says nothing is absent.
        if self.original == (self.width, self.height):
            raise CodecError("the original size is that of the picture; leave it out")
        if self.region and self.region[0] >= self.width and self.region[1] >= self.height:
            raise CodecError("the picture is one region; leave the size of regions out")
        if self.streams > STREAM_LIMIT:
            raise CodecError(
                f"a picture of {self.streams:,} regions, expected up to {STREAM_LIMIT:,}; make them larger"
            )

    @property
    def streams(self) -> int:
        """Number of regions, each with its own stream."""
        width, height = self.region or (self.width, self.height)
        return -(-self.width // width) * -(-self.height // height)


Header: TypeAlias = TinyHeader | FullHeader


def header_bytes(header: FullHeader, others: bool) -> bytes:
    """The header up to the lengths of the streams."""
    flags = header.orientation - 1
    flags |= _ORIGINAL * (header.original is not None) | _REGIONS * (header.region is not None) | _OTHERS * others
    return b"".join(
        [
            start_of(Form.FULL),
            header.digest,
            bytes([header.payload << 4 | header.coder]),
            bytes([header.channels | (_SIXTEEN_BITS if header.bit_depth == 16 else 0)]),
            bytes([flags]),
            *(varint(side) for side in (header.width, header.height, *(header.original or ()))),
            bytes([header.step]),
            header.codes_checksum.to_bytes(4, "little"),
            *(varint(side) for side in header.region or ()),
        ]
    )


def parse(data: bytes, pixel_limit: int, source: str) -> tuple[Header, tuple[Span, ...]]:
    """The header at the beginning of a file, and where its chunks are.

    Raises:
        CodecError: see `read_header` of container.py; EndOfFieldsError if a longer beginning may be readable.
    """
    form = form_of(data[:3], source=source)
    if form == Form.ARCHIVE:
        raise CodecError(f"{source} is an archive of many images, expected one image; open it as an archive")
    fields = Fields(memoryview(data)[:HEADER_LIMIT], source, 3)
    if form == Form.TINY:
        tiny = TinyHeader(digest=fields.take(MODEL_ID_BYTES, "its header"), step=fields.byte("its header"))
        if not fields.left:
            raise EndOfFieldsError(f"{source} was cut short: it ends with its header; get or make it again")
        return tiny, (Span(ChunkKind.STREAM, fields.position, len(data) - fields.position),)
    header, others = _parse_header(fields, pixel_limit)
    table = [(str(ChunkKind.STREAM), _length(fields)) for _ in range(header.streams)]
    if others:
        table += _parse_others(fields)
    end = fields.position
    if checksum(memoryview(data)[:end]) != fields.take(CHECKSUM_BYTES, "its header"):
        raise damaged(source, "its header does not match its checksum")
    spans, start = [], end + CHECKSUM_BYTES
    for kind, length in table:
        spans.append(Span(kind, start, length))
        start += length + CHECKSUM_BYTES
    return header, tuple(spans)


def _parse_header(fields: Fields, pixel_limit: int) -> tuple[FullHeader, bool]:
    """The header up to the lengths of the streams, and whether there are other chunks."""
    source = fields.source
    digest, coding, samples, flags = (fields.take(count, "its header") for count in (DIGEST_BYTES, 1, 1, 1))
    payload, coder = coding[0] >> 4, coding[0] & 15
    if payload not in list(PayloadKind) or coder not in list(CoderKind) or flags[0] > 2 * _OTHERS - 1:
        raise unknown(source, f"payload {payload}, coder {coder} and flags {flags[0]:#x}")
    # Not checked against SIDE_LIMIT here: the message of FullHeader names the limit and the side.
    width, height, *original = (fields.varint("a side", 0, 2**32) for _ in range(4 if flags[0] & _ORIGINAL else 2))
    step = fields.byte("its header")
    codes_checksum = int.from_bytes(fields.take(4, "its header"), "little")
    region = tuple(fields.varint("a side", 0, 2**32) for _ in range(2 if flags[0] & _REGIONS else 0))
    with named(source):
        header = FullHeader(
            digest=digest,
            width=width,
            height=height,
            channels=samples[0] & ~_SIXTEEN_BITS,
            step=step,
            codes_checksum=codes_checksum,
            payload=PayloadKind(payload),
            coder=CoderKind(coder),
            bit_depth=16 if samples[0] & _SIXTEEN_BITS else 8,
            orientation=(flags[0] & _ORIENTATION) + 1,
            original=(original[0], original[1]) if original else None,
            region=(region[0], region[1]) if region else None,
        )
        check_sizes(header, pixel_limit)
    return header, bool(flags[0] & _OTHERS)


def check_sizes(header: FullHeader, pixel_limit: int) -> None:
    """Bound what a decoder allocates, for the original size too."""
    for width, height in ((header.width, header.height), header.original or (1, 1)):
        check_size(width, height, header.channels, pixel_limit)


def _length(fields: Fields) -> int:
    return fields.varint("the length of a chunk", 0, CHUNK_LIMIT)


def _parse_others(fields: Fields) -> list[tuple[str, int]]:
    """The table of the chunks that are not streams: type and length."""
    table: list[tuple[str, int]] = []
    known = [kind for kind in ChunkKind if kind != ChunkKind.STREAM]
    for _ in range(fields.varint("the number of other chunks", 1, OTHER_LIMIT)):
        letter = fields.take(1, "its header").decode("latin-1")
        if not (letter.isascii() and letter.isalpha()) or letter == ChunkKind.STREAM:
            raise damaged(fields.source, f"a chunk has the type {letter!r}, expected a letter other than 'S'")
        if letter in known and letter in [kind for kind, _ in table]:
            raise damaged(fields.source, f"it has two chunks {letter!r}")
        if letter not in known and letter.isupper():
            raise unknown(fields.source, f"chunk {letter!r}")
        table.append((letter, _length(fields)))
    return table
