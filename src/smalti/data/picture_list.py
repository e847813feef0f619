"""Pictures of files, folders and data sources, one by one, as files where there are files.

    for number, contents in list_pictures(["holiday/", "cat.jpg"]): ...

`smalti.data.load` brings images to one size and to plain pixels. Here they keep their size, their bit depth and their
metadata: contents are what `smalti.data.pictures.read_picture` reads. Nothing is written to disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from smalti.data.archives import Folder, open_tree
from smalti.data.arrays import find_idx
from smalti.data.image_tree import assign_splits, class_labels, natural_key
from smalti.data.loading import cache_folder
from smalti.data.opening import WORDS, expanded, find_source, opener_of
from smalti.data.sources import IMAGE_EXTENSIONS, SPLIT_NAMES, Encoded, Listing, Source, choose_split
from smalti.errors import ConfigError, DataError, arg
from smalti.files import input_errors

Contents = bytes | Path | np.ndarray | DataError
"""An image file, its path, (H, W, C) uint8, or the error that makes it unreadable."""

Stream = Iterator[tuple[int, Contents]]


@dataclass(frozen=True)
class _Part:
    """The pictures of one place: their names, labels (-1: none) and classes, and a function that streams them."""

    names: Sequence[str]
    labels: Sequence[int]
    classes: tuple[str, ...]
    stream: Callable[[], Stream]


class PictureList:
    """Pictures with names; iterating yields their numbers and contents, each once, in any order.

    Attributes:
        names: N names: paths relative to the folder or data source that they are from.
        labels: N class indices, -1 for a picture without a class.
        classes: names of the classes; empty if there are none, or if the pictures are from several places.
    """

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts
        self.names = [name for part in parts for name in part.names]
        self.classes = parts[0].classes if len(parts) == 1 else ()
        self.labels = list(parts[0].labels) if self.classes else [-1] * len(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Stream:
        first = 0
        for part in self._parts:
            for number, contents in part.stream():
                yield first + number, contents
            first += len(part.names)


def list_pictures(
    places: Sequence[str | os.PathLike[str]],
    *,
    split: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> PictureList:
    """The pictures at some places.

    Args:
        places: image files, folders of image files (to any depth), and whatever else `smalti.data.load` opens.
        split: only this split.
        cache: folder in which "cifar10" is looked for and to which it is downloaded.
        progress: called during a download.

    Raises:
        ConfigError: there are no places.
        DataError: a folder or data source cannot be read, or has no pictures or no such split.
    """
    if not places:
        raise ConfigError("no images were named; give image files or folders")
    parts = []
    for place in places:
        text = os.fspath(place)
        path = expanded(text)
        if text in WORDS or _is_source(path):
            parts.append(_of_source(find_source(text, cache=cache_folder(cache), progress=progress), split))
        elif path.is_dir():
            parts.append(_of_folder(path, split))
        elif split is not None:
            raise DataError(f"{text} is one image, which has no splits; leave {arg('split')} out")
        else:
            parts.append(_of_file(path))
    return PictureList(parts)


def _is_source(path: Path) -> bool:
    """Whether a path is a data source in one file, or a folder that has no image files."""
    with input_errors(path, DataError):
        if path.is_dir():
            return not any(_is_image(entry.name) for entry, _ in Folder(path).walk(lambda entry: False))
        if not path.is_file() or _is_image(path.name):
            return False
        with path.open("rb") as file:
            start = file.read(16)
        if opener_of(start) is not None or open_tree(path) is not None:
            return True
        return find_idx(path, str(path)) is not None


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix[1:].lower() in IMAGE_EXTENSIONS


def _of_file(path: Path) -> _Part:
    contents = path if path.exists() else DataError("there is no such file")
    return _Part([path.name], [-1], (), lambda: iter([(0, contents)]))


def _of_folder(folder: Path, split: str | None) -> _Part:
    """The image files of a folder, in natural order."""
    found = [entry for entry, _ in Folder(folder).walk(lambda entry: False) if _is_image(entry.name)]
    found.sort(key=lambda entry: natural_key(entry.name))
    splits, assignments = assign_splits([entry.name for entry in found])
    if split is not None:
        chosen = choose_split(split, splits, os.fspath(folder))
        found = [entry for entry, place in zip(found, assignments, strict=True) if place.split == chosen]
    names = [entry.name for entry in found]
    labels, classes = class_labels(names)

    def stream() -> Stream:
        for number, entry in enumerate(found):
            yield number, DataError(entry.problem) if entry.problem else folder / entry.name

    return _Part(names, labels, classes, stream)


def _of_source(source: Source, split: str | None) -> _Part:
    """The images of a data source, split after split."""
    first = source.listing(split, look=False)
    others = [] if split is not None else [name for name in first.splits if name != first.split]
    listings = [first, *(source.listing(name, look=False) for name in others)]
    names = [_with_split(name, listing.split) for listing in listings for name in listing.names]
    classes = next((listing.classes for listing in listings if listing.classes), ())
    labels = [label for listing in listings for label in (listing.labels or [-1] * len(listing.names))]

    def stream() -> Stream:
        start = 0
        for listing in listings:
            for number, contents in _stream(source, listing):
                yield start + number, contents
            start += len(listing.names)

    return _Part(names, labels, classes, stream)


def _stream(source: Source, listing: Listing) -> Stream:
    source.listing(listing.split, look=False)  # a source streams what it has listed last
    for item in source.stream(listing):
        if isinstance(item, Encoded):
            yield item.row, item.contents
        else:
            yield from ((item.row + number, pixels) for number, pixels in enumerate(item.pixels))


def _with_split(name: str, split: str | None) -> str:
    """A name with a folder of its split, unless it has one."""
    if split is None or any(SPLIT_NAMES.get(part) == split for part in name.split("/")[:-1]):
        return name
    return f"{split}/{name}"
