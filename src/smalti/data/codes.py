"""Code sets: the codes of a set of images, one memory-mapped array for each split.

    FOLDER/tokenizer.safetensors   the VQ-VAE that wrote the codes and reads them
           train/codes.npy         (N, P, h, w) int16, or int32 where an alphabet needs it; plain .npy
                 labels.npy        (N,) int64, absent without labels
                 index.json        alphabet, image, tokenizer's digest, names, captions, fingerprint, ...
           test/...                a folder for each split; `all` where the source has none

index.json is written last: a folder that has one is whole, in any other an encoding was stopped, the rows in
codes.npy.partial are what is done of it, and partial.json says which encoding it is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from smalti.data.order import Shuffled
from smalti.errors import DataError, OutputError
from smalti.files import input_errors, lock, output_errors, write_atomically

FORMAT_VERSION = 1
TOKENIZER = "tokenizer.safetensors"
WHOLE = "all"  # the folder of a source without splits
_INDEX, _CODES, _LABELS = "index.json", "codes.npy", "labels.npy"
_PARTIAL, _NOTE = "codes.npy.partial", "partial.json"
_INDEX_LIMIT = 2**28  # bytes; names and captions of a million images are less, in most languages
_CHUNK = 4 * 2**20


@dataclass(frozen=True)
class CodesAbout:
    """Everything about the codes of a split but the codes and labels.

    Attributes:
        codebook_sizes: number of codes in each plane.
        grid: (height, width) in codes.
        image: (channels, height, width) of the images.
        tokenizer: digest of what wrote the codes.
        source: where the images came from.
        images: the fingerprint of the images.
        split, splits: which split it is, and all there are.
        classes, names, captions: as those of the images; captions None where there are none.
        effort: rounds in which the codes were improved.
        groups: how many the images were sorted into, for labels; 0: the labels are the source's.
        fingerprint: SHA-256 over alphabet, grid, image, tokenizer and classes, and over codes, labels and captions.
    """

    codebook_sizes: tuple[int, ...]
    grid: tuple[int, int]
    image: tuple[int, int, int]
    tokenizer: str
    source: str
    images: str
    split: str | None
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    names: Sequence[str]
    captions: Sequence[str] | None
    effort: int = 0
    groups: int = 0
    fingerprint: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("<i2" if max(self.codebook_sizes) <= 2**15 else "<i4")

    @property
    def row(self) -> tuple[int, int, int]:
        """(planes, height, width) of one image's codes."""
        return len(self.codebook_sizes), *self.grid


@dataclass(frozen=True)
class CodeBatch:
    """Codes of one step: (count, P, h, w) int64, labels (count,) int64 or None, captions or None."""

    codes: np.ndarray
    labels: np.ndarray | None
    captions: list[str] | None
    indices: np.ndarray


class CodeSet(Shuffled):
    """The codes of one split.

    Attributes:
        about: everything but codes and labels.
        codes: (N, P, h, w), memory-mapped, read-only.
        labels: (N,) int64 class numbers, or None.
        folder: of the whole set, which holds its tokenizer.
    """

    def __init__(self, about: CodesAbout, codes: np.ndarray, labels: np.ndarray | None, folder: Path) -> None:
        super().__init__()
        self.about, self.codes, self.labels, self.folder = about, codes, labels, folder
        self.fingerprint, self.classes, self.split = about.fingerprint, about.classes, about.split
        self.source, self.shape = about.source, about.image

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        planes, height, width = self.about.row
        return f"CodeSet({len(self)} x {planes} x {height}x{width} of {self.about.codebook_sizes}, {self.source!r})"

    def batch(self, seed: int, images_seen: int, count: int) -> CodeBatch:
        """Rows at positions images_seen .. images_seen + count - 1 of the stream of this seed: order.py."""
        return self.take(self.indices(seed, images_seen, count))

    def take(self, indices: np.ndarray) -> CodeBatch:
        """Some rows.

        Raises:
            DataError: one holds codes that its tokenizer cannot have written.
        """
        codes = self.codes[indices].astype(np.int64)
        limit = np.array(self.about.codebook_sizes)[:, None, None]
        if codes.size and (codes.min() < 0 or (codes >= limit).any()):
            raise DataError(
                f"{self.folder} holds codes outside of its alphabet {self.about.codebook_sizes}; encode it again"
            )
        labels = None if self.labels is None else self.labels[indices]
        captions = self.about.captions
        texts = None if captions is None else [captions[index] for index in indices.tolist()]
        return CodeBatch(codes, labels, texts, indices)


def is_code_set(path: Path) -> bool:
    """Whether a folder holds codes, whole or begun."""
    return any((path / split / name).is_file() for split in _splits(path) for name in (_CODES, _PARTIAL))


def _splits(path: Path) -> list[str]:
    return [name for name in ("train", "val", "test", WHOLE) if (path / name).is_dir()]


def open_codes(path: str | os.PathLike[str], split: str | None = None) -> CodeSet:
    """The codes of one split of a folder.

    Args:
        split: which one; None: train, or all where there are no splits.

    Raises:
        DataError: there are none, or they are not whole; what to do stands in the message.
    """
    folder = Path(path)
    there = _splits(folder)
    if not there:
        raise DataError(f"{folder} holds no codes; write some with smalti encode RUN SOURCE --out {folder}")
    wanted = split or ("train" if "train" in there else there[0])
    if wanted not in there:
        raise DataError(f"{folder} has no split {wanted!r}; it has {', '.join(there)}")
    place = folder / wanted
    if not (place / _INDEX).exists():
        raise DataError(f"{place} was not encoded to its end; give the same smalti encode command again")
    try:
        about, labelled = _read_index(place / _INDEX)
        codes = np.lib.format.open_memmap(place / _CODES, mode="r")
        labels = np.lib.format.open_memmap(place / _LABELS, mode="r") if labelled else None
        shape = (len(about.names), *about.row)
    except Exception as error:  # numpy raises half a dozen types for a damaged header, and json as many
        raise DataError(f"{place} is damaged or was cut short ({str(error)[:160]}); encode it again") from None
    if codes.shape != shape or codes.dtype != about.dtype:
        raise DataError(f"{place} holds {codes.dtype} of shape {codes.shape}, but its index says {shape}; encode again")
    if labels is None:
        return CodeSet(about, codes, None, folder)
    if labels.shape != shape[:1] or labels.dtype != np.int64:
        raise DataError(f"{place} holds {labels.shape} labels for {shape[0]} images; encode it again")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(about.classes):
        raise DataError(f"{place} holds labels outside of its {len(about.classes)} classes; encode it again")
    return CodeSet(about, codes, np.array(labels), folder)


def _read_index(path: Path) -> tuple[CodesAbout, bool]:
    if path.stat().st_size > _INDEX_LIMIT:
        raise ValueError("its index is too large")
    plain = json.loads(path.read_text("utf-8"))
    version = plain.pop("format")
    if version != FORMAT_VERSION:
        raise ValueError(f"it has the format {version!r}, this version reads {FORMAT_VERSION}")
    labelled = bool(plain.pop("labelled"))
    for name in ("codebook_sizes", "grid", "image", "splits", "classes"):
        plain[name] = tuple(plain[name])
    about = CodesAbout(**plain)
    whole = (*about.codebook_sizes, *about.grid, *about.image)
    counts = (len(about.grid), len(about.image))
    if not all(type(number) is int and 1 <= number <= 2**31 for number in whole) or counts != (2, 3):
        raise ValueError("its sizes make no sense")
    if not about.codebook_sizes:
        raise ValueError("its alphabet is empty")
    texts = (about.tokenizer, about.source, about.images, about.fingerprint, about.split or "", *about.classes)
    lists = (about.names, [] if about.captions is None else about.captions)
    if not all(isinstance(text, str) for text in (*texts, *about.splits)) or not all(
        isinstance(entries, list) and all(isinstance(entry, str) for entry in entries) for entries in lists
    ):
        raise ValueError("what should be text is none")
    if about.captions is not None and len(about.captions) != len(about.names):
        raise ValueError(f"{len(about.captions)} captions for {len(about.names)} images")
    return about, labelled


class CodeWriter:
    """Writes the codes of a split, and goes on where an earlier writer of the same was stopped.

    Args:
        together: rows that are encoded at once; an encoding goes on at a multiple of it, for even the last bit of what
            a network computes depends on the shape of a batch.

    Attributes:
        done: rows that are written.

    Raises:
        OutputError: the folder holds the beginning of other codes, another writer is at work in it, it cannot be
            written, or there are more names and captions than an index holds.
    """

    def __init__(self, folder: Path, about: CodesAbout, labels: np.ndarray | None, *, together: int = 1) -> None:
        self.place = folder / (about.split or WHOLE)
        self.about, self.labels = about, labels
        self._row_bytes = math.prod(about.row) * about.dtype.itemsize
        self._path, self._note = self.place / _PARTIAL, self.place / _NOTE
        size = len(self._index(about))
        if size > _INDEX_LIMIT:
            raise OutputError(
                f"the names and captions of {len(about.names):,} images take {size / 1e6:,.0f} MB, but an index holds "
                f"at most {_INDEX_LIMIT / 1e6:,.0f} MB; encode the images in parts"
            )
        with output_errors(self.place):
            self.place.mkdir(parents=True, exist_ok=True)
            begun = self._begun()
            if not begun:
                write_atomically(self._note, lambda file: file.write(json.dumps(self._told()).encode()))
            self._path.touch()
            self._file: IO[bytes] = self._path.open("r+b")
            lock(self._file, f"another encoding is at work in {self.place}; wait for it, or give another --out")
            if not begun:
                self._file.truncate(0)
            header = {"descr": about.dtype.str, "fortran_order": False, "shape": (len(about.names), *about.row)}
            np.lib.format.write_array_header_1_0(self._file, header)
            self._offset = self._file.tell()
            size = self._file.seek(0, os.SEEK_END)
            self.done = min((size - self._offset) // self._row_bytes, len(about.names)) // together * together
            self._file.truncate(self._offset + self.done * self._row_bytes)
            self._file.seek(0, os.SEEK_END)

    def _told(self) -> dict[str, Any]:
        """What tells one encoding from another."""
        about = self.about
        return {
            "tokenizer": about.tokenizer[:16], "fingerprint of the images": about.images,
            "number of images": len(about.names), "--effort": about.effort, "alphabet": list(about.codebook_sizes),
            "grid": list(about.grid),
        }  # fmt: skip

    def _begun(self) -> bool:
        """Whether the folder holds the beginning of this encoding; OutputError if it is one of another."""
        whole = self.place / _CODES
        renamed = whole.exists() and not (self._path.exists() or (self.place / _INDEX).exists())
        if not self._note.exists() or not (self._path.exists() or renamed):
            return False
        try:
            there = json.loads(self._note.read_text("utf-8"))
        except ValueError:
            there = None
        there = there if isinstance(there, dict) else {}
        for name, value in self._told().items():
            if there.get(name) != value:
                raise OutputError(
                    f"{self.place} holds the beginning of another encoding: its {name} is {there.get(name)}, not "
                    f"{value}; give the command that began it, or another --out"
                )
        if renamed:  # stopped just before the index was written
            whole.replace(self._path)
        return True

    def append(self, codes: np.ndarray) -> None:
        """The next rows, (n, P, h, w)."""
        assert codes.shape[1:] == self.about.row
        with output_errors(self.place):
            self._file.write(np.ascontiguousarray(codes, self.about.dtype).data)
        self.done += len(codes)

    def flush(self) -> None:
        """What is appended outlasts a kill."""
        with output_errors(self.place):
            self._file.flush()

    def close(self) -> None:
        """Stop here; another writer of the same goes on."""
        self._file.close()

    def finish(self) -> CodesAbout:
        """See that all is there, and say so; returns what is said."""
        assert self.done == len(self.about.names)
        with output_errors(self.place):
            self._file.flush()
            os.fsync(self._file.fileno())
            about = dataclasses.replace(self.about, fingerprint=self._fingerprint())
            self._file.close()
            if self.labels is not None:
                np.save(self.place / _LABELS, self.labels)
            self._path.replace(self.place / _CODES)
            content = self._index(about)
            write_atomically(self.place / _INDEX, lambda file: file.write(content))
            self._note.unlink()
        return about

    def _index(self, about: CodesAbout) -> bytes:
        plain = {field.name: getattr(about, field.name) for field in dataclasses.fields(about)}
        plain["names"] = list(about.names)
        plain["captions"] = None if about.captions is None else list(about.captions)
        return json.dumps({"format": FORMAT_VERSION, "labelled": self.labels is not None, **plain}).encode()

    def _fingerprint(self) -> str:
        about = self.about
        header = [
            about.codebook_sizes,
            about.grid,
            about.image,
            about.tokenizer,
            about.classes,
            about.captions is not None,
        ]
        digest = hashlib.sha256(json.dumps(header).encode() + b"\n")
        self._file.seek(self._offset)
        while chunk := self._file.read(_CHUNK):
            digest.update(chunk)
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        for caption in about.captions or ():
            digest.update(caption.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()


def has_these_codes(folder: Path, about: CodesAbout) -> bool:
    """Whether a folder holds the codes that are described already; False too where what it holds is damaged.

    Raises:
        OutputError: it holds others.
    """
    split = about.split or WHOLE
    place = folder / split
    if not (place / _INDEX).exists():
        return False
    try:
        there = open_codes(folder, split).about
    except DataError:
        _refuse_newer(place)
        return False
    if there.tokenizer != about.tokenizer:
        raise OutputError(
            f"{place} holds codes of the tokenizer {there.tokenizer[:16]}, not of {about.tokenizer[:16]}; "
            "give another --out"
        )
    captions = None if about.captions is None else list(about.captions)
    if there.images == about.images and len(there.names) != len(about.names):
        raise OutputError(
            f"{place} holds {len(there.names):,} codes of these images, not {len(about.names):,}: "
            "--flip makes twice as many; give it as then, or another --out"
        )
    if (there.images, there.captions, len(there.names)) != (about.images, captions, len(about.names)):
        raise OutputError(f"{place} holds the codes of other images or captions ({there.source}); give another --out")
    if there.effort != about.effort:
        raise OutputError(f"{place} holds codes of --effort {there.effort}, not {about.effort}; give another --out")
    if there.groups != about.groups:
        raise OutputError(f"{place} holds codes of --groups {there.groups}, not {about.groups}; give another --out")
    return True


def _refuse_newer(place: Path) -> None:
    """OutputError where the codes are not damaged, but of a version to come."""
    index = place / _INDEX
    with input_errors(index, OutputError):
        content = index.read_bytes() if index.stat().st_size <= _INDEX_LIMIT else b""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return
    version = found.get("format") if isinstance(found, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise OutputError(f"{place} holds codes of format {version}, which a newer smalti wrote; give another --out")
