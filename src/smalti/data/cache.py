"""The cache of packed images: one folder per data set and options, written once and opened without any decoding.

    <cache>/packed/<key>/images.npy     (N, H, W, C) uint8, plain .npy: np.load(..., mmap_mode="r") opens it
                         labels.npy     (N,) int64, absent without labels
                         index.json     format version, signature of the source, names, classes, captions, ...

The key is a hash of the path and the options. The folder is written under a temporary name and renamed once it is
complete and synced, so a folder with the final name is always complete. A killed process leaves only a temporary
folder, which is never opened and which the next packer removes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from smalti.data.packed import Description, PackedImages, RowReader
from smalti.data.sources import Listing, Numbered
from smalti.errors import OutputError, arg
from smalti.files import sync

FORMAT_VERSION = 1
_CHUNK = 4 * 2**20
_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Options:
    """The options that determine the pixels of a pack.

    Attributes:
        size: (height, width) in pixels, or None to keep the size.
        resize: "cover", "contain" or "stretch".
        channels: 1, 3 or 4, or None to keep the channels.
        unit: with "crop", its position is a multiple of this many pixels.
    """

    size: tuple[int, int] | None
    resize: str
    channels: int | None
    unit: int = 1


def cache_key(location: str, split: str | None, options: Options) -> str:
    """The folder name of a pack: 32 hexadecimal digits."""
    parts = [FORMAT_VERSION, location, split, options.size, options.resize, options.channels]
    if options.unit != 1:  # so that the keys of other packs stay what they are
        parts.append(options.unit)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def open_pack(folder: Path, signature: str, source: str) -> PackedImages | None:
    """Open the pack in a folder.

    Args:
        folder: with the index and arrays.
        signature: of the source as it is now.
        source: as the user gave it, for the result.

    Returns:
        None if there is no pack, it is damaged, or the source has changed since.
    """
    try:
        index = json.loads((folder / "index.json").read_text("utf-8"))
        if index["format"] != FORMAT_VERSION or index["signature"] != signature:
            return None
        images, rows = _map(folder / "images.npy", tuple(index["shape"]))
        labels = np.load(folder / "labels.npy", allow_pickle=False) if index["labelled"] else None
        if labels is not None and (labels.shape != images.shape[:1] or labels.dtype != np.int64):
            return None
        description = _description(index, source)
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError):
        return None  # missing or damaged: the caller packs again
    if len(description.names) != len(images):
        return None
    return PackedImages(images, labels, description, rows=rows)


class PackWriter:
    """Writes images in any order into a temporary folder that finally becomes the pack.

    Args:
        folder: final folder of the pack.
        rows: largest number of images.
        shape: (height, width, channels).

    Raises:
        OutputError: the cache cannot be written, or there is not enough disk space.
    """

    def __init__(self, folder: Path, rows: int, shape: tuple[int, int, int]) -> None:
        self.folder = folder
        self.shape = shape
        self.row_bytes = int(np.prod(shape))
        self.needed = rows * self.row_bytes
        self._written = bytearray(rows)
        self.partial = _partial(folder)
        with self._explained():
            folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder.parent)
            free = shutil.disk_usage(folder.parent).free
            if free < self.needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.partial.mkdir()
            self._file: IO[bytes] = (self.partial / "images.npy").open("wb+")
            self._offset = _write_header(self._file, (rows, *shape))

    def write(self, row: int, pixels: np.ndarray) -> None:
        """Write (n, H, W, C) uint8 to rows row .. row + n - 1."""
        assert pixels.shape[1:] == self.shape
        assert pixels.dtype == np.uint8
        with self._explained():
            self._file.seek(self._offset + row * self.row_bytes)
            self._file.write(np.ascontiguousarray(pixels).data)
        self._written[row : row + len(pixels)] = b"\1" * len(pixels)

    def rows(self) -> np.ndarray:
        """Indices of the rows written so far, ascending."""
        return np.flatnonzero(np.frombuffer(self._written, np.uint8))

    def finish(self, listing: Listing, options: Options, signature: str, skipped: list[tuple[str, str]]) -> None:
        """Remove the rows that were skipped, write labels and index, and move the folder to its final name."""
        with self._explained():
            rows = self.rows()
            self._close_gaps(rows)
            labels = None if listing.labels is None else np.asarray(listing.labels, np.int64)[rows]
            if labels is not None:
                np.save(self.partial / "labels.npy", labels)
            index = {
                "format": FORMAT_VERSION,
                "signature": signature,
                "options": {"size": options.size, "resize": options.resize, "channels": options.channels},
                "shape": [len(rows), *self.shape],
                "labelled": labels is not None,
                "split": listing.split,
                "splits": listing.splits,
                "classes": listing.classes,
                "names": _names(listing, rows),
                "captions": None if listing.captions is None else [listing.captions[row] for row in rows],
                "fingerprint": self._fingerprint(len(rows), labels, listing.classes),
                "skipped": skipped,
            }
            (self.partial / "index.json").write_text(json.dumps(index), "utf-8")
            self._file.close()
            for file in self.partial.iterdir():
                sync(file)
            sync(self.partial)
            self._publish(signature)

    def abandon(self) -> None:
        """Delete the temporary folder; does nothing after `finish`."""
        with contextlib.suppress(OSError):  # closing flushes, which fails again on a full disk
            self._file.close()
        shutil.rmtree(self.partial, ignore_errors=True)

    def _close_gaps(self, rows: np.ndarray) -> None:
        """Move rows down over those that were never written, and truncate the file."""
        for target, row in enumerate(rows.tolist()):
            if target != row:
                self._file.seek(self._offset + row * self.row_bytes)
                pixels = self._file.read(self.row_bytes)
                self._file.seek(self._offset + target * self.row_bytes)
                self._file.write(pixels)
        self._file.seek(0)
        offset = _write_header(self._file, (len(rows), *self.shape))
        assert offset == self._offset
        self._file.truncate(self._offset + len(rows) * self.row_bytes)
        self._file.flush()

    def _fingerprint(self, count: int, labels: np.ndarray | None, classes: tuple[str, ...]) -> str:
        """SHA-256 over a JSON line with shape and classes, the pixels, and the labels as little-endian int64."""
        header = {"shape": [count, *self.shape], "classes": list(classes), "labelled": labels is not None}
        digest = hashlib.sha256(json.dumps(header).encode() + b"\n")
        self._file.seek(self._offset)
        while chunk := self._file.read(_CHUNK):
            digest.update(chunk)
        if labels is not None:
            digest.update(labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def _publish(self, signature: str) -> None:
        """Rename to the final name. If another process was first its pack is kept, unless the pack is outdated."""
        for _ in range(8):
            with contextlib.suppress(OSError):  # usually the name is taken; any other cause ends the loop below
                self.partial.rename(self.folder)
                sync(self.folder.parent)
                return
            if open_pack(self.folder, signature, "") is not None:
                shutil.rmtree(self.partial, ignore_errors=True)
                return
            old = _partial(self.folder)
            with contextlib.suppress(FileNotFoundError):  # another process has moved it
                self.folder.rename(old)
            shutil.rmtree(old, ignore_errors=True)
        raise OSError(errno.EBUSY, f"{self.folder} keeps being replaced by other processes")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an OSError into one line with the place, the space needed and the remedy."""
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot write packed images to {self.folder.parent} ({error.strerror or error}); "
                f"they need {self.needed / 1e6:,.1f} MB there, or give {arg('cache', 'FOLDER')} to put them elsewhere"
            ) from error


def _partial(folder: Path) -> Path:
    """A new temporary name beside a pack; it contains the host name and process ID of the writer."""
    return folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.partial")


def _map(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, RowReader | None]:
    """Map the images into a read-only array.

    Raises:
        ValueError: the file disagrees with the index.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"npy version {version}")
        stored, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        size = os.fstat(file.fileno()).st_size
        if stored != shape or fortran or dtype != np.uint8 or len(shape) != 4 or min(shape) < 1:
            raise ValueError(f"{dtype} of shape {stored}")
        if size != file.tell() + int(np.prod(shape)):
            raise ValueError(f"{size} bytes")
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        offset = file.tell()
    images = np.frombuffer(mapping, np.uint8, offset=offset).reshape(shape)
    # Windows has no preadv: reading would move the file position that all threads share, so there the map is used.
    return images, RowReader(path, offset, images.shape[1:]) if hasattr(os, "preadv") else None


def _description(index: dict[str, Any], source: str) -> Description:
    names = index["names"]
    return Description(
        source=source,
        split=index["split"],
        splits=tuple(index["splits"]),
        classes=tuple(index["classes"]),
        names=Numbered(names["prefix"], names["count"]) if isinstance(names, dict) else names,
        captions=index["captions"],
        fingerprint=index["fingerprint"],
        skipped=tuple((name, reason) for name, reason in index["skipped"]),
    )


def _names(listing: Listing, rows: np.ndarray) -> list[str] | dict[str, Any]:
    if isinstance(listing.names, Numbered) and len(rows) == len(listing.names):
        return {"prefix": listing.names.prefix, "count": listing.names.length}
    return [listing.names[row] for row in rows]


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> int:
    """Write an .npy header and return its length in bytes, which does not change if rows are removed later."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.tell()


def _remove_abandoned(folder: Path) -> None:
    """Delete temporary folders of dead processes on this machine, and any that were untouched for a day."""
    for partial in folder.glob(".*.partial"):
        fields = partial.name.split(".")
        try:
            age = time.time() - max(file.stat().st_mtime for file in (partial, *partial.iterdir()))
        except OSError:  # another process is removing it
            continue
        host, number = ".".join(fields[2:-3]), fields[-3]
        if age > _ABANDONED_SECONDS or (host == socket.gethostname() and number.isdigit() and _is_dead(int(number))):
            shutil.rmtree(partial, ignore_errors=True)


def _is_dead(process: int) -> bool:
    if os.name == "nt":  # os.kill would terminate the process there, so only the age counts
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
