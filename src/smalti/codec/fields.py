"""Fields that the compressed files are made of: the start of a file, varints, checksums, packed bytes.

    start     9E 53, then one byte: version (high 4 bits) and form (low 4 bits: 1 tiny, 2 full, 3 archive)
    varint    LEB128: 7 bits a byte, low bits first, the high bit set on all bytes but the last; the shortest encoding
              only; at most 5 bytes, or 9 where the value may reach 2^35
    checksum  CRC-32 of zlib, little-endian, over a part of the file and the checksum of the part before, which stands
              in the four bytes before it
    packed    one byte 0, then the bytes; or one byte 1, then a raw deflate stream (RFC 1951) of them

A part is thereby bound to its place in its file. A checksum must not cover what another one covers: the CRC-32 of bytes
and their CRC-32 is the same for all bytes. All fields are described in docs/format.md. Every length is compared with a
limit before anything is allocated.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np

from smalti.errors import CodecError, arg, command

MAGIC = b"\x9eS"
VERSION = 1
CHECKSUM_BYTES = 4
DIGEST_BYTES = 8
MODEL_ID_BYTES = 2  # of the digest, in the tiny form
SIDE_LIMIT = 1_000_000  # pixels
PIXEL_LIMIT = 2**28 // 3  # 256 MiB of 8-bit RGB, the same as Pillow's MAX_IMAGE_PIXELS
STEP_LIMIT = 255
CHANNEL_LIMIT = 127

_RAW, _DEFLATED = 0, 1
_WINDOW = -15  # raw deflate: no header and no checksum of its own
_PIECE = 2**15  # varints decoded at a time; bounds the temporary arrays


class Form(IntEnum):
    """What a file holds; the low 4 bits of its third byte."""

    TINY = 1
    FULL = 2
    ARCHIVE = 3


class PayloadKind(IntEnum):
    """What the payload encodes: coefficients of a transform codec, or codes of a VQ-VAE."""

    SCALAR = 1
    CODES = 2


class CoderKind(IntEnum):
    """Entropy coder: rANS with one integer as its state, rANS over image lanes, or a range coder."""

    STATE = 1
    LANES = 2
    RANGE = 3


def damaged(source: str, found: str) -> CodecError:
    """The error of a file whose bytes contradict the format."""
    return CodecError(f"{source} is damaged: {found}; get or make it again")


def unknown(source: str, found: str) -> CodecError:
    """The error of a file that needs something this version does not know, in a format that it does."""
    return CodecError(
        f"{source} has {found}, which this version of smalti does not know; update smalti, or get it again if it is "
        "damaged"
    )


@contextmanager
def named(source: str) -> Iterator[None]:
    """Put the name of a file before the message of a `CodecError` about one of its values."""
    try:
        yield
    except CodecError as error:
        raise CodecError(f"{source}: {error.message}") from None


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raise CodecError for a value outside low..high."""
    if not low <= value <= high:
        raise CodecError(f"{name} is {value:,}, expected {low:,} to {high:,}")


def check_size(width: int, height: int, channels: int, pixel_limit: int = PIXEL_LIMIT) -> None:
    """Raise CodecError for a picture that must not be allocated.

    Args:
        width, height: pixels, each 1 to `SIDE_LIMIT`.
        channels: 1 to `CHANNEL_LIMIT`; width x height x channels is limited to 4 x `pixel_limit`.
        pixel_limit: of width x height.
    """
    check_range("the width", width, 1, SIDE_LIMIT)
    check_range("the height", height, 1, SIDE_LIMIT)
    check_range("the number of channels", channels, 1, CHANNEL_LIMIT)
    if width * height > pixel_limit or width * height * channels > 4 * pixel_limit:
        raise CodecError(
            f"a picture of {width:,} x {height:,} pixels and {channels} channels is above the limit of "
            f"{pixel_limit:,} pixels and 4 times as many samples; raise {arg('pixel_limit')} for one you trust"
        )


def check_model(found: bytes, model: bytes, *, source: str) -> None:
    """Raise CodecError, with both digests, if a file was not compressed with a model.

    Args:
        found: first bytes of the digest that the file states: 2 in the tiny form, 8 in the others.
        model: SHA-256 of the model at hand, at least 8 bytes.
        source: name of the file, for the message.
    """
    if model[: len(found)] != found:
        raise CodecError(
            f"{source} was compressed with the model {found.hex()}, but this is the model "
            f"{model[:DIGEST_BYTES].hex()}; give the model whose digest begins with {found.hex()}: the file that "
            f"compressed it, or one of those that {command('zoo')} lists"
        )


def start_of(form: Form) -> bytes:
    """The first three bytes of a file."""
    return MAGIC + bytes([VERSION << 4 | form])


def is_compressed(start: bytes) -> bool:
    """Whether a file with these first bytes (at least 3) is compressed by smalti, in any form or version."""
    return len(start) >= 3 and bytes(start[:2]) == MAGIC and start[2] >> 4 > 0


def form_of(start: bytes, *, source: str = "this file") -> Form:
    """The form of a file with these first bytes.

    Raises:
        CodecError: it is empty, no file of smalti's codec, or of a newer version.
    """
    if not start:
        raise CodecError(f"{source} is empty; get or make it again")
    if not is_compressed(start):
        raise CodecError(
            f"{source} begins with {bytes(start[:3]).hex(' ')}, but a compressed file with {MAGIC.hex(' ')}; "
            f"give one that {command('compress')} wrote"
        )
    version, form = start[2] >> 4, start[2] & 15
    if version > VERSION:
        raise CodecError(
            f"{source} was written by a newer version of smalti (format {version}, this one reads up to {VERSION}); "
            "update smalti"
        )
    if form not in list(Form):
        raise damaged(source, f"its form is {form}, expected {', '.join(f'{one:d}' for one in Form)}")
    return Form(form)


def checksum(*parts: bytes | memoryview) -> bytes:
    """CRC-32 over the concatenated parts, 4 bytes, little-endian."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value.to_bytes(4, "little")


def varint(value: int) -> bytes:
    """LEB128 of a value in 0..2^63 - 1."""
    assert 0 <= value < 2**63
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def varint_list(values: Iterable[int]) -> bytes:
    """The number of values, then the values, as varints."""
    encoded = [varint(int(value)) for value in values]
    return varint(len(encoded)) + b"".join(encoded)


class Fields:
    """Reads fields one after another, never beyond the end.

    Args:
        data: bytes of the file, or its beginning.
        source: name of the file, for the messages.
        position: where to begin.

    Attributes:
        position: of the next field.
    """

    def __init__(self, data: bytes | memoryview, source: str, position: int = 0) -> None:
        self._data, self.source, self.position = memoryview(data), source, position

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return len(self._data) - self.position

    def take(self, count: int, name: str) -> bytes:
        """The next bytes.

        Raises:
            EndOfFieldsError: there are fewer.
        """
        if count > self.left:
            raise EndOfFieldsError(f"{self.source} was cut short: it ends within {name}; get or make it again")
        self.position += count
        return bytes(self._data[self.position - count : self.position])

    def byte(self, name: str) -> int:
        return self.take(1, name)[0]

    def varint(self, name: str, low: int, high: int) -> int:
        """The next varint, which must be in low..high.

        Raises:
            CodecError: it is outside, longer than its value needs, or cut.
        """
        value = 0
        longest = 5 if high < 2**35 else 9
        for index in range(longest):
            byte = self.byte(name)
            value |= (byte & 127) << 7 * index
            if byte < 128:
                if byte == 0 and index > 0:
                    raise damaged(self.source, f"{name} is not a varint of the shortest length")
                if not low <= value <= high:
                    raise damaged(self.source, f"{name} is {value:,}, expected {low:,} to {high:,}")
                return value
        raise damaged(self.source, f"{name} is a varint of more than {longest} bytes")

    def varint_list(self, name: str, limit: int) -> np.ndarray:
        """A list as `varint_list` writes it: (count,) int64.

        The varints are decoded with numpy, in pieces, so that time and memory are bounded for any contents.

        Raises:
            CodecError: there are more than `limit`, or one of them has more than 9 bytes or is not minimal.
        """
        count = self.varint(f"the number of {name}", 0, limit)
        if count > self.left:
            raise EndOfFieldsError(f"{self.source} was cut short: it ends within {name}; get or make it again")
        values = np.empty(count, np.int64)
        done = 0
        while done < count:
            wanted = min(count - done, _PIECE)
            piece = np.frombuffer(self._data[self.position :][: 9 * wanted], np.uint8)
            ends = np.flatnonzero(piece < 128)[:wanted]
            starts = np.concatenate([[0], ends[:-1] + 1])
            lengths = ends - starts[: len(ends)] + 1
            if len(ends) < wanted or int(lengths.max()) > 9:
                raise damaged(self.source, f"{name} are not varints of at most 9 bytes")
            if bool(((piece[ends] == 0) & (lengths > 1)).any()):
                raise damaged(self.source, f"{name} are not varints of the shortest length")
            part = np.zeros(wanted, np.int64)
            for index in range(int(lengths.max())):
                digits = piece[np.minimum(starts + index, len(piece) - 1)].astype(np.int64) & 127
                part += np.where(index < lengths, digits << 7 * index, 0)
            values[done : done + wanted] = part
            done += wanted
            self.position += int(ends[-1]) + 1
        return values

    def finish(self, name: str) -> None:
        """Raise CodecError if anything is left."""
        if self.left:
            raise damaged(self.source, f"{self.left:,} bytes follow {name}")


class EndOfFieldsError(CodecError):
    """The data ends within a field; more of the file may complete it."""


def pack(data: bytes) -> bytes:
    """Deflated if that is shorter, for metadata."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, _WINDOW)
    deflated = deflater.compress(data) + deflater.flush()
    return bytes([_DEFLATED]) + deflated if len(deflated) < len(data) else bytes([_RAW]) + data


def unpack(packed: bytes, *, limit: int, name: str, source: str) -> bytes:
    """Invert `pack`.

    Args:
        limit: of the number of bytes returned; no more is allocated.

    Raises:
        CodecError: the data is damaged, or longer than the limit.
    """
    kind, data = packed[:1], packed[1:]
    if kind == bytes([_DEFLATED]):
        inflater = zlib.decompressobj(_WINDOW)
        try:
            data = inflater.decompress(data, limit + 1)
        except zlib.error:
            raise damaged(source, f"{name} cannot be inflated") from None
        if len(data) <= limit and (not inflater.eof or inflater.unused_data):
            raise damaged(source, f"{name} is not one whole deflate stream")
    elif kind != bytes([_RAW]):
        raise damaged(source, f"{name} is packed in an unknown way")
    if len(data) > limit:
        raise damaged(source, f"{name} has more than {limit:,} bytes")
    return data


def join_payloads(payloads: Iterable[bytes]) -> bytes:
    """One payload of several images that are coded apart: a varint with the length of each, then all of them."""
    parts = list(payloads)
    return b"".join([*(varint(len(part)) for part in parts), *parts])


def split_payload(payload: bytes, count: int, *, source: str = "this payload") -> tuple[bytes, ...]:
    """Invert `join_payloads` for `count` images.

    Raises:
        CodecError: the lengths do not add up to the size of the payload.
    """
    fields = Fields(payload, source)
    lengths = [fields.varint("the length of a payload", 0, len(payload)) for _ in range(count)]
    parts = tuple(fields.take(length, "a payload") for length in lengths)
    fields.finish("the last payload")
    return parts
