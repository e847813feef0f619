"""Sources that store images as arrays: IDX files (the MNIST family), .npz files and the built-in emoji.

    IDX   big-endian: 0, 0, type 8 (uint8), number of dimensions, each dimension as uint32, then the values;
          train-images-idx3-ubyte with train-labels-idx1-ubyte, t10k-... for the test split, each with or without .gz
    npz   images under images, x, data or arr_0, labels under labels, y, targets or arr_1; or x_train, y_train, x_test,
          y_test, also train_images, train_labels and so on for the splits train, val and test; class names, if any,
          under classes or class_names

Arrays have shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1, 3 or 4. Values are integers in 0..255, or floats
in [0, 1], which are multiplied by 255 and rounded. Without class names, the classes are called "0", "1", ...

Source of the IDX format: LeCun, Cortes & Burges, http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from smalti.data.archives import unpacked
from smalti.data.sources import SPLIT_NAMES, SPLIT_ORDER, Block, Encoded, Listing, Numbered, Source, choose_split
from smalti.errors import DataError

_BLOCK_BYTES = 4 * 2**20
_DEFLATE_RATIO = 1032  # upper bound of the compression ratio of deflate
_LABEL_LIMIT = 100_000
_LABEL_BYTES = 2**30
_NPZ_IMAGES = ("images", "x", "X", "data", "arr_0")
_NPZ_LABELS = ("labels", "y", "targets", "label", "arr_1")
_DAMAGED = (OSError, EOFError, zlib.error, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Stored:
    """An array in a file: name, shape, dtype, and whether it is in Fortran (column-major) order."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool = False

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image.

        Raises:
            DataError: the array does not have the shape of a set of images.
        """
        if len(self.shape) == 3:
            shape = (*self.shape[1:], 1)
        elif len(self.shape) == 4 and self.shape[3] in (1, 3, 4):
            shape = self.shape[1:]
        elif len(self.shape) == 4 and self.shape[1] in (1, 3, 4):
            shape = (*self.shape[2:], self.shape[1])
        else:
            raise DataError(
                f"{self.name} has shape {self.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1, 3 or 4"
            )
        if min(self.shape) < 1:
            raise DataError(f"{self.name} has shape {self.shape}: no images")
        return shape[0], shape[1], shape[2]


@dataclass(frozen=True)
class Part:
    """One split of an array source: the names of its image array and, if it has one, its label array."""

    images: str
    labels: str | None


class ArraySource(Source):
    """Base of the array sources; a format defines how an array is opened."""

    parts: dict[str | None, Part]

    @abstractmethod
    def opened(self, name: str) -> AbstractContextManager[tuple[Stored, IO[bytes]]]:
        """A context manager that gives the description of an array and the stream of its values."""

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, or None if the file has none."""
        return None

    def listing(self, split: str | None, *, look: bool) -> Listing:
        splits = tuple(name for name in self.parts if name is not None)
        chosen = choose_split(split, splits, self.location)
        part = self.parts[chosen]
        with self._explained(part.images), self.opened(part.images) as (stored, _):
            shape, count = stored.image_shape(), stored.shape[0]
        labels = self._labels(part.labels)
        if labels is not None and len(labels) != count:
            raise DataError(
                f"{self.location} has {count} images in {part.images}, {len(labels)} labels in {part.labels}"
            )
        return Listing.uniform(
            chosen,
            splits,
            Numbered(f"{chosen}/" if chosen else "", count),
            shape,
            labels=None if labels is None else labels.tolist(),
            classes=() if labels is None else self._classes(),
            counts={name: self._count(name) for name in splits},
        )

    def stream(self, listing: Listing) -> Iterator[Encoded | Block]:
        name = self.parts[listing.split].images
        with self._explained(name), self.opened(name) as (stored, stream):
            height, width, channels = stored.image_shape()
            row = 0
            for rows in _read_rows(stored, stream):
                if rows.ndim == 4 and rows.shape[3] not in (1, 3, 4):
                    rows = rows.transpose(0, 2, 3, 1)
                yield Block(row, as_pixels(rows.reshape(-1, height, width, channels), name))
                row += len(rows)

    def _count(self, split: str) -> int:
        name = self.parts[split].images
        with self._explained(name), self.opened(name) as (stored, _):
            return stored.shape[0] if stored.shape else 0

    def _labels(self, name: str | None) -> np.ndarray | None:
        if name is None:
            return None
        with self._explained(name), self.opened(name) as (stored, stream):
            shape = tuple(side for i, side in enumerate(stored.shape) if i == 0 or side != 1)  # (N, 1) counts as (N,)
            if len(shape) != 1 or stored.dtype.kind not in "ui" or shape[0] * stored.dtype.itemsize > _LABEL_BYTES:
                raise DataError(f"{name} is {stored.dtype} of shape {stored.shape}; expected (N,) integers")
            parts = [rows.reshape(-1).astype(np.int64) for rows in _read_rows(stored, stream)]
        labels = np.concatenate(parts) if parts else np.empty(0, np.int64)
        if labels.size and not (labels.min() >= 0 and labels.max() < _LABEL_LIMIT):
            span = f"{labels.min()}..{labels.max()}"
            raise DataError(f"{name} holds {span}; expected class numbers 0..{_LABEL_LIMIT - 1}")
        return labels

    def _classes(self) -> tuple[str, ...]:
        """Class names over all splits, so that the splits agree."""
        found = [self._labels(part.labels) for part in self.parts.values()]
        count = 1 + max(int(labels.max()) for labels in found if labels is not None and labels.size)
        names = self.class_names()
        if names is None:
            return tuple(str(number) for number in range(count))
        if len(names) < count:
            raise DataError(f"{self.location} names {len(names)} classes, but has labels up to {count - 1}")
        return names

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except _DAMAGED as error:
            raise DataError(
                f"{name} in {self.location} is cut short or damaged ({error}); download or make it again"
            ) from error


class IdxSource(ArraySource):
    """A folder of IDX files, or one IDX file of images with its label file in the same folder."""

    kind = "IDX"

    def __init__(self, parts: dict[str | None, Part], folder: Path, location: str) -> None:
        self.parts = parts
        self.folder = folder
        self.location = location

    def signature(self) -> str:
        names = sorted({name for part in self.parts.values() for name in (part.images, part.labels) if name})
        statuses = [(self.folder / name).stat() for name in names]
        return "/".join(f"{status.st_size}-{status.st_mtime_ns}" for status in statuses)

    @contextmanager
    def opened(self, name: str) -> Iterator[tuple[Stored, IO[bytes]]]:
        path = self.folder / name
        with unpacked(path) as stream:
            stored = _idx_header(stream, name)
            size = path.stat().st_size
            with path.open("rb") as file:
                compressed = file.read(2) == b"\x1f\x8b"
            declared = 4 + 4 * len(stored.shape) + math.prod(stored.shape)
            if declared > size * _DEFLATE_RATIO if compressed else declared != size:
                raise ValueError(f"its header declares {declared:,} bytes, the file has {size:,}")
            yield stored, stream


class NpzSource(ArraySource):
    """Arrays in a .npz file, read in blocks of rows. Nothing in it is ever unpickled."""

    kind = "npz"

    def __init__(self, path: Path, location: str) -> None:
        self.path = path
        self.location = location
        with self._explained("the list of arrays"), zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        self.parts = _npz_parts(names)
        if not self.parts:
            found = ", ".join(sorted(names)[:8]) or "(none)"
            raise DataError(f"{location} has arrays {found}; expected images, x, data, arr_0 or x_train")
        self._class_key = next((name for name in ("classes", "class_names") if name in names), None)

    def signature(self) -> str:
        status = self.path.stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    def class_names(self) -> tuple[str, ...] | None:
        if self._class_key is None:
            return None
        with self._explained(self._class_key), np.load(self.path, allow_pickle=False) as archive:
            return tuple(str(name) for name in archive[self._class_key].ravel())

    @contextmanager
    def opened(self, name: str) -> Iterator[tuple[Stored, IO[bytes]]]:
        with zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as stream:
                stored = _npy_header(stream, name)
                declared = math.prod(stored.shape) * stored.dtype.itemsize
                if declared > min(info.file_size, info.compress_size * _DEFLATE_RATIO):
                    raise ValueError(f"its header declares {declared:,} bytes, the file has {info.file_size:,}")
                yield stored, stream


class EmojiSource(Source):
    """The emoji that come with the package."""

    kind = "emoji"
    location = "emoji"

    def __init__(self) -> None:
        from smalti.data import emoji  # late: few sources need it

        self._emoji = emoji
        self._read: dict[str, emoji.EmojiSet] = {}

    def signature(self) -> str:
        return f"{self._emoji.PICTURE_SHA256}-{self._emoji.TABLE_SHA256}"

    def listing(self, split: str | None, *, look: bool) -> Listing:
        chosen = choose_split(split, self._emoji.SPLITS, self.location)
        assert chosen is not None
        self._read = {name: self._emoji.read(name) for name in self._emoji.SPLITS}
        found = self._read[chosen]
        height, width, channels = found.images.shape[1:]
        return Listing.uniform(
            chosen,
            self._emoji.SPLITS,
            found.names,
            (height, width, channels),
            labels=found.labels.tolist(),
            classes=found.classes,
            captions=found.captions,
            counts={name: len(part) for name, part in self._read.items()},
        )

    def stream(self, listing: Listing) -> Iterator[Encoded | Block]:
        assert listing.split is not None
        yield Block(0, self._read[listing.split].images)


def find_idx(path: Path, location: str) -> IdxSource | None:
    """The IDX files in a folder, or the IDX file at a path with its labels; None if there are none.

    Raises:
        DataError: the folder contains several sets of IDX files.
    """
    folder = path if path.is_dir() else path.parent
    try:
        names = sorted(child.name for child in folder.iterdir() if "idx" in child.name and child.is_file())
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}; check its permissions") from error
    if path.is_file():
        with unpacked(path) as stream:
            if stream.read(3) != b"\0\0\x08":
                return None
        return IdxSource({None: Part(path.name, _labels_beside(path.name, names))}, folder, location)
    parts: dict[str | None, Part] = {}
    for name in names:
        if not re.search(r"images?[-.]idx[34]", name):
            continue
        word = re.search(r"t10k|test|train|val", name)
        split = None if word is None else "test" if word[0] == "t10k" else word[0]
        other = parts.get(split)
        if other is not None and other.images.removesuffix(".gz") != name.removesuffix(".gz"):
            raise DataError(f"{location} has several sets of IDX files: {other.images}, {name}; give the path of one")
        parts.setdefault(split, Part(name, _labels_beside(name, names)))
    if None in parts and len(parts) > 1:
        del parts[None]
    parts = {split: parts[split] for split in (None, *SPLIT_ORDER) if split in parts}
    return IdxSource(parts, folder, location) if parts else None


def as_pixels(values: np.ndarray, name: str) -> np.ndarray:
    """Convert integers in 0..255, booleans or floats in [0, 1] to uint8.

    Args:
        values: any shape.
        name: of the array, for messages.

    Raises:
        DataError: values outside that range, or of another type.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise DataError(f"{name} holds {values.dtype}; expected uint8, or floats in [0, 1]")
    lowest, highest = values.min(), values.max()
    top = 1 if values.dtype.kind == "f" else 255
    if not (lowest >= 0 and highest <= top):  # NaN fails this too
        span = f"{values.dtype} from {lowest:g} to {highest:g}"
        raise DataError(f"{name} holds {span}; expected uint8, or floats in [0, 1]")
    return np.rint(values * 255).astype(np.uint8) if values.dtype.kind == "f" else values.astype(np.uint8)


def _read_rows(stored: Stored, stream: IO[bytes]) -> Iterator[np.ndarray]:
    """Yield an array in blocks of whole rows.

    Raises:
        EOFError: the file ends early.
        ValueError: the file goes on after the last row.
    """
    count = stored.shape[0]
    step = count if stored.fortran else max(1, _BLOCK_BYTES // max(1, stored.row_bytes))
    for start in range(0, count, step):
        rows = min(step, count - start)
        data = stream.read(rows * stored.row_bytes)
        if len(data) != rows * stored.row_bytes:
            raise EOFError(f"it ends after {start + len(data) // max(1, stored.row_bytes)} of {count} rows")
        shape = (rows, *stored.shape[1:])
        yield np.frombuffer(data, stored.dtype).reshape(shape, order="F" if stored.fortran else "C")
    if stream.read(1):
        raise ValueError(f"it goes on after {count} rows")


def _idx_header(stream: IO[bytes], name: str) -> Stored:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
        raise ValueError(f"it begins with {magic.hex()}, expected 00000801 to 00000804")
    sides = stream.read(4 * magic[3])
    if len(sides) < 4 * magic[3]:
        raise EOFError("it ends inside its header")
    return Stored(name, tuple(int(side) for side in np.frombuffer(sides, ">u4")), np.dtype(np.uint8))


def _npy_header(stream: IO[bytes], name: str) -> Stored:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy version {version}")
    shape, fortran, dtype = readers[version](stream)
    if any(side < 0 for side in shape):
        raise ValueError(f"its header declares the shape {shape}")
    if dtype.hasobject or dtype.itemsize == 0:
        raise DataError(f"{name} holds Python objects, which can run code when read; save it as uint8")
    return Stored(name, tuple(shape), dtype, fortran)


def _labels_beside(images: str, names: list[str]) -> str | None:
    """The label file of an image file, if it is among the names: train-images-idx3-ubyte -> train-labels-idx1-ubyte."""
    stem = re.sub(r"idx[34]", "idx1", images.removesuffix(".gz")).replace("images", "labels").replace("image", "label")
    if stem == images.removesuffix(".gz"):
        return None
    return next((name for name in (stem, f"{stem}.gz") if name in names), None)


def _npz_parts(names: list[str]) -> dict[str | None, Part]:
    """The image array and label array of each split, recognised by their names."""
    parts: dict[str | None, Part] = {}
    for split in SPLIT_ORDER:
        for word in (word for word, meaning in SPLIT_NAMES.items() if meaning == split):
            for images, labels in ((f"x_{word}", f"y_{word}"), (f"{word}_images", f"{word}_labels"),
                                   (f"images_{word}", f"labels_{word}"), (f"{word}_x", f"{word}_y")):  # fmt: skip
                if images in names:
                    parts.setdefault(split, Part(images, labels if labels in names else None))
    if parts:
        return parts
    only = next((name for name in _NPZ_IMAGES if name in names), None)
    beside = next((name for name in _NPZ_LABELS if name in names), None)
    return {None: Part(only, beside)} if only else {}
