"""Packed images: one memory-mapped array, and batches that are a function of (seed, images seen).

Position p in the stream of training images shows

    image  permutation(seed, p // N)[p % N]        each epoch shows every image once
    flip   bit 0 of hash(seed, p)
    shift  halves of another hash(seed, p), taken to -reach..reach

so a run that stops at any moment goes on with the same images, with any batch size, and nothing needs saving.
The hash and the permutation are those of order.py.

Pixels are uint8, (N, height, width, channels).
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smalti.data.augmentation import mirrored, moved
from smalti.data.order import Shuffled
from smalti.errors import DataError
from smalti.runtime.hashing import hash_integer, hashes


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    Attributes:
        images: (count, H, W, C) uint8, contiguous and writable.
        labels: (count,) int64, or None.
        indices: (count,) int64, rows of the pack.
    """

    images: np.ndarray
    labels: np.ndarray | None
    indices: np.ndarray


@dataclass(frozen=True)
class Order:
    """Which pixels a batch is made of.

    Attributes:
        indices: (count,) int64, rows of the pack.
        rows, columns: (count, H) and (count, W) int64, where in its image each row and column of a batch's image lies.
        labels: (count,) int64, or None.
    """

    indices: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    labels: np.ndarray | None


@dataclass(frozen=True)
class Description:
    """Everything about packed images but the pixels and labels; see `PackedImages` for the fields."""

    source: str
    split: str | None
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    names: Sequence[str]
    captions: Sequence[str] | None
    fingerprint: str
    skipped: tuple[tuple[str, str], ...]


class RowReader:
    """Reads rows of a file of equal rows at any place, from any thread, past the memory map.

    Mapped pages count as memory of the process, 2 MiB for each touched image where the system caches files in huge
    pages, and a file that is cut short kills the process that has mapped it. Reading has neither problem.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, int, int]) -> None:
        """`offset` is where the first row begins, in bytes; `shape` is that of a row, uint8."""
        self._path = path
        self._offset = offset
        self._shape = shape
        self._row_bytes = math.prod(shape)
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), *shape) uint8."""
        images = np.empty((len(rows), *self._shape), np.uint8)
        for image, row in zip(images, rows.tolist(), strict=True):
            if os.preadv(self._file, [image.data], self._offset + row * self._row_bytes) != self._row_bytes:
                raise DataError(
                    f"{self._path} was cut short while it was in use; start again, so that it is packed again"
                )
        return images


class PackedImages(Shuffled):
    """Images of one size and one number of channels, on disk.

    Attributes:
        images: (N, H, W, C) uint8, memory-mapped, read-only.
        labels: (N,) int64 class numbers, or None.
        classes: names of the classes, () without labels.
        names: N paths inside the source, or "train/00012" where images have no names.
        captions: N texts, or None.
        fingerprint: SHA-256 over shape, pixels, labels and classes, hexadecimal; names and paths do not count.
        source: what was loaded.
        split: which split of it, or None.
        splits: which splits it offers.
        skipped: (name, reason) of the files that could not be read.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        description: Description,
        *,
        rows: RowReader | None = None,
    ) -> None:
        """`rows` reads the same pixels from the file; without it they are taken from `images`."""
        self.images = images
        self.labels = labels
        self.classes = description.classes
        self.names = description.names
        self.captions = description.captions
        self.fingerprint = description.fingerprint
        self.source = description.source
        self.split = description.split
        self.splits = description.splits
        self.skipped = description.skipped
        self._rows = rows
        super().__init__()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, height, width, channels = self.images.shape
        return channels, height, width

    def __repr__(self) -> str:
        channels, height, width = self.shape
        split = f", split {self.split!r}" if self.split else ""
        size = f"{len(self)} images {height}x{width}x{channels}"
        return f"PackedImages({size}, {len(self.classes)} classes{split}, {self.source!r})"

    def batch(self, seed: int, images_seen: int, count: int, *, flip: bool = False, shift: int = 0) -> Batch:
        """Images at positions images_seen .. images_seen + count - 1 of the stream of this seed.

        Args:
            seed: any integer; its lowest 64 bits count.
            images_seen: images that came before in this training.
            count: images wanted; a batch may reach into the next epoch.
            flip: mirror half of the images left to right, chosen by seed and position.
            shift: then move each by up to so many pixels, less than its sides, mirrored at the border.
        """
        if images_seen < 0 or count < 0:
            raise ValueError(f"images_seen is {images_seen} and count is {count}; neither may be negative")
        indices = self.indices(seed, images_seen, count)
        images = self.pixels(indices)
        if flip and count:
            turned = flips(seed, images_seen, count)
            images[turned] = images[turned][:, :, ::-1]
        if shift:
            images = moved(images, shifts(seed, images_seen, count, shift))
        labels = None if self.labels is None else self.labels[indices]
        return Batch(images, labels, indices)

    def order(self, seed: int, images_seen: int, count: int, *, flip: bool = False, shift: int = 0) -> Order:
        """What `batch` would read, without reading it; the arguments are the same."""
        height, width = self.shape[1:]
        indices = self.indices(seed, images_seen, count)
        offsets = shifts(seed, images_seen, count, shift) if shift else np.zeros((count, 2), np.int64)
        rows, columns = mirrored(height, offsets[:, 0]), mirrored(width, offsets[:, 1])
        if flip:
            turned = flips(seed, images_seen, count)
            columns[turned] = width - 1 - columns[turned]
        return Order(indices, rows, columns, None if self.labels is None else np.asarray(self.labels[indices]))

    def pixels(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Copies of some images, (len(indices), H, W, C) uint8; needs no memory but the result.

        Slices of `images` give the same, but the pages of the memory map that they touch stay in our memory.

        Raises:
            DataError: somebody cut the packed file short.
            IndexError: an index outside 0..N-1.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"image {chosen[(chosen < 0) | (chosen >= len(self))][0]} of {len(self)}")
        return self.images[chosen] if self._rows is None else self._rows.read(chosen)


def flips(seed: int, images_seen: int, count: int) -> np.ndarray:
    """Whether the images at positions images_seen .. + count - 1 are mirrored: (count,) bool."""
    keys = hashes(
        hash_integer(hash_integer(seed) ^ hash_integer(1)), images_seen, count
    )  # odd: never the stream of an epoch
    return (keys & np.uint64(1)).astype(bool)


def shifts(seed: int, images_seen: int, count: int, reach: int) -> np.ndarray:
    """How far the images at positions images_seen .. + count - 1 are moved: (count, 2) int64 in -reach..reach."""
    keys = hashes(
        hash_integer(hash_integer(seed) ^ hash_integer(3)), images_seen, count
    )  # odd, and not that of the flips
    halves = np.stack([keys >> np.uint64(32), keys & np.uint64(2**32 - 1)], axis=1)
    return (halves % np.uint64(2 * reach + 1)).astype(np.int64) - reach
