"""Header of an archive.

    start 3 | digest 8 | coding 1 | samples 1 | flags 1 | width v | height v | step 1 | images a block 1
    | length v and packed JSON | checksum 4

v is a varint; start, packed and checksum are those of fields.py; every field is described in docs/format.md. A header
without classes and metadata has 24 bytes, with sides below 128 pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from smalti.codec.fields import (
    CHECKSUM_BYTES,
    DIGEST_BYTES,
    PIXEL_LIMIT,
    STEP_LIMIT,
    CoderKind,
    Fields,
    Form,
    PayloadKind,
    check_range,
    check_size,
    checksum,
    damaged,
    form_of,
    named,
    pack,
    start_of,
    unknown,
    unpack,
    varint,
)
from smalti.errors import CodecError

PER_BLOCK_LIMIT = 16  # images
TEXT_LIMIT = 2**20  # bytes of the JSON text of the header
ARCHIVE_HEADER_LIMIT = TEXT_LIMIT + 2**10  # bytes

_SIXTEEN_BITS = 0x80  # in `samples`
_NAMED, _LABELLED, _APART = 1, 2, 4  # in `flags`


@dataclass(frozen=True, kw_only=True)
class ArchiveHeader:
    """What all images of an archive have in common.

    Attributes:
        digest: first 8 bytes of the model's digest.
        width, height: the model's native size in pixels; images of other sizes are blocks of their own.
        channels: of an image, 1..127.
        step: index of the quantiser's step, 0..255; that of other sizes is in their own headers.
        payload: what the payloads encode.
        coder: their entropy coder.
        per_block: images of a block, 1..16; the last block, and any before an append, may have fewer.
        bit_depth: 8 or 16.
        named: whether every block has names. An empty name is that of an image without a name.
        labelled: whether every block has labels. The label -1 is that of an image without a label.
        apart: whether a block's payload is that of `join_payloads`, the images being coded one by one.
        classes: names of the classes; if there are any, labels are below their number.
        metadata: anything that JSON can express, for the user.

    Raises:
        CodecError: a value is out of range, or classes and metadata are no JSON of at most 1 MiB.
    """

    digest: bytes
    width: int
    height: int
    channels: int
    step: int
    payload: PayloadKind
    coder: CoderKind
    per_block: int = PER_BLOCK_LIMIT
    bit_depth: int = 8
    named: bool = False
    labelled: bool = False
    apart: bool = False
    classes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.digest) == DIGEST_BYTES
        assert self.bit_depth in (8, 16)
        check_size(self.width, self.height, self.channels, PIXEL_LIMIT)
        check_range("the step index", self.step, 0, STEP_LIMIT)
        check_range("the number of images a block", self.per_block, 1, PER_BLOCK_LIMIT)
        check_range("the size of classes and metadata in bytes", len(self.text()), 0, TEXT_LIMIT)

    def text(self) -> bytes:
        """Classes and metadata as JSON; empty if there are none."""
        content = {"classes": list(self.classes), "metadata": dict(self.metadata)}
        content = {key: value for key, value in content.items() if value}
        try:
            return json.dumps(content, separators=(",", ":"), allow_nan=False).encode() if content else b""
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(f"the metadata cannot be written as JSON ({error}); leave such values out") from None

    def to_bytes(self) -> bytes:
        """The header as it stands in the file."""
        text = pack(self.text())
        start = b"".join(
            [
                start_of(Form.ARCHIVE),
                self.digest,
                bytes([self.payload << 4 | self.coder]),
                bytes([self.channels | (_SIXTEEN_BITS if self.bit_depth == 16 else 0)]),
                bytes([_NAMED * self.named | _LABELLED * self.labelled | _APART * self.apart]),
                varint(self.width),
                varint(self.height),
                bytes([self.step, self.per_block]),
                varint(len(text)),
                text,
            ]
        )
        return start + checksum(start)


def read_archive_header(data: bytes, *, source: str) -> tuple[ArchiveHeader, int]:
    """The header at the beginning of an archive, of which `data` has the first `ARCHIVE_HEADER_LIMIT` bytes.

    Returns:
        The header, and its length in bytes.

    Raises:
        CodecError: the header is damaged, cut, of a newer version, or that of a single image.
    """
    form = form_of(data[:3], source=source)
    if form != Form.ARCHIVE:
        raise CodecError(f"{source} is one compressed image, expected an archive; open it as an image")
    parsed = Fields(data, source, 3)
    digest, coding, samples, flags = (parsed.take(count, "its header") for count in (DIGEST_BYTES, 1, 1, 1))
    payload, coder = coding[0] >> 4, coding[0] & 15
    if payload not in list(PayloadKind) or coder not in list(CoderKind) or flags[0] > 2 * _APART - 1:
        raise unknown(source, f"payload {payload}, coder {coder} and flags {flags[0]:#x}")
    width, height = (parsed.varint("a side", 0, 2**32) for _ in range(2))
    step, per_block = parsed.take(2, "its header")
    packed = parsed.take(parsed.varint("the length of its metadata", 1, TEXT_LIMIT + 1), "its header")
    end = parsed.position
    if checksum(data[:end]) != parsed.take(CHECKSUM_BYTES, "its header"):
        raise damaged(source, "its header does not match its checksum")
    classes, metadata = _parse_text(unpack(packed, limit=TEXT_LIMIT, name="its metadata", source=source), source)
    with named(source):
        header = ArchiveHeader(
            digest=digest,
            width=width,
            height=height,
            channels=samples[0] & ~_SIXTEEN_BITS,
            step=step,
            payload=PayloadKind(payload),
            coder=CoderKind(coder),
            per_block=per_block,
            bit_depth=16 if samples[0] & _SIXTEEN_BITS else 8,
            named=bool(flags[0] & _NAMED),
            labelled=bool(flags[0] & _LABELLED),
            apart=bool(flags[0] & _APART),
            classes=classes,
            metadata=metadata,
        )
    return header, parsed.position


def _parse_text(text: bytes, source: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Classes and metadata."""
    try:
        content = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        raise damaged(source, "its metadata is no JSON") from None
    content = content if isinstance(content, dict) else {"": content}
    classes, metadata = content.pop("classes", []), content.pop("metadata", {})
    if content or not isinstance(classes, list) or not isinstance(metadata, dict):
        raise damaged(source, "its metadata is no object of classes and metadata")
    if not all(isinstance(name, str) for name in classes):
        raise damaged(source, "a class is no text")
    return tuple(classes), metadata


def differences(there: ArchiveHeader, given: ArchiveHeader) -> list[str]:
    """Settings that differ and must agree to append: `name: value there, value given`. The metadata may differ."""
    names = [one.name for one in fields(there) if one.name not in ("digest", "metadata")]
    pairs = [(name, getattr(there, name), getattr(given, name)) for name in names]
    return [f"{name} {_shown(first)}, not {_shown(second)}" for name, first, second in pairs if first != second]


def _shown(value: object) -> str:
    if isinstance(value, PayloadKind | CoderKind):
        return value.name.lower()
    return f"{len(value)} classes" if isinstance(value, tuple) else str(value)
