"""Where the blocks of an archive are: from its index, or by a search.

    index     1D 0E | list of the lengths of the blocks | list of runs: kind, number of blocks, kind, ...
              | list of gaps: number of blocks before it, bytes, lost blocks, ... | footer
    footer    offset of the index 8 | number of images 4 | checksum 4 | "SMT" 9E

A list is a varint with the number of varints that follow; numbers of the footer are little-endian. The checksum covers
everything from the four bytes before the index. Gaps are damaged parts between blocks.

Without a valid index the file was cut or damaged. Its blocks are then found one after another by their heads; where
there is none, the search goes on byte by byte until a head is plausible and its whole block matches its checksum. Bytes
and heads that fail this are counted, so that a search takes time proportional to the size of the file at most.
"""

from __future__ import annotations

import os
import re
import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from smalti.codec.archive_block import (
    HEAD_LIMIT,
    MARKER,
    NUMBERS,
    Head,
    images_of,
    is_intact,
    is_intact_block,
    is_kind,
    read_head,
)
from smalti.codec.archive_header import ArchiveHeader
from smalti.codec.fields import CHECKSUM_BYTES, Fields, checksum, damaged, varint_list
from smalti.errors import CodecError
from smalti.files import input_errors

INDEX_MARKER = b"\x1d\x0e"
END_MAGIC = b"SMT\x9e"
FOOTER_BYTES = 20
BLOCK_LIMIT = 2**21  # blocks of an archive
INDEX_LIMIT = 2**25  # bytes

LARGEST_BLOCK = 2**26 + 2**17  # bytes, more than the largest payload with its names
_SMALLEST_BLOCK = 10
_PROBLEM_LIMIT = 1000
# Bytes searched at a time: few at first, so that a search is not longer than what it skips.
_SMALLEST_WINDOW, _LARGEST_WINDOW = 2**8, 2**20
_FAILED_HEADS = 2**14  # in a search; 16 GB of random bytes have as many


@dataclass(frozen=True)
class Problem:
    """A damaged part of an archive: bytes start..end - 1, and what is wrong with them."""

    start: int
    end: int
    what: str

    def __str__(self) -> str:
        return f"bytes {self.start:,} to {self.end:,}: {self.what}"


def note(problems: list[Problem], problem: Problem) -> None:
    """Add a problem; a long list is not continued, but its last entry is made to cover the others."""
    if len(problems) < _PROBLEM_LIMIT:
        problems.append(problem)
    else:
        problems[-1] = Problem(problems[-1].start, problem.end, "several damaged parts, and blocks between them")


class Source:
    """A file or bytes, read at any place, by several threads and after a fork.

    Args:
        data: the bytes, or the path of a file.

    Attributes:
        name: for messages.
        size: bytes.

    Raises:
        CodecError: the file cannot be opened.
    """

    def __init__(self, data: bytes | str | os.PathLike[str]) -> None:
        self._data = data if isinstance(data, bytes) else None
        self._lock = threading.Lock()
        if isinstance(data, bytes):
            self.name, self.size = "this archive", len(data)
            return
        self.name = os.fspath(data)
        with input_errors(data, CodecError):
            self._file = open(data, "rb", buffering=0)  # noqa: SIM115  # until close
            self.size = os.fstat(self._file.fileno()).st_size

    def read(self, start: int, length: int) -> bytes:
        """The bytes from `start` on, fewer at the end of the file.

        Raises:
            CodecError: the file cannot be read.
        """
        length = max(0, min(length, self.size - start))
        if self._data is not None:
            return self._data[start : start + length]
        with input_errors(self.name, CodecError):
            if hasattr(os, "pread"):
                return os.pread(self._file.fileno(), length, start)
            with self._lock:  # Windows
                self._file.seek(start)
                return self._file.read(length) or b""

    def close(self) -> None:
        if self._data is None:
            self._file.close()


class Place(NamedTuple):
    """Where a block is: first byte and length; what its head must say: kind and number modulo `NUMBERS`."""

    start: int
    length: int
    kind: int
    number: int


class BlockTable:
    """The places of blocks, growing.

    Attributes:
        images: number of images.
    """

    def __init__(self) -> None:
        self._starts, self._lengths, self._kinds, self._numbers = array("q"), array("q"), array("B"), array("H")
        self.images = 0

    @classmethod
    def of(cls, starts: np.ndarray, lengths: np.ndarray, kinds: np.ndarray, numbers: np.ndarray) -> Self:
        """The table of arrays, each (blocks,)."""
        table = cls()
        table._starts.frombytes(starts.astype(np.int64).tobytes())
        table._lengths.frombytes(lengths.astype(np.int64).tobytes())
        table._kinds.frombytes(kinds.astype(np.uint8).tobytes())
        table._numbers.frombytes((numbers % NUMBERS).astype(np.uint16).tobytes())
        table.images = int(table.counts.sum())
        return table

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, block: int) -> Place:
        return Place(self._starts[block], self._lengths[block], self._kinds[block], self._numbers[block])

    def check_room(self) -> None:
        """Raise CodecError if no block can be added."""
        if len(self) == BLOCK_LIMIT:
            raise CodecError(f"an archive has at most {BLOCK_LIMIT:,} blocks; begin another one")

    def append(self, place: Place) -> None:
        self.check_room()
        self._starts.append(place.start)
        self._lengths.append(place.length)
        self._kinds.append(place.kind)
        self._numbers.append(place.number % NUMBERS)
        self.images += images_of(place.kind)

    def pop(self) -> None:
        """Remove the last block."""
        self.images -= images_of(self._kinds.pop())
        for column in (self._starts, self._lengths, self._numbers):
            column.pop()

    def end(self, first: int) -> int:
        """The byte after the last block, or `first` without any."""
        return self._starts[-1] + self._lengths[-1] if len(self) else first

    @property
    def next_number(self) -> int:
        """The number of the block after the last one, modulo `NUMBERS`."""
        return (self._numbers[-1] + 1) % NUMBERS if len(self) else 0

    @property
    def counts(self) -> np.ndarray:
        """(blocks,) int64, images of each block."""
        return (np.array(self._kinds, np.int64) & 0x0F) + 1

    def to_bytes(self, first: int, before: bytes) -> bytes:
        """Index and footer.

        Args:
            first: the byte after the header, where the first block begins.
            before: the four bytes before the index in the file.
        """
        starts, lengths, numbers = (
            np.array(column, np.int64) for column in (self._starts, self._lengths, self._numbers)
        )
        skipped = np.diff(starts + lengths, prepend=first) - lengths
        lost = (np.diff(numbers, prepend=-1) - 1) % NUMBERS
        places = np.flatnonzero(skipped | lost)
        gaps = np.stack([places, skipped[places], lost[places]], axis=1).ravel()
        kinds = np.array(self._kinds, np.int64)
        changes = np.flatnonzero(np.diff(kinds, prepend=-1))
        runs = np.stack([kinds[changes], np.diff(changes, append=len(kinds))], axis=1).ravel()
        index = INDEX_MARKER + b"".join(varint_list(values.tolist()) for values in (lengths, runs, gaps))
        index += self.end(first).to_bytes(8, "little") + self.images.to_bytes(4, "little")
        return index + checksum(before, index) + END_MAGIC


def read_index(source: Source, header: ArchiveHeader, first: int) -> tuple[BlockTable, int]:
    """The blocks according to the index at the end of the file.

    Args:
        source: the archive.
        header: its header.
        first: the byte after the header.

    Returns:
        The blocks, and the offset of the index.

    Raises:
        CodecError: there is no index, or it is damaged.
    """
    footer = source.read(source.size - FOOTER_BYTES, FOOTER_BYTES) if source.size >= first + FOOTER_BYTES else b""
    if footer[-len(END_MAGIC) :] != END_MAGIC:
        raise CodecError(f"{source.name} has no index at its end: it was cut, or its writer was interrupted")
    offset, images = int.from_bytes(footer[:8], "little"), int.from_bytes(footer[8:12], "little")
    length = source.size - offset - len(END_MAGIC)
    if not first <= offset <= source.size - FOOTER_BYTES or length > INDEX_LIMIT:
        raise damaged(source.name, "its index is not where its last bytes say")
    data = source.read(offset - CHECKSUM_BYTES, CHECKSUM_BYTES + length)
    if not is_intact(data):
        raise damaged(source.name, "its index does not match its checksum")
    fields = Fields(memoryview(data)[: -(FOOTER_BYTES - len(END_MAGIC))], source.name, CHECKSUM_BYTES)
    if fields.take(2, "its index") != INDEX_MARKER:
        raise damaged(source.name, "its index is not where its last bytes say")
    table = _parse_lists(fields, header, first)
    if (table.end(first), table.images) != (offset, images):
        raise damaged(source.name, "its index contradicts its last bytes")
    return table, offset


def _parse_lists(fields: Fields, header: ArchiveHeader, first: int) -> BlockTable:
    lengths = fields.varint_list("lengths of blocks", BLOCK_LIMIT)
    runs = fields.varint_list("runs of kinds", 2 * BLOCK_LIMIT)
    gaps = fields.varint_list("gaps between blocks", 3 * BLOCK_LIMIT)
    fields.finish("the index")
    kinds, repeats = runs[::2], runs[1::2]
    places, skipped, lost = gaps[::3], gaps[1::3], gaps[2::3]
    right = (
        (not len(lengths) or (lengths.min() >= _SMALLEST_BLOCK and lengths.max() <= LARGEST_BLOCK))
        and len(kinds) == len(repeats)
        and not (repeats > len(lengths)).any()
        and int(repeats.sum()) == len(lengths)
        and all(is_kind(kind, header) for kind in np.unique(kinds).tolist())
        and len(places) == len(skipped) == len(lost)
        and bool((np.diff(places) > 0).all())
        and not (len(places) and places[-1] >= len(lengths))
        and skipped.sum(dtype=np.float64) < 2**62  # cannot overflow
        and not (lost >= NUMBERS).any()
    )
    if not right:
        raise damaged(fields.source, "its index is no description of blocks")
    before = np.zeros(len(lengths), np.int64)
    before[places] = skipped
    starts = first + np.cumsum(before + lengths) - lengths
    numbers = np.ones(len(lengths), np.int64)
    numbers[places] += lost
    return BlockTable.of(starts, lengths, np.repeat(kinds, repeats), np.cumsum(numbers) - 1)


def search(source: Source, header: ArchiveHeader, first: int) -> tuple[BlockTable, list[Problem]]:
    """The blocks of an archive without a valid index.

    Args:
        source: the archive.
        header: its header.
        first: the byte after the header.

    Returns:
        The blocks, of which only the first of a chain have been compared with their checksums, and the damaged parts.
    """
    table, problems, position, number = BlockTable(), list[Problem](), first, 0
    searcher = _Search(source, header)
    head = searcher.head(position, number)
    while position < source.size:
        if head is not None:
            end = position + head.total
            following = searcher.head(end, number + 1)
            # A head is right by chance in one of 65,536 cases; what follows it, or its whole block, confirms it.
            if following or end == source.size or searcher.is_index(end) or searcher.is_intact(position, head):
                table.append(Place(position, head.total, head.kind, number))
                position, number, head = end, number + 1, following
                continue
        found = searcher.next_block(position + 1, number)
        end, head = found or (source.size, None)
        lost = 0 if head is None else (head.number - number) % NUMBERS
        what = "an index that is cut or damaged" if searcher.is_index(position) else "no block, or a damaged one"
        note(problems, Problem(position, end, f"{what}; {lost:,} blocks are lost" if lost else what))
        position, number = end, number + lost
    return table, problems


class _Search:
    """Looks for blocks, with a bound on the bytes and heads that turn out to be none."""

    def __init__(self, source: Source, header: ArchiveHeader) -> None:
        self._source, self._header = source, header
        kinds = bytes(kind for kind in range(256) if is_kind(kind, header))
        self._pattern = re.compile(re.escape(MARKER) + b"[" + re.escape(kinds) + b"]", re.DOTALL)
        self._heads_left, self._bytes_left = _FAILED_HEADS, source.size + LARGEST_BLOCK

    def head(self, position: int, number: int, leeway: int = 0) -> Head | None:
        """The head of a block with a number, or of one that is up to `leeway` later, if the file has room for it."""
        head = read_head(self._source.read(position, HEAD_LIMIT), self._header)
        if head is None or position + head.total > self._source.size or (head.number - number) % NUMBERS > leeway:
            return None
        return head

    def is_index(self, position: int) -> bool:
        return self._source.read(position, len(INDEX_MARKER)) == INDEX_MARKER

    def is_intact(self, position: int, head: Head) -> bool:
        if self._heads_left <= 0 or self._bytes_left <= 0:
            return False
        if is_intact_block(self._source.read(position - CHECKSUM_BYTES, CHECKSUM_BYTES + head.total), head):
            return True
        self._bytes_left -= head.total
        return False

    def next_block(self, position: int, number: int) -> tuple[int, Head] | None:
        """The first intact block that begins at a position or later, and not before another one in number.

        Returns:
            Where it begins, and its head; None if there is none, or the search is given up.
        """
        for place in self._markers(position):
            if self._heads_left <= 0 or self._bytes_left <= 0:
                return None
            head = self.head(place, number, 1 + (place - position) // _SMALLEST_BLOCK)
            if head is not None and self.is_intact(place, head):
                return place, head
            self._heads_left -= 1
        return None

    def _markers(self, position: int) -> Iterator[int]:
        """Where a marker and a valid kind stand."""
        length = _SMALLEST_WINDOW
        while position + 3 <= self._source.size:
            window = self._source.read(position, length)
            yield from (position + match.start() for match in self._pattern.finditer(window))
            position += len(window) - 2  # a marker and a kind may lie across the end of the window
            length = min(2 * length, _LARGEST_WINDOW)
