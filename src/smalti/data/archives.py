"""A common interface to folders, zip files and tar files: a tree of named files, read in a single forward pass.

    for entry, contents in tree.walk(lambda entry: entry.name.endswith(".png")): ...

Nothing is ever extracted to disk. A tar is read strictly forwards, so a compressed one is decompressed once per walk.
Members are read into memory one at a time, at most `MEMBER_LIMIT` bytes each, whatever size they declare.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from smalti.errors import DataError

MEMBER_LIMIT = 256 * 2**20
"""Largest size in bytes of a file inside a folder or archive; larger files are refused."""

_HEADER_LIMIT = 2**20  # bytes of a tar header extension (long names, pax records): tarfile reads them whole
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_NOT_REGULAR = "not a regular file"
_DAMAGED = (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error, ValueError)


@dataclass(frozen=True)
class Entry:
    """One file of a tree.

    Attributes:
        index: position in the walk, the same in every walk.
        name: path inside the tree, separated by "/".
        size: in bytes.
        problem: why the file cannot be read, or None.
    """

    index: int
    name: str
    size: int
    problem: str | None = None


Contents = bytes | Path | DataError | None
"""Contents of a file in a walk: bytes or a path to read, an error for this file, or None if they were not requested."""


def bytes_of(contents: bytes | Path) -> bytes:
    """Read a file, unless its bytes are given already.

    Raises:
        DataError: no permission, not a regular file (reading a pipe would block), or larger than `MEMBER_LIMIT`.
    """
    if isinstance(contents, bytes):
        return contents
    try:
        status = contents.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(_NOT_REGULAR)
        if status.st_size > MEMBER_LIMIT:
            raise DataError(_too_large(status.st_size))
        return contents.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from error


class Tree(ABC):
    """A folder or archive of named files."""

    kind: str

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def walk(self, wanted: Callable[[Entry], bool]) -> Generator[tuple[Entry, Contents]]:
        """Yield every file in a fixed order, with contents if `wanted` returns true and the file has no problem.

        Raises:
            DataError: the tree as a whole cannot be read.
        """

    def signature(self) -> str:
        """A string that changes whenever the files may have changed, computed without reading them."""
        status = self.path.stat()
        return f"{status.st_size}-{status.st_mtime_ns}"


class Folder(Tree):
    """A folder on disk. Symbolic links are followed; a folder that links to itself is entered once."""

    kind = "folder"

    def walk(self, wanted: Callable[[Entry], bool]) -> Generator[tuple[Entry, Contents]]:
        for index, (name, status) in enumerate(self._files()):
            problem = None
            if isinstance(status, OSError):
                problem = f"cannot be read: {status.strerror or status}"
            elif not stat.S_ISREG(status.st_mode):
                problem = _NOT_REGULAR
            elif status.st_size > MEMBER_LIMIT:
                problem = _too_large(status.st_size)
            entry = Entry(index, name, 0 if isinstance(status, OSError) else status.st_size, problem)
            yield entry, self.path / name if problem is None and wanted(entry) else None

    def signature(self) -> str:
        digest = hashlib.sha256()
        for name, status in self._files():
            numbers = (0, 0) if isinstance(status, OSError) else (status.st_size, status.st_mtime_ns)
            digest.update(f"{name}\0{numbers[0]}\0{numbers[1]}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _files(self) -> Iterator[tuple[str, os.stat_result | OSError]]:
        """Yield names in sorted order with their status, or with the error of a broken link."""
        entered: set[tuple[int, int]] = set()

        def visit(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result | OSError]]:
            try:
                with os.scandir(folder) as found:
                    children = sorted(found, key=lambda child: child.name)
            except OSError as error:
                if not prefix:
                    raise DataError(f"{folder} cannot be listed: {error.strerror}; check its permissions") from error
                yield prefix.rstrip("/"), error
                return
            for child in children:
                if is_hidden(child.name):
                    continue
                try:
                    status = child.stat()
                except OSError as error:
                    yield prefix + child.name, error
                    continue
                if not stat.S_ISDIR(status.st_mode):
                    yield prefix + child.name, status
                elif (status.st_dev, status.st_ino) not in entered:
                    entered.add((status.st_dev, status.st_ino))
                    yield from visit(folder / child.name, f"{prefix}{child.name}/")

        status = self.path.stat()
        entered.add((status.st_dev, status.st_ino))
        yield from visit(self.path, "")


class ZipArchive(Tree):
    """A zip file, read member by member."""

    kind = "zip"

    def walk(self, wanted: Callable[[Entry], bool]) -> Generator[tuple[Entry, Contents]]:
        try:
            archive = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"{self.path} is a damaged zip file ({error}); download or make it again") from error
        with archive:
            for index, info in enumerate(archive.infolist()):
                if info.is_dir() or _is_hidden_path(info.filename):
                    continue
                name, problem = _safe_name(info.filename)
                mode = info.external_attr >> 16
                if problem is None and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                    problem = "a link or device, not a file"
                if problem is None and info.flag_bits & 1:
                    problem = "encrypted; unpack it with its password first"
                if problem is None and info.file_size > MEMBER_LIMIT:
                    problem = _too_large(info.file_size)
                entry = Entry(index, name, info.file_size, problem)
                yield entry, self._read(archive, info) if problem is None and wanted(entry) else None

    def _read(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | DataError:
        try:
            with archive.open(info) as member:
                data = member.read(MEMBER_LIMIT + 1)
        except (*_DAMAGED, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            return DataError(f"damaged inside the zip file ({error})")
        return data if len(data) <= MEMBER_LIMIT else DataError(_too_large(len(data)))


class TarArchive(Tree):
    """A tar file, plain or compressed with gzip, bzip2 or xz, read forwards only."""

    kind = "tar"

    def walk(self, wanted: Callable[[Entry], bool]) -> Generator[tuple[Entry, Contents]]:
        index = -1
        try:
            with self._opened() as archive:
                for index, member in enumerate(archive):
                    archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every header in memory
                    if member.isdir() or _is_hidden_path(member.name):
                        continue
                    entry = _tar_entry(index, member)
                    contents: Contents = None
                    if entry.problem is None and wanted(entry):
                        contents = _tar_contents(archive, member)
                    yield entry, contents
        except _DAMAGED as error:
            raise DataError(
                f"{self.path} is cut short or damaged after {index + 1} files ({error}); download or make it again"
            ) from error

    @contextmanager
    def _opened(self) -> Iterator[tarfile.TarFile]:
        with unpacked(self.path) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_CheckedTarInfo) as archive:
            yield archive


class _CheckedTarInfo(tarfile.TarInfo):
    """A header whose damage is an error; tarfile takes a damaged or missing one for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)  # the block of zeros that ends an archive
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        if info.type in _EXTENSIONS and info.size > _HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {info.size:,} bytes")
        return info


def open_tree(path: Path) -> Tree | None:
    """Open the tree at a path, recognised by its contents; None for a file that is neither zip nor tar.

    Raises:
        DataError: the file cannot be read.
    """
    if path.is_dir():
        return Folder(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(tarfile.BLOCKSIZE)
        if head[:4] in (b"PK\3\4", b"PK\5\6"):
            return ZipArchive(path)
        with unpacked(path) as stream:
            first = stream.read(tarfile.BLOCKSIZE)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} cannot be read or is damaged ({error}); download or make it again") from error
    if first[257:262] == b"ustar" or (_is_tar_name(path) and len(first) == tarfile.BLOCKSIZE):
        return TarArchive(path)
    return None


def is_hidden(name: str) -> bool:
    """Whether a name begins with a dot or is one of the files that operating systems leave behind."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, decompressing gzip, bzip2 or xz as its first bytes say."""
    with path.open("rb") as stream:
        magic = stream.read(6)
    opener: Callable[..., Any] = open
    if magic[:2] == b"\x1f\x8b":
        opener = gzip.open
    elif magic[:3] == b"BZh":
        opener = bz2.open
    elif magic == b"\xfd7zXZ\0":
        opener = lzma.open
    with opener(path, "rb") as plain:
        yield plain


def _is_tar_name(path: Path) -> bool:
    return any(suffix in (".tar", ".tgz", ".txz", ".tbz2") for suffix in path.suffixes)


def _is_hidden_path(name: str) -> bool:
    return any(is_hidden(part) for part in name.replace("\\", "/").split("/") if part not in (".", ".."))


def _safe_name(name: str) -> tuple[str, str | None]:
    """A member name without "./", and the problem with it if it points outside the archive."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":"):
        return name, "an absolute path"
    if ".." in parts:
        return name, "a path that leads outside the archive"
    return "/".join(parts), None


def _tar_entry(index: int, member: tarfile.TarInfo) -> Entry:
    name, problem = _safe_name(member.name)
    if problem is None and not member.isreg():
        problem = "a link or device, not a file"
    if problem is None and member.issparse():
        problem = "a sparse file"
    if problem is None and member.size > MEMBER_LIMIT:
        problem = _too_large(member.size)
    return Entry(index, name, member.size, problem)


def _tar_contents(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    reader = archive.extractfile(member)
    assert reader is not None  # callers pass regular files only
    with reader:
        data = reader.read()
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name} has {len(data):,} of {member.size:,} bytes")
    return data


def _too_large(size: int) -> str:
    return f"{size:,} bytes; files above {MEMBER_LIMIT:,} are not read"
