"""Archives: many compressed images of one model in a file, with names and labels, readable in any order.

    header | block | block | ... | index | footer

A block holds 1 to 16 images that are coded together or one by one, or one image of another size. Each can be read
without the others. A file that was cut, or whose index is damaged, is readable block by block, and so are the other
blocks of one that is damaged in the middle. The parts are described in archive_header.py, archive_block.py and
archive_index.py, and byte by byte in docs/format.md.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Self

import numpy as np

from smalti.codec.archive_block import (
    HEAD_LIMIT,
    LABEL_LIMIT,
    NAME_LIMIT,
    PAYLOAD_LIMIT,
    SINGLE,
    Block,
    Head,
    images_of,
    is_intact_block,
    read_head,
    read_metadata,
)
from smalti.codec.archive_header import ARCHIVE_HEADER_LIMIT, PER_BLOCK_LIMIT, ArchiveHeader, read_archive_header
from smalti.codec.archive_index import Problem, Source, note, read_index, search
from smalti.codec.archive_writer import ArchiveWriter
from smalti.codec.container import (
    HEADER_LIMIT,
    ChunkKind,
    Form,
    Header,
    check_file_size,
    chunk_spans,
    form_of,
    read_single,
)
from smalti.codec.fields import CHECKSUM_BYTES, SIDE_LIMIT, damaged, join_payloads, split_payload
from smalti.errors import CodecError

__all__ = [
    "LABEL_LIMIT",
    "NAMES_LIMIT",
    "NAME_LIMIT",
    "PARTS",
    "PAYLOAD_LIMIT",
    "PER_BLOCK_LIMIT",
    "ArchiveHeader",
    "ArchiveReader",
    "ArchiveWriter",
    "Block",
    "FileInfo",
    "Problem",
    "info",
    "join_payloads",
    "safe_name",
    "split_payload",
]

NAMES_LIMIT = 2**28  # bytes of memory for the names of all images, each with 64 for the object
_PART_OF: dict[str, str] = {
    ChunkKind.STREAM: "payload",
    ChunkKind.ALPHA: "alpha",
    ChunkKind.RESIDUAL: "residual",
    ChunkKind.DECODER: "decoder",
}  # the others are metadata
# Parts of a file in `FileInfo.parts`.
PARTS = ("header", "payload", "alpha", "residual", "decoder", "metadata", "index", "checksums", "damaged")


class ArchiveReader:
    """Reads an archive, block by block in any order.

    Opening reads the header and the index, or without a valid index the heads of all blocks. Use it as a context
    manager. Threads and forked processes may share one.

    Args:
        source: path of the file, or its bytes.

    Attributes:
        header: what all images have in common.
        problems: damaged parts found so far; `verify` finds all. Images are numbered by the index, or without a valid
            one as they are found, so that a lost block moves the numbers of those after it.
        indexed: whether the file has a valid index; without it, it was cut or damaged, or is still being written.

    Raises:
        CodecError: the file cannot be read, is no archive, or its header is damaged.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        self._source = Source(source)
        try:
            start = self._source.read(0, ARCHIVE_HEADER_LIMIT)
            self.header, self._first = read_archive_header(start, source=self._source.name)
            self.problems, self.indexed, self._damaged = list[Problem](), True, set[int]()
            try:
                self._table, self._end = read_index(self._source, self.header, self._first)
            except CodecError as error:
                self._table, self.problems = search(self._source, self.header, self._first)
                self._end, self.indexed = self._source.size, False
                if not self.problems:
                    self.problems.append(Problem(self._end, self._end, error.problem))
            # firsts[k] is the number of the first image of block k.
            self._firsts = np.concatenate([[0], np.cumsum(self._table.counts)]).astype(np.int64)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of images."""
        return self._table.images

    @property
    def block_count(self) -> int:
        """Number of blocks."""
        return len(self._table)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that labels stand for."""
        return self.header.classes

    def block_of(self, image: int) -> tuple[int, int]:
        """The block that holds an image, and the image's place in it.

        Raises:
            IndexError: there is no such image.
        """
        if not 0 <= image < len(self):
            raise IndexError(f"image {image} of an archive of {len(self)}")
        block = int(np.searchsorted(self._firsts, image, "right")) - 1
        return block, image - int(self._firsts[block])

    def images_of(self, block: int) -> range:
        """The numbers of the images of a block."""
        if not 0 <= block < self.block_count:
            raise IndexError(f"block {block} of an archive of {self.block_count}")
        return range(int(self._firsts[block]), int(self._firsts[block + 1]))

    def read_block(self, block: int) -> Block:
        """One block, checked against its checksum.

        Raises:
            CodecError: it is damaged; the others can be read all the same.
            IndexError: there is no such block.
        """
        place, name = self._table[block], self._name(block)
        data = self._source.read(place.start - CHECKSUM_BYTES, CHECKSUM_BYTES + place.length)
        head = self._head(data, block)
        if not is_intact_block(data, head):
            raise damaged(name, "it does not match its checksum")
        names, labels = read_metadata(data, head, self.header, source=name)
        payload = data[CHECKSUM_BYTES + head.size + head.metadata : -CHECKSUM_BYTES]
        return Block(payload, images_of(place.kind), names, labels, place.kind == SINGLE)

    def read_metadata(self, block: int) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
        """Names and labels of a block's images, without reading its payload: see `Block`.

        Raises:
            CodecError: they are damaged.
            IndexError: there is no such block.
        """
        name, start = self._name(block), self._table[block].start - CHECKSUM_BYTES
        head = self._head(self._source.read(start, CHECKSUM_BYTES + HEAD_LIMIT), block)
        data = self._source.read(start, CHECKSUM_BYTES + head.size + head.metadata)
        return read_metadata(data, head, self.header, source=name)

    @cached_property
    def names(self) -> tuple[str, ...] | None:
        """Name of each image, empty where damaged and for an image without a name; None if the archive has no names.

        Names are what the writer of the file gave: `safe_name` makes paths of them.

        Raises:
            CodecError: they take more memory than `NAMES_LIMIT`; `read_metadata` reads those of a block.
        """
        names, size = list[str](), 0
        for block in range(self.block_count if self.header.named else 0):
            some, _ = self._readable_metadata(block)
            names += some or ("",) * len(self.images_of(block))
            size += sum(8 + (64 + 4 * len(name) if name else 0) for name in names[-len(self.images_of(block)) :])
            if size > NAMES_LIMIT:
                raise CodecError(f"the names in {self._source.name} take more than 256 MiB; read them block by block")
        return tuple(names) if self.header.named else None

    @cached_property
    def labels(self) -> np.ndarray | None:
        """(images,) int64 class indices, -1 where damaged and for an image without a label; None without labels."""
        if not self.header.labelled:
            return None
        labels = np.full(len(self), -1, np.int64)
        for block in range(self.block_count):
            images, (_, some) = self.images_of(block), self._readable_metadata(block)
            labels[images.start : images.stop] = -1 if some is None else some
        return labels

    def _readable_metadata(self, block: int) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
        """As `read_metadata`, but None where they are damaged, which is a problem from then on."""
        try:
            return self.read_metadata(block)
        except CodecError as error:
            self.note_problem(block, error)
            return None, None

    def verify(self) -> list[Problem]:
        """Read every block and compare it with its checksum; returns all problems, as `problems` does then."""
        for block in range(self.block_count):
            try:
                self.read_block(block)
            except CodecError as error:
                self.note_problem(block, error)
        return self.problems

    def parts(self) -> dict[str, int]:
        """Bytes by part, for each of `PARTS`; see `info`. Reads the head of every block."""
        parts = dict.fromkeys(PARTS, 0)
        parts["header"], parts["checksums"] = self._first - CHECKSUM_BYTES, CHECKSUM_BYTES
        for block in range(self.block_count):
            start = self._table[block].start - CHECKSUM_BYTES
            try:
                head = self._head(self._source.read(start, CHECKSUM_BYTES + HEAD_LIMIT), block)
            except CodecError:
                continue  # what is not counted is damaged
            parts["header"] += head.size
            parts["payload"] += head.payload
            parts["metadata"] += max(0, head.metadata - CHECKSUM_BYTES)
            parts["checksums"] += CHECKSUM_BYTES * (2 if head.metadata else 1)
        if self.indexed:
            parts["index"] = self._source.size - self._end - CHECKSUM_BYTES
            parts["checksums"] += CHECKSUM_BYTES
        parts["damaged"] += self._source.size - sum(parts.values())
        return parts

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _name(self, block: int) -> str:
        """What messages call a block.

        Raises:
            IndexError: there is no such block.
        """
        images = self.images_of(block)
        return f"block {block:,} (images {images[0]:,} to {images[-1]:,}) of {self._source.name}"

    def _head(self, data: bytes, block: int) -> Head:
        """The head of a block, which must be what the index says; `data` begins four bytes before it."""
        place = self._table[block]
        head = read_head(data[CHECKSUM_BYTES : CHECKSUM_BYTES + HEAD_LIMIT], self.header)
        if head is None or (head.kind, head.number, head.total) != (place.kind, place.number, place.length):
            raise damaged(self._name(block), "it does not begin as the index says")
        return head

    def note_problem(self, block: int, error: CodecError) -> None:
        """Add a block to `problems`, once."""
        if block not in self._damaged:
            self._damaged.add(block)
            place = self._table[block]
            note(self.problems, Problem(place.start, place.start + place.length, error.problem))


@dataclass(frozen=True)
class FileInfo:
    """What a compressed file is made of.

    Attributes:
        form: tiny, full or archive.
        header: of the file.
        images: number of images.
        size: bytes of the file.
        parts: bytes of the parts named in `PARTS`, zero where absent; they add up to `size`. The header includes tables
            of chunks and heads of blocks; metadata are ICC profile, EXIF, XMP, names, labels and unknown chunks.
        problems: damaged parts of an archive.
    """

    form: Form
    header: Header | ArchiveHeader
    images: int
    size: int
    parts: dict[str, int]
    problems: tuple[Problem, ...]


def info(source: str | os.PathLike[str] | bytes) -> FileInfo:
    """What a compressed file is made of, in bytes; nothing is decoded, but everything is checked.

    Args:
        source: path of the file, or its bytes.

    Raises:
        CodecError: it cannot be read, is no compressed file, or is damaged; an archive only if its header is.
    """
    with contextlib.closing(Source(source)) as file:
        form = form_of(file.read(0, 3), source=file.name)
        if form == Form.ARCHIVE:
            with ArchiveReader(source) as reader:
                problems = tuple(reader.verify())
                return FileInfo(form, reader.header, len(reader), file.size, reader.parts(), problems)
        # The lengths are compared before the file is read, which may be of any size.
        spans = chunk_spans(file.read(0, HEADER_LIMIT), pixel_limit=SIDE_LIMIT**2, source=file.name)
        if form == Form.FULL:
            check_file_size(spans, file.size, source=file.name)
        data = file.read(0, file.size)
    header, _ = read_single(data, pixel_limit=SIDE_LIMIT**2, source=file.name)
    parts = dict.fromkeys(PARTS, 0)
    parts["checksums"] = CHECKSUM_BYTES * (len(spans) + 1) if form == Form.FULL else 0
    for span in chunk_spans(data, pixel_limit=SIDE_LIMIT**2, source=file.name):
        parts[_PART_OF.get(span.kind, "metadata")] += span.length
    parts["header"] = len(data) - sum(parts.values())
    return FileInfo(form, header, 1, len(data), parts, ())


def safe_name(name: str) -> str:
    """A relative path with forward slashes that stays inside the folder it is joined to.

    Args:
        name: of an image in an archive, which anybody may have written.

    Raises:
        CodecError: the name is empty, absolute, has a drive letter, a part `..` or a NUL.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    problem = None
    if "\0" in name:
        problem = "has a NUL"
    elif name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":"):
        problem = "is an absolute path"
    elif any(part.strip(". ") == "" for part in parts):  # Windows drops dots and blanks at the end of a part
        problem = "leads out of the folder"
    elif not parts:
        problem = "is empty"
    if problem:
        raise CodecError(f"the name {name[:80]!a} {problem}, expected a file in a folder; choose another name for it")
    return "/".join(parts)
