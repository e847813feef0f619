"""Inspect a data source: decode every image and summarise what is there, without packing anything."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from smalti.data import images
from smalti.data.loading import Progress, cache_folder, in_threads
from smalti.data.opening import find_source
from smalti.data.sources import Block, Encoded
from smalti.errors import DataError

_LARGEST_UNRESIZED = 256  # pixels along the longer side up to which images of one size need no resizing


@dataclass(frozen=True)
class Summary:
    """Summary of one split of a source.

    Attributes:
        source: path or name of the source.
        kind: "folder", "zip", "tar", "CIFAR-10 python", "CIFAR-10 binary", "IDX", "npz", "smt" or "emoji".
        split: the split that was inspected, None if the source has no splits.
        splits: number of images in each split of the source, broken ones included.
        images: number of images that can be decoded.
        classes: number of images in each class, broken ones included; empty without labels.
        sizes: number of images of each (height, width), the most frequent first.
        modes: number of images of each Pillow mode, the most frequent first.
        captions: number of images with a caption.
        broken: (name, reason) of the files that cannot be decoded.
        ignored: number of files that are not images.
        suggested_side: suggested size for a first training, pixels along both sides; None means keep the size.
    """

    source: str
    kind: str
    split: str | None
    splits: dict[str, int]
    images: int
    classes: dict[str, int]
    sizes: dict[tuple[int, int], int]
    modes: dict[str, int]
    captions: int
    broken: tuple[tuple[str, str], ...]
    ignored: int
    suggested_side: int | None


@dataclass(frozen=True)
class _Result:
    """The result for some images of one size and mode, or for one broken file."""

    count: int
    size: tuple[int, int]
    mode: str
    broken: tuple[str, str] | None = None


def inspect(
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Decode every image of a source and summarise them.

    Args:
        source: as for `load`.
        split: as for `load`.
        cache: folder in which "cifar10" is looked for and to which it is downloaded; nothing else is written.
        progress: called with (images done, total images).

    Raises:
        DataError: the source as a whole is missing, empty or damaged; broken files are part of the summary.
    """
    found = find_source(source, cache=cache_folder(cache), progress=progress)
    listing = found.listing(split, look=False)
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    broken = []
    done = 0
    for seen in in_threads(found.stream(listing), _inspect_chunk):
        done += seen.count
        if seen.broken is not None:
            broken.append(seen.broken)
        else:
            sizes[seen.size] += seen.count
            modes[seen.mode] += seen.count
        if progress is not None:
            progress(done, len(listing.names))
    members = Counter(listing.labels or ())
    return Summary(
        source=os.fspath(source),
        kind=found.kind,
        split=listing.split,
        splits={name: listing.counts[name] for name in listing.splits},
        images=sum(sizes.values()),
        classes={name: members[number] for number, name in enumerate(listing.classes)},
        sizes=dict(sizes.most_common()),
        modes=dict(modes.most_common()),
        captions=sum(1 for caption in listing.captions or () if caption),
        broken=tuple(sorted(broken)),
        ignored=listing.ignored,
        suggested_side=_suggested_side(sizes),
    )


def _inspect_chunk(chunk: list[Encoded | Block]) -> list[_Result]:
    return [_inspect_block(item) if isinstance(item, Block) else _inspect_file(item) for item in chunk]


def _inspect_block(block: Block) -> _Result:
    count, height, width, channels = block.pixels.shape
    return _Result(count, (height, width), {1: "L", 3: "RGB", 4: "RGBA"}[channels])


def _inspect_file(item: Encoded) -> _Result:
    try:
        if isinstance(item.contents, DataError):
            raise item.contents
        header = images.probe(item.contents)
        pixels = images.decode(item.contents)
    except DataError as error:
        return _Result(1, (0, 0), "", broken=(item.name, str(error)))
    return _Result(1, pixels.shape[:2], header.mode)


def _suggested_side(sizes: Counter[tuple[int, int]]) -> int | None:
    """None if all images have one size that is not too large; else 64 if three in four are that large, else 32."""
    if not sizes or (len(sizes) == 1 and max(next(iter(sizes))) <= _LARGEST_UNRESIZED):
        return None
    sides = sorted(min(size) for size in sizes.elements())
    return 64 if sides[len(sides) // 4] >= 64 else 32
