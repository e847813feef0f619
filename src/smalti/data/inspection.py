"""What a source holds, found by decoding everything and packing nothing."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from dataclasses import dataclass

from smalti.data import images
from smalti.data.loading import Progress, cache_folder, in_threads
from smalti.data.opening import find_source
from smalti.data.sources import Block, Encoded
from smalti.errors import DataError

_AS_THEY_ARE = 256  # pixels along the longer side of pictures that need no --size


@dataclass(frozen=True)
class Summary:
    """One split of a source.

    Attributes:
        source: what was looked at.
        kind: "folder", "zip", "tar", "CIFAR-10 python", "CIFAR-10 binary", "IDX", "npz" or "emoji".
        split: the split that was looked at, None without splits.
        splits: images in each split that the source offers, broken ones included.
        images: images that can be decoded.
        classes: images in each class, broken ones included; empty without labels.
        sizes: images of each (height, width), the most frequent first.
        modes: images of each Pillow mode, the most frequent first.
        captions: images that have a caption.
        broken: (name, reason) of the files that cannot be decoded.
        ignored: other files that are no images.
        suggestion: a command to begin with.
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
    suggestion: str


@dataclass(frozen=True)
class _Seen:
    """Some images of one size and mode, or a file with its problem."""

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
    """Look at every image of a source.

    Args:
        source: as for `load`.
        split: as for `load`.
        cache: where "cifar10" is looked for or downloaded to; nothing else is written.
        progress: called with (images done, images in all).

    Raises:
        DataError: the source is missing, empty or damaged as a whole; broken files are part of the answer.
    """
    found = find_source(source, cache=cache_folder(cache), progress=progress)
    listing = found.listing(split, look=False)
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    broken = []
    done = 0
    for seen in in_threads(found.stream(listing), _look):
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
        suggestion=_suggestion(os.fspath(source), sizes),
    )


def _look(chunk: list[Encoded | Block]) -> list[_Seen]:
    return [_look_at_block(item) if isinstance(item, Block) else _look_at_file(item) for item in chunk]


def _look_at_block(block: Block) -> _Seen:
    count, height, width, channels = block.pixels.shape
    return _Seen(count, (height, width), {1: "L", 3: "RGB", 4: "RGBA"}[channels])


def _look_at_file(item: Encoded) -> _Seen:
    try:
        if isinstance(item.contents, DataError):
            raise item.contents
        header = images.probe(item.contents)
        pixels = images.decode(item.contents)
    except DataError as error:
        return _Seen(1, (0, 0), "", broken=(item.name, str(error)))
    return _Seen(1, pixels.shape[:2], header.mode)


def _suggestion(source: str, sizes: Counter[tuple[int, int]]) -> str:
    """Pictures of one size, if not too large, as they are; else at 64 where three in four fill that, or at 32."""
    command = f"smalti train vqvae --data {shlex.quote(source)} --out runs/first"
    if not sizes or (len(sizes) == 1 and max(next(iter(sizes))) <= _AS_THEY_ARE):
        return command
    sides = sorted(min(size) for size in sizes.elements())
    return f"{command} --size {64 if sides[len(sides) // 4] >= 64 else 32}"
