"""Interface of a data source: what it lists and what it streams, whatever the format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np

from smalti.errors import DataError, SplitError

SPLIT_NAMES = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
SPLIT_ORDER = ("train", "val", "test")

IMAGE_EXTENSIONS = frozenset(
    """
    jpg jpeg jpe jfif png apng gif bmp dib webp tif tiff ppm pgm pbm pnm pfm avif avifs jp2 j2k jpx tga ico qoi pcx sgi
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Encoded:
    """An encoded image file.

    Attributes:
        row: row of the pack that it goes into.
        name: path inside the source.
        contents: bytes, or a path to read, or the error that makes it unreadable.
    """

    row: int
    name: str
    contents: bytes | Path | DataError


@dataclass(frozen=True)
class Block:
    """A block of decoded images.

    Attributes:
        row: row of the pack that the first image goes into.
        pixels: (n, H, W, C) uint8.
    """

    row: int
    pixels: np.ndarray


class Numbered(Sequence[str]):
    """Generated names for images without names: "train/00000", "train/00001", ..., computed on access."""

    def __init__(self, prefix: str, length: int) -> None:
        self.prefix = prefix
        self.length = length
        self._digits = max(5, len(str(max(0, length - 1))))

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        return f"{self.prefix}{range(self.length)[index]:0{self._digits}d}"


@dataclass(frozen=True)
class Listing:
    """The images of one split, in order, before any is decoded.

    Attributes:
        split: the split, None if the source has no splits.
        splits: all splits of the source.
        names: N names.
        labels: N class indices, or None.
        classes: class names over all splits, () without labels.
        captions: N captions, or None.
        sizes: number of images of each (height, width); None unless requested.
        channels: 1, 3 or 4; None unless requested.
        counts: number of images in each split.
        modes: number of images of each Pillow mode; empty unless requested.
        ignored: number of files that are not images.
    """

    split: str | None
    splits: tuple[str, ...]
    names: Sequence[str]
    labels: Sequence[int] | None = None
    classes: tuple[str, ...] = ()
    captions: Sequence[str] | None = None
    sizes: Counter[tuple[int, int]] | None = None
    channels: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    modes: Counter[str] = field(default_factory=Counter)
    ignored: int = 0

    @classmethod
    def uniform(
        cls,
        split: str | None,
        splits: tuple[str, ...],
        names: Sequence[str],
        shape: tuple[int, int, int],
        *,
        labels: Sequence[int] | None = None,
        classes: tuple[str, ...] = (),
        captions: Sequence[str] | None = None,
        counts: dict[str, int] | None = None,
    ) -> Listing:
        """A listing of images that all have one shape (height, width, channels)."""
        height, width, channels = shape
        return cls(
            split=split,
            splits=splits,
            names=names,
            labels=labels,
            classes=classes,
            captions=captions,
            sizes=Counter({(height, width): len(names)}),
            channels=channels,
            counts=counts or {},
            modes=Counter({{1: "L", 3: "RGB", 4: "RGBA"}[channels]: len(names)}),
        )


class Source(ABC):
    """Base of the data sources that images are packed from.

    Attributes:
        kind: format of the source, for `Summary.kind`.
        location: path or name of the source, for messages and the cache key.
    """

    kind: str
    location: str

    @abstractmethod
    def signature(self) -> str:
        """A string that changes whenever the source may have changed; cheap to compute."""

    @abstractmethod
    def listing(self, split: str | None, *, look: bool) -> Listing:
        """List the images of a split.

        Args:
            split: None means the default split of `choose_split`.
            look: also determine sizes and channels, from the headers of the images.

        Raises:
            DataError: the source is damaged or empty, or has no such split.
        """

    @abstractmethod
    def stream(self, listing: Listing) -> Iterator[Encoded | Block]:
        """Yield every image of a listing once, in any order; rows are positions in the listing."""


def choose_split(split: str | None, splits: tuple[str, ...], location: str) -> str | None:
    """Resolve a split: None if the source has no splits; "train", or the only split, by default.

    Args:
        split: as the user gave it, or None.
        splits: the splits of the source.
        location: of the source, for messages.

    Raises:
        SplitError: the source has no such split.
    """
    if split is not None:
        split = SPLIT_NAMES.get(split, split)
        if split in splits:
            return split
        if not splits:
            raise SplitError(f"{location} has no splits, but split {split!r} was asked for; leave the split out")
        raise SplitError(f"{location} has no split {split!r}; it has {', '.join(splits)}")
    if not splits or "train" in splits:
        return "train" if splits else None
    if len(splits) == 1:
        return splits[0]
    raise SplitError(f"{location} has no split 'train'; choose one of {', '.join(splits)}")


def first_of(problems: Sequence[tuple[str, str]], count: int = 3) -> str:
    """The first few (name, reason) pairs as one line."""
    shown = "; ".join(f"{name}: {reason}" for name, reason in problems[:count])
    return shown + (f"; and {len(problems) - count} more" if len(problems) > count else "")
