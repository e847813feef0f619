"""Code sets: images encoded by a VQ-VAE, stored as one memory-mapped array of codes per split.

    FOLDER/tokenizer.safetensors   the VQ-VAE that encodes and decodes the codes
           train/codes.npy         (N, P, h, w) int16, or int32 for codebooks above 32768 codes; plain .npy
                 labels.npy        (N,) int64, absent without labels
                 index.json        codebook sizes, image shape, tokenizer digest, names, captions, fingerprint, ...
           test/...                one folder per split; `all` if the source has no splits

index.json is written last, so a folder that contains it is complete. A folder without it was interrupted while
encoding: codes.npy.partial holds the rows encoded so far, and partial.json identifies the encoding.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from smalti.data.code_index import FORMAT_VERSION, INDEX_LIMIT, CodesAbout, index_json, read_index
from smalti.data.order import Shuffled
from smalti.data.spec import CodeSpec, ImageSpec
from smalti.errors import DataError, OutputError, arg, command
from smalti.files import input_errors, lock, output_errors, sync, write_atomically

__all__ = [
    "TOKENIZER",
    "WHOLE",
    "CodeBatch",
    "CodeSet",
    "CodeWriter",
    "CodesAbout",
    "has_these_codes",
    "is_code_set",
    "open_codes",
]

TOKENIZER = "tokenizer.safetensors"
WHOLE = "all"  # name of the split folder of a source without splits
_INDEX, _CODES, _LABELS = "index.json", "codes.npy", "labels.npy"
_PARTIAL, _PARTIAL_INFO = "codes.npy.partial", "partial.json"
_EFFORT = "--effort"  # key in partial.json; kept so that an interrupted encoding of an earlier version can resume
_ELSEWHERE = f"give another {arg('out')}"
_CHUNK = 4 * 2**20


@dataclass(frozen=True)
class CodeBatch:
    """The codes of one training step.

    Attributes:
        codes: (count, P, h, w) int64.
        labels: (count,) int64, or None.
        captions: one per row, or None.
        indices: (count,) int64, rows of the code set.
    """

    codes: np.ndarray
    labels: np.ndarray | None
    captions: list[str] | None
    indices: np.ndarray


class CodeSet(Shuffled):
    """The codes of one split.

    Attributes:
        about: the metadata.
        codes: (N, P, h, w), memory-mapped, read-only.
        labels: (N,) int64 class indices, or None.
        folder: the folder of the code set, which contains the tokenizer.
    """

    def __init__(self, about: CodesAbout, codes: np.ndarray, labels: np.ndarray | None, folder: Path) -> None:
        super().__init__()
        self.about, self.codes, self.labels, self.folder = about, codes, labels, folder
        self.fingerprint, self.classes, self.split = about.fingerprint, about.classes, about.split
        self.source, self.shape = about.source, about.image

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def spec(self) -> CodeSpec:
        """Codebook sizes, grid and image shape of one example."""
        return CodeSpec(self.about.codebook_sizes, self.about.grid, ImageSpec(*self.about.image))

    @property
    def provenance(self) -> dict[str, str]:
        """Further entries for a checkpoint's card: the fingerprint of the encoded images."""
        return {"images_fingerprint": self.about.images}

    def __repr__(self) -> str:
        planes, height, width = self.about.row
        return f"CodeSet({len(self)} x {planes} x {height}x{width} of {self.about.codebook_sizes}, {self.source!r})"

    def batch(self, seed: int, images_seen: int, count: int) -> CodeBatch:
        """The rows at positions images_seen .. images_seen + count - 1 of this seed's shuffled stream (order.py)."""
        return self.take(self.indices(seed, images_seen, count))

    def take(self, indices: np.ndarray) -> CodeBatch:
        """The rows with these indices.

        Raises:
            DataError: a row contains codes outside the codebook.
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
    """Whether a folder is a code set, complete or partially encoded."""
    return any((path / split / name).is_file() for split in _splits(path) for name in (_CODES, _PARTIAL))


def _splits(path: Path) -> list[str]:
    return [name for name in ("train", "val", "test", WHOLE) if (path / name).is_dir()]


def open_codes(path: str | os.PathLike[str], split: str | None = None) -> CodeSet:
    """Open one split of a code set.

    Args:
        path: the folder that the codes were written to.
        split: "train", "val", "test" or "all"; None means "train" if there is one, otherwise the first split found.

    Raises:
        DataError: the folder contains no codes or no such split, or they are incomplete or damaged.
    """
    folder = Path(path)
    there = _splits(folder)
    if not there:
        raise DataError(f"{folder} holds no codes; write some with {command('encode', 'RUN', 'SOURCE', out=folder)}")
    wanted = split or ("train" if "train" in there else there[0])
    if wanted not in there:
        raise DataError(f"{folder} has no split {wanted!r}; it has {', '.join(there)}")
    place = folder / wanted
    if not (place / _INDEX).exists():
        raise DataError(f"{place} was not encoded to its end; repeat {command('encode')} with the same arguments")
    try:
        about, labelled = read_index(place / _INDEX)
        codes = np.lib.format.open_memmap(place / _CODES, mode="r")
        labels = np.lib.format.open_memmap(place / _LABELS, mode="r") if labelled else None
        shape = (len(about.names), *about.row)
    except Exception as error:  # damaged headers raise many different types, in numpy and in json
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


class CodeWriter:
    """Writes the codes of one split, resuming an interrupted encoding of the same images.

    Args:
        folder: the folder of the code set.
        about: the metadata, without the fingerprint of the codes.
        labels: (N,) int64 class indices, or None.
        together: batch size of the encoder. Encoding resumes at a multiple of it, because the last bits of a
            network's output depend on the batch shape.

    Attributes:
        done: number of rows written so far.

    Raises:
        OutputError: the folder contains a partial encoding of something else, another process is writing to it, it
            cannot be written, or the names and captions exceed the size limit of an index.
    """

    def __init__(self, folder: Path, about: CodesAbout, labels: np.ndarray | None, *, together: int = 1) -> None:
        self.place = folder / (about.split or WHOLE)
        self.about, self.labels = about, labels
        self._row_bytes = math.prod(about.row) * about.dtype.itemsize
        self._path, self._info_path = self.place / _PARTIAL, self.place / _PARTIAL_INFO
        size = len(index_json(about, labelled=labels is not None))
        if size > INDEX_LIMIT:
            raise OutputError(
                f"the names and captions of {len(about.names):,} images take {size / 1e6:,.0f} MB, but an index holds "
                f"at most {INDEX_LIMIT / 1e6:,.0f} MB; encode the images in parts"
            )
        with output_errors(self.place):
            self.place.mkdir(parents=True, exist_ok=True)
            resuming = self._can_resume()
            if not resuming:
                write_atomically(self._info_path, lambda file: file.write(json.dumps(self._identity()).encode()))
            self._path.touch()
            self._file: IO[bytes] = self._path.open("r+b")
            lock(self._file, f"another encoding is at work in {self.place}; wait for it, or {_ELSEWHERE}")
            if not resuming:
                self._file.truncate(0)
            header = {"descr": about.dtype.str, "fortran_order": False, "shape": (len(about.names), *about.row)}
            np.lib.format.write_array_header_1_0(self._file, header)
            self._offset = self._file.tell()
            size = self._file.seek(0, os.SEEK_END)
            self.done = min((size - self._offset) // self._row_bytes, len(about.names)) // together * together
            self._file.truncate(self._offset + self.done * self._row_bytes)
            self._file.seek(0, os.SEEK_END)

    def _identity(self) -> dict[str, Any]:
        """The settings that must agree for a partial encoding to be resumed."""
        about = self.about
        return {
            "tokenizer": about.tokenizer[:16], "fingerprint of the images": about.images,
            "number of images": len(about.names), _EFFORT: about.effort, "alphabet": list(about.codebook_sizes),
            "grid": list(about.grid),
        }  # fmt: skip

    def _can_resume(self) -> bool:
        """Whether the folder contains a partial encoding with these settings.

        Raises:
            OutputError: it contains a partial encoding with other settings.
        """
        whole = self.place / _CODES
        renamed = whole.exists() and not (self._path.exists() or (self.place / _INDEX).exists())
        if not self._info_path.exists() or not (self._path.exists() or renamed):
            return False
        try:
            there = json.loads(self._info_path.read_text("utf-8"))
        except ValueError:
            there = None
        there = there if isinstance(there, dict) else {}
        for name, value in self._identity().items():
            if there.get(name) != value:
                word = arg("effort") if name == _EFFORT else name
                raise OutputError(
                    f"{self.place} holds the beginning of another encoding: its {word} is {there.get(name)}, not "
                    f"{value}; give the command that began it, or another {arg('out')}"
                )
        if renamed:  # interrupted just before the index was written
            whole.replace(self._path)
        return True

    def append(self, codes: np.ndarray) -> None:
        """Write the next rows, (n, P, h, w)."""
        assert codes.shape[1:] == self.about.row
        with output_errors(self.place):
            self._file.write(np.ascontiguousarray(codes, self.about.dtype).data)
        self.done += len(codes)

    def flush(self) -> None:
        """Hand the appended rows to the operating system, so that they survive a kill of this process."""
        with output_errors(self.place):
            self._file.flush()

    def close(self) -> None:
        """Close the file without finishing; another writer can resume from it."""
        self._file.close()

    def finish(self) -> CodesAbout:
        """Complete the split: write labels and index, and return the metadata with its fingerprint."""
        assert self.done == len(self.about.names)
        with output_errors(self.place):
            self._file.flush()
            sync(self._path)
            about = dataclasses.replace(self.about, fingerprint=self._fingerprint())
            self._file.close()
            if self.labels is not None:
                np.save(self.place / _LABELS, self.labels)
                sync(self.place / _LABELS)
            self._path.replace(self.place / _CODES)
            content = index_json(about, labelled=self.labels is not None)
            write_atomically(self.place / _INDEX, lambda file: file.write(content))
            self._info_path.unlink()
        return about

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
    """Whether a folder already contains exactly these codes; False also if its codes are damaged.

    Raises:
        OutputError: it contains other codes.
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
            f"{place} holds codes of the tokenizer {there.tokenizer[:16]}, not of {about.tokenizer[:16]}; {_ELSEWHERE}"
        )
    captions = None if about.captions is None else list(about.captions)
    if there.images == about.images and len(there.names) != len(about.names):
        raise OutputError(
            f"{place} holds {len(there.names):,} codes of these images, not {len(about.names):,}: "
            f"{arg('flip')} makes twice as many; give it as then, or another {arg('out')}"
        )
    if (there.images, there.captions, len(there.names)) != (about.images, captions, len(about.names)):
        raise OutputError(f"{place} holds the codes of other images or captions ({there.source}); {_ELSEWHERE}")
    if there.effort != about.effort:
        raise OutputError(f"{place} holds codes of {arg('effort')} {there.effort}, not {about.effort}; {_ELSEWHERE}")
    if there.groups != about.groups:
        raise OutputError(f"{place} holds codes of {arg('groups')} {there.groups}, not {about.groups}; {_ELSEWHERE}")
    return True


def _refuse_newer(place: Path) -> None:
    """Raise OutputError if the codes are not damaged but in the format of a newer version."""
    index = place / _INDEX
    with input_errors(index, OutputError):
        content = index.read_bytes() if index.stat().st_size <= INDEX_LIMIT else b""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return
    version = found.get("format") if isinstance(found, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise OutputError(f"{place} holds codes of format {version}, which a newer smalti wrote; {_ELSEWHERE}")
