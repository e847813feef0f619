"""Packed images: a memory-mapped array, and shuffled batches as a function of (seed, images seen).

Position p of the training stream is

    image  permutation(seed, p // N)[p % N]        every image once per epoch
    flip   bit 0 of hash(seed, p)
    shift  the two halves of another hash(seed, p), reduced to -reach..reach

so an interrupted run resumes with the same images for any batch size, without any saved state. The permutation is that
of order.py, the hash that of runtime/hashing.py.

Pixels are uint8, (N, height, width, channels).
"""

from __future__ import annotations

import hashlib
import math
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smalti.data.augmentation import mirrored, moved
from smalti.data.order import Shuffled
from smalti.data.spec import ImageSpec
from smalti.errors import DataError
from smalti.runtime.hashing import hash_integer, hashes


@dataclass(frozen=True)
class Batch:
    """The images of one training step.

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
    """The pixels that make up a batch, as indices.

    Attributes:
        indices: (count,) int64, rows of the pack.
        rows, columns: (count, H) and (count, W) int64: the image row and column that each output row and column shows.
        labels: (count,) int64, or None.
    """

    indices: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    labels: np.ndarray | None


@dataclass(frozen=True)
class Description:
    """Metadata of packed images: everything except pixels and labels. See `PackedImages` for the fields."""

    source: str
    split: str | None
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    names: Sequence[str]
    captions: Sequence[str] | None
    fingerprint: str
    skipped: tuple[tuple[str, str], ...]


class RowReader:
    """Reads fixed-size rows of a file by index, from any thread, without using the memory map.

    Mapped pages count as memory of the process (2 MiB per image touched if the system caches files in huge pages), and
    truncating a mapped file kills the process. Plain reads have neither problem.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, int, int]) -> None:
        """Open the file.

        Args:
            path: of the file.
            offset: position of the first row in bytes.
            shape: (height, width, channels) of a row, uint8.
        """
        self._path = path
        self._offset = offset
        self._shape = shape
        self._row_bytes = math.prod(shape)
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The rows with these indices, (len(rows), *shape) uint8.

        Raises:
            DataError: the file was truncated.
        """
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
        labels: (N,) int64 class indices, or None.
        classes: class names, () without labels.
        names: N paths inside the source, or generated names like "train/00012".
        captions: N captions, or None.
        fingerprint: SHA-256 over shape, pixels, labels and classes, hexadecimal; independent of names and paths.
        source: path or name that was loaded.
        split: the split, or None.
        splits: all splits of the source.
        skipped: (name, reason) of the files that could not be decoded.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        description: Description,
        *,
        rows: RowReader | None = None,
    ) -> None:
        """Wrap arrays that are in memory or memory-mapped.

        Args:
            images: (N, H, W, C) uint8.
            labels: (N,) int64, or None.
            description: the metadata.
            rows: reads the same pixels from the file; None means they are copied from `images`.
        """
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

    @property
    def spec(self) -> ImageSpec:
        """Channels and size of one image."""
        return ImageSpec(*self.shape)

    @property
    def provenance(self) -> dict[str, str]:
        """Further entries for a checkpoint's card: none for images."""
        return {}

    def augmented(self, *, flip: bool = False, shift: int = 0) -> AugmentedImages:
        """These images with random flips and translations in their batches; see `batch`."""
        return AugmentedImages(self, flip=flip, shift=shift)

    def take(self, indices: np.ndarray) -> Batch:
        """The images with these indices, without augmentation."""
        labels = None if self.labels is None else np.asarray(self.labels)[indices]
        return Batch(self.pixels(indices), labels, np.asarray(indices))

    def subset(self, rows: np.ndarray) -> PackedImages:
        """Some of these images, in another order if need be.

        Args:
            rows: (n,) int64 indices.
        """
        return _Subset(self, rows)

    def __repr__(self) -> str:
        channels, height, width = self.shape
        split = f", split {self.split!r}" if self.split else ""
        size = f"{len(self)} images {height}x{width}x{channels}"
        return f"PackedImages({size}, {len(self.classes)} classes{split}, {self.source!r})"

    def batch(self, seed: int, images_seen: int, count: int, *, flip: bool = False, shift: int = 0) -> Batch:
        """The images at positions images_seen .. images_seen + count - 1 of this seed's shuffled stream.

        Args:
            seed: any integer; only its lowest 64 bits are used.
            images_seen: number of images before this batch in the training.
            count: batch size; a batch may span two epochs.
            flip: mirror half of the images left to right, chosen by seed and position.
            shift: then translate each image by up to this many pixels, with reflection padding; less than the sides.

        Raises:
            ValueError: `images_seen` or `count` is negative.
            DataError: the packed file was truncated.
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
        """The indices of the pixels that `batch` returns for the same arguments, without reading any pixels."""
        height, width = self.shape[1:]
        indices = self.indices(seed, images_seen, count)
        offsets = shifts(seed, images_seen, count, shift) if shift else np.zeros((count, 2), np.int64)
        rows, columns = mirrored(height, offsets[:, 0]), mirrored(width, offsets[:, 1])
        if flip:
            turned = flips(seed, images_seen, count)
            columns[turned] = width - 1 - columns[turned]
        return Order(indices, rows, columns, None if self.labels is None else np.asarray(self.labels[indices]))

    def pixels(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Copies of the images with these indices, (len(indices), H, W, C) uint8.

        Unlike slices of `images`, this leaves no pages of the memory map in the process's memory.

        Raises:
            DataError: the packed file was truncated.
            IndexError: an index outside 0..N-1.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"image {chosen[(chosen < 0) | (chosen >= len(self))][0]} of {len(self)}")
        return self.images[chosen] if self._rows is None else self._rows.read(chosen)


class _Subset(PackedImages):
    """Some of the images of a pack, which are read from there."""

    def __init__(self, whole: PackedImages, rows: np.ndarray) -> None:
        digest = hashlib.sha256(whole.fingerprint.encode() + rows.astype("<i8").tobytes()).hexdigest()
        description = Description(
            whole.source, whole.split, whole.splits, whole.classes, [whole.names[row] for row in rows],
            None if whole.captions is None else [whole.captions[row] for row in rows], digest, whole.skipped,
        )  # fmt: skip
        super().__init__(whole.images, None if whole.labels is None else whole.labels[rows], description)
        self._whole, self._chosen = whole, rows

    def __len__(self) -> int:
        return len(self._chosen)

    def pixels(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"image {chosen[(chosen < 0) | (chosen >= len(self))][0]} of {len(self)}")
        return self._whole.pixels(self._chosen[chosen])


class AugmentedImages:
    """Packed images whose batches are randomly flipped and translated; a `Dataset` like the images themselves.

    Attributes:
        variants: number of augmented versions of each image.
    """

    def __init__(self, images: PackedImages, *, flip: bool, shift: int) -> None:
        self.images, self.flip, self.shift = images, flip, shift
        self.spec, self.source, self.split, self.classes = images.spec, images.source, images.split, images.classes
        self.fingerprint, self.provenance = images.fingerprint, images.provenance
        self.variants = (2 if flip else 1) * (2 * shift + 1) ** 2

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, seed: int, images_seen: int, count: int) -> Batch:
        """`PackedImages.batch` with this flip and shift."""
        return self.images.batch(seed, images_seen, count, flip=self.flip, shift=self.shift)

    def order(self, seed: int, images_seen: int, count: int) -> Order:
        """`PackedImages.order` with this flip and shift."""
        return self.images.order(seed, images_seen, count, flip=self.flip, shift=self.shift)

    def take(self, indices: np.ndarray) -> Batch:
        """The images with these indices, without augmentation."""
        return self.images.take(indices)


def flips(seed: int, images_seen: int, count: int) -> np.ndarray:
    """Whether each image at positions images_seen .. images_seen + count - 1 is mirrored: (count,) bool."""
    # Epochs hash even numbers, so an odd one gives an independent stream.
    keys = hashes(hash_integer(hash_integer(seed) ^ hash_integer(1)), images_seen, count)
    return (keys & np.uint64(1)).astype(bool)


def shifts(seed: int, images_seen: int, count: int, reach: int) -> np.ndarray:
    """Translation of each image at positions images_seen .. images_seen + count - 1: (count, 2) in -reach..reach."""
    # Odd like that of the flips, but another number.
    keys = hashes(hash_integer(hash_integer(seed) ^ hash_integer(3)), images_seen, count)
    halves = np.stack([keys >> np.uint64(32), keys & np.uint64(2**32 - 1)], axis=1)
    return (halves % np.uint64(2 * reach + 1)).astype(np.int64) - reach
