"""Writing an archive block by block.

Every block is handed to the operating system when it is added, so it survives a kill of this process. `close` writes
the index; an archive without one was not finished, can be read all the same, and can be appended to.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from smalti.codec.archive_block import SINGLE, block_bytes, is_intact_block, is_kind, read_head
from smalti.codec.archive_header import ARCHIVE_HEADER_LIMIT, ArchiveHeader, differences, read_archive_header
from smalti.codec.archive_index import BlockTable, Place, Source, read_index, search
from smalti.codec.container import FullHeader, read_single
from smalti.codec.fields import CHECKSUM_BYTES, SIDE_LIMIT, check_model, split_payload
from smalti.errors import CodecError, OutputError, arg
from smalti.files import lock, output_errors


class ArchiveWriter:
    """Writes a new archive.

    Use it as a context manager: leaving it without an exception writes the index.

    Args:
        path: the file.
        header: what all images have in common.
        overwrite: replace an existing file.

    Attributes:
        path: the file.
        header: what all images have in common.
        dropped: for `append`, what was damaged at the end of the file and has been cut off; empty if nothing was.

    Raises:
        OutputError: the file exists, cannot be written, or is being written by another process.
    """

    def __init__(self, path: str | os.PathLike[str], header: ArchiveHeader, *, overwrite: bool = False) -> None:
        self.path, self.header, self.dropped = Path(path), header, ""
        start = header.to_bytes()
        self._table, self._first, self._before = BlockTable(), len(start), start[-CHECKSUM_BYTES:]
        try:
            with output_errors(self.path):
                # Not truncated before it is locked. Unbuffered: what has been written is out of this process.
                file = self.path.open("ab" if overwrite else "xb", buffering=0)
        except OutputError:
            if overwrite or not self.path.exists():
                raise
            raise OutputError(
                f"{self.path} exists; give another {arg('out')}, or {arg('overwrite', True)} to replace it"
            ) from None
        self._file = self._locked(file)
        with self._safely():
            self._file.truncate(0)
            self._write(start)

    @classmethod
    def append(cls, path: str | os.PathLike[str], header: ArchiveHeader) -> Self:
        """Go on with an archive, also with one that was cut or whose writer was interrupted.

        Args:
            path: the file.
            header: as it was written with; only the metadata may differ, and stay as they are in the file.

        Raises:
            CodecError: the file does not exist, is no archive, or is one of another model or other settings.
            OutputError: it cannot be written, or is being written by another process.
        """
        writer = cls.__new__(cls)
        writer.path = Path(path)
        if not writer.path.exists():
            raise CodecError(f"{path} does not exist; begin a new archive")
        with output_errors(writer.path):
            writer._file = writer._locked(writer.path.open("r+b", buffering=0))
        try:
            writer._find_end(header)
        except BaseException:
            writer._file.close()
            raise
        with writer._safely():
            writer._file.truncate(writer._end)
            writer._file.seek(writer._end)
        return writer

    def _find_end(self, header: ArchiveHeader) -> None:
        """Read header and blocks of an existing archive, as far as they are whole."""
        source, name = Source(self.path), str(self.path)
        with contextlib.closing(source):
            self.header, self._first = read_archive_header(source.read(0, ARCHIVE_HEADER_LIMIT), source=name)
            check_model(self.header.digest, header.digest, source=name)
            if differing := differences(self.header, header):
                raise CodecError(
                    f"{name} was written with {', '.join(differing)}; give the settings it was written with"
                )
            self._table, self.dropped = BlockTable(), ""
            try:
                self._table, _ = read_index(source, self.header, self._first)
            except CodecError:
                self._table, _ = search(source, self.header, self._first)
                while len(self._table) and not self._last_is_intact(source):
                    self._table.pop()
                if source.size > self._end:
                    last = f"the block of image {self.images - 1:,}" if self.images else "the header"
                    self.dropped = f"{source.size - self._end:,} damaged bytes after {last}"
            self._before = source.read(self._end - CHECKSUM_BYTES, CHECKSUM_BYTES)

    def _last_is_intact(self, source: Source) -> bool:
        last = self._table[len(self._table) - 1]
        data = source.read(last.start - CHECKSUM_BYTES, CHECKSUM_BYTES + last.length)
        head = read_head(data[CHECKSUM_BYTES:], self.header)
        return head is not None and is_intact_block(data, head)

    @property
    def images(self) -> int:
        """Images in the file so far; they are safe whatever happens to this process."""
        return self._table.images

    @property
    def _end(self) -> int:
        """The byte after the last whole block."""
        return self._table.end(self._first)

    def write_block(
        self,
        payload: bytes,
        *,
        count: int,
        names: Sequence[str] | None = None,
        labels: Sequence[int] | None = None,
    ) -> None:
        """Add a block of images of the native size.

        Args:
            payload: of all of them; that of `join_payloads` if the archive's images are coded apart.
            count: number of images, 1 to `header.per_block`.
            names, labels: one for each image if the header says so, None otherwise.

        Raises:
            CodecError: the payload or a name is too long, a name is no text, or a label out of range; nothing is
                written.
            OutputError: the disk is full or cannot be written. The writer is closed, and what was written before can be
                read and appended to; the message says how many images that is.
        """
        kind = count - 1
        assert is_kind(kind, self.header)
        assert kind != SINGLE
        if self.header.apart:
            split_payload(payload, count)
        self._add(payload, kind, names, labels)

    def write_single(self, data: bytes, *, name: str = "", label: int = -1) -> None:
        """Add an image of another size as a block of its own.

        Args:
            data: its full form, as `write_single` of container.py makes it, with the model of this archive.
            name, label: used if the archive has names or labels.

        Raises:
            CodecError, OutputError: as `write_block`; or the data are no such image.
        """
        header, _ = read_single(data, pixel_limit=SIDE_LIMIT**2)
        assert isinstance(header, FullHeader)
        check_model(header.digest, self.header.digest, source="this image")
        names = [name] if self.header.named else None
        self._add(data, SINGLE, names, [label] if self.header.labelled else None)

    def _add(self, payload: bytes, kind: int, names: Sequence[str] | None, labels: Sequence[int] | None) -> None:
        assert not self._file.closed
        number = self._table.next_number
        block = block_bytes(payload, kind, names, labels, number=number, header=self.header, before=self._before)
        self._table.check_room()
        with self._safely():
            self._write(block)
        self._table.append(Place(self._end, len(block), kind, number))
        self._before = block[-CHECKSUM_BYTES:]

    def flush(self) -> None:
        """Wait until everything is on the disk, so that it survives a power cut too."""
        with self._safely():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the index and close the file. Does nothing if it is closed.

        Raises:
            OutputError: the disk is full; the archive is closed without an index.
        """
        if self._file.closed:
            return
        with self._safely():
            self._write(self._table.to_bytes(self._first, self._before))
            os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            # No index: what is not finished should not look as if it were.
            self._abandon()

    def _locked(self, file: FileIO) -> FileIO:
        lock(file, f"another process is writing {self.path}; wait for it, or give another {arg('out')}")
        return file

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # a nearly full disk takes a part
            view = view[self._file.write(view) or 0 :]

    @contextlib.contextmanager
    def _safely(self) -> Iterator[None]:
        """Cut off what was only written in part, and close the file, if something goes wrong."""
        try:
            yield
        except OSError as error:
            self._abandon()
            full = error.errno == errno.ENOSPC
            remedy = "free some space" if full else f"give another {arg('out')}, or copy this file there"
            raise OutputError(
                f"cannot write {self.path} ({error.strerror or error}), its first {self.images:,} images are safe; "
                f"{remedy}, and append the others"
            ) from None
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            self._file.close()
