"""Blocks of an archive: 1 to 16 images each.

    block     head | [packed labels and names | checksum 4] | payload | checksum 4
    head      B1 0C | kind and count 1 | length v of the payload | [length v of the packed labels and names] | check 2

v is a varint; packed and checksum are those of fields.py; every field is described in docs/format.md. What is in
brackets is there if the header of the archive says so. A checksum covers everything since the one before, and that one.
The check depends on the number of the block, too. Both find blocks that were moved or copied. A block without names and
labels has 11 bytes of overhead if its payload has 128 to 16,383 bytes, and 12 up to 2 MiB.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from smalti.codec.archive_header import PER_BLOCK_LIMIT, ArchiveHeader
from smalti.codec.fields import (
    CHECKSUM_BYTES,
    Fields,
    check_range,
    checksum,
    damaged,
    pack,
    split_payload,
    unpack,
    varint,
)
from smalti.errors import CodecError

MARKER = b"\xb1\x0c"
SINGLE = 0x10  # kind of a block with the full form of one image; the kinds 0 to 15 have 1 to 16 images
PAYLOAD_LIMIT = 2**26  # bytes
NAME_LIMIT = 4096  # bytes
LABEL_LIMIT = 2**31 - 2
HEAD_LIMIT = 16  # bytes; no head is longer
NUMBERS = 2**16  # numbers of blocks begin again after as many

_METADATA_LIMIT = PER_BLOCK_LIMIT * (NAME_LIMIT + 16)  # bytes of labels and names, packed or not


@dataclass(frozen=True, eq=False)
class Block:
    """What a block holds.

    Attributes:
        payload: the images, coded together or, if the archive says so, apart; or the full form of one image.
        count: number of images.
        names: one for each image, empty for an image without a name; None if the archive has no names.
        labels: (count,) int64 class indices, -1 for an image without a label; None if the archive has no labels.
        single: whether the payload is the full form of one image, for `read_single`.
    """

    payload: bytes
    count: int
    names: tuple[str, ...] | None
    labels: np.ndarray | None
    single: bool

    def split(self) -> tuple[bytes, ...]:
        """The payload of each image of a block whose images are coded apart, or the full form of one image.

        Raises:
            CodecError: the payload is no such payload.
        """
        return (self.payload,) if self.single else split_payload(self.payload, self.count)


class Head(NamedTuple):
    """The head of a block; lengths in bytes.

    Attributes:
        kind: number of images less one, or `SINGLE`.
        number: of the block, modulo `NUMBERS`. Any bytes give some number: it must be compared with the expected one.
        size: length of the head itself.
        metadata: length of labels and names with their checksum; 0 if the archive has none.
        payload: length of the payload.
    """

    kind: int
    number: int
    size: int
    metadata: int
    payload: int

    @property
    def total(self) -> int:
        """Length of the whole block."""
        return self.size + self.metadata + self.payload + CHECKSUM_BYTES


def images_of(kind: int) -> int:
    """Number of images of a block of this kind."""
    return (kind & 0x0F) + 1


def is_kind(kind: int, header: ArchiveHeader) -> bool:
    """Whether an archive with this header may have blocks of this kind."""
    return kind == SINGLE or 0 <= kind < header.per_block


def block_bytes(
    payload: bytes,
    kind: int,
    names: Sequence[str] | None,
    labels: Sequence[int] | None,
    *,
    number: int,
    header: ArchiveHeader,
    before: bytes,
) -> bytes:
    """A block as it stands in the file.

    Args:
        payload: 1 to `PAYLOAD_LIMIT` bytes.
        kind: see `Head`.
        names, labels: one for each image, or None if the archive has none.
        number: of the block, from 0.
        header: of the archive.
        before: the four bytes before the block in the file.

    Raises:
        CodecError: the payload or a name is too long, a name is no text, or a label is out of range.
    """
    count = images_of(kind)
    assert is_kind(kind, header)
    assert (names is not None) == header.named
    assert (labels is not None) == header.labelled
    assert names is None or len(names) == count
    assert labels is None or len(labels) == count
    check_range("the length of the payload of a block", len(payload), 1, PAYLOAD_LIMIT)
    start = MARKER + bytes([kind]) + varint(len(payload))
    if not (header.named or header.labelled):
        start += _check(start, number) + payload
        return start + checksum(before, start)
    most = len(header.classes) - 1 if header.classes else LABEL_LIMIT
    packed = pack(_label_bytes(labels or (), most) + _name_bytes(names or ()))
    start += varint(len(packed))
    start += _check(start, number) + packed
    middle = checksum(before, start)
    return start + middle + payload + checksum(middle, payload)


def read_head(data: bytes, header: ArchiveHeader) -> Head | None:
    """The head at the beginning of some bytes, of which `HEAD_LIMIT` are enough; None if there is none."""
    if data[:2] != MARKER or len(data) < 3 or not is_kind(data[2], header):
        return None
    fields = Fields(data, "", 3)
    try:
        payload = fields.varint("a length", 1, PAYLOAD_LIMIT)
        metadata = 0
        if header.named or header.labelled:
            metadata = fields.varint("a length", 1, _METADATA_LIMIT) + CHECKSUM_BYTES
        end = fields.position
        check = int.from_bytes(fields.take(2, "a head"), "little")
    except CodecError:
        return None
    return Head(data[2], check ^ (zlib.crc32(data[:end]) % NUMBERS), fields.position, metadata, payload)


def is_intact(part: bytes | memoryview) -> bool:
    """Whether a part of a file ends with its checksum; the part begins with the four bytes before it."""
    view = memoryview(part)
    return checksum(view[:-CHECKSUM_BYTES]) == view[-CHECKSUM_BYTES:]


def is_intact_block(data: bytes, head: Head) -> bool:
    """Whether a block has its full length and its checksums.

    Args:
        data: four bytes before the block, and the block.
        head: of the block.
    """
    if len(data) != CHECKSUM_BYTES + head.total:
        return False
    if not head.metadata:
        return is_intact(data)
    view, middle = memoryview(data), head.size + head.metadata
    return is_intact(view[: middle + CHECKSUM_BYTES]) and is_intact(view[middle:])


def read_metadata(
    data: bytes, head: Head, header: ArchiveHeader, *, source: str
) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """The names and labels of a block, as in `Block`.

    Args:
        data: four bytes before the block, and the block, at least as far as its payload.
        head: of the block.
        header: of the archive.
        source: what the message of an error names.

    Raises:
        CodecError: names and labels are damaged.
    """
    if not head.metadata:
        return None, None
    part = data[: CHECKSUM_BYTES + head.size + head.metadata]
    if not is_intact(part):
        raise damaged(source, "its names and labels do not match their checksum")
    packed = part[CHECKSUM_BYTES + head.size : -CHECKSUM_BYTES]
    text = unpack(packed, limit=_METADATA_LIMIT, name="the text of its names", source=source)
    fields, count = Fields(text, source), images_of(head.kind)
    labels, names, encoded = None, list[str](), b""
    if header.labelled:
        most = len(header.classes) or LABEL_LIMIT + 1
        if len(text) >= count and max(text[:count]) <= min(most, 127):  # varints of one byte each: much faster
            labels = np.frombuffer(fields.take(count, "the labels"), np.uint8).astype(np.int64) - 1
        else:
            labels = np.array([fields.varint("a label", 0, most) - 1 for _ in range(count)], np.int64)
    for _ in range(count if header.named else 0):
        shared = fields.varint("the length of a name", 0, len(encoded))
        further = fields.varint("the length of a name", 0, NAME_LIMIT - shared)
        encoded = encoded[:shared] + fields.take(further, "a name")
        names.append(encoded.decode("utf-8", "surrogateescape"))
    fields.finish("its names and labels")
    return tuple(names) if header.named else None, labels


def _check(start: bytes, number: int) -> bytes:
    """Two bytes over a head and its number, so that blocks are found without reading them whole."""
    return (zlib.crc32(start) % NUMBERS ^ number % NUMBERS).to_bytes(2, "little")


def _label_bytes(labels: Sequence[int], most: int) -> bytes:
    for label in labels:
        check_range("a label", label, -1, most)
    return b"".join(varint(int(label) + 1) for label in labels)


def _name_bytes(names: Sequence[str]) -> bytes:
    """For each name: how many bytes it shares with the beginning of the one before, how many follow, and these."""
    parts, before = [], b""
    for name in names:
        try:
            # Python reads names of files that are not UTF-8 as text with surrogates; they are kept byte by byte.
            encoded = name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise CodecError(f"the name {name[:80]!a} is no text; rename that image") from None
        check_range(f"the length of the name {name[:80]!a}", len(encoded), 0, NAME_LIMIT)
        pairs = enumerate(zip(before, encoded, strict=False))
        shared = next((place for place, (old, new) in pairs if old != new), min(len(before), len(encoded)))
        parts += [varint(shared), varint(len(encoded) - shared), encoded[shared:]]
        before = encoded
    return b"".join(parts)
