"""Matching of two sources of images by name.

Partners have the same name, without regard to the extension and, if more names are the same then, to folders around
everything. A target is exactly `scale` times as large as its input; sizes are read from the headers, before anything is
packed. An image that is no part of a pair becomes an error with the reason: it is left out and listed like one that
cannot be decoded. It is an error if that is the majority.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from smalti.data.images import probe
from smalti.data.loading import in_threads
from smalti.data.sources import IMAGE_EXTENSIONS, Block, Encoded, Listing, Source, first_of
from smalti.errors import DataError

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class _Found:
    """What a look at two sources has found, for each of them: listing, reasons to leave images out, sizes of the rest.

    `channels` is what both are converted to if none are asked for.
    """

    listings: tuple[Listing, Listing]
    refused: tuple[dict[str, str], dict[str, str]]
    sizes: tuple[Counter[Size], Counter[Size]]
    channels: int | None


class _Names:
    """The images of a source by what they share with their partners, and their sizes."""

    def __init__(self, source: Source, listing: Listing, keys: Sequence[str]) -> None:
        self.source, self.listing, self.sizes = source, listing, _sizes(source, listing)
        self.by_key: dict[str, list[str]] = {}
        for key, name in zip(keys, listing.names, strict=True):
            self.by_key.setdefault(key, []).append(name)


class Match:
    """Which images of two sources are pairs."""

    def __init__(self, inputs: Source, targets: Source, scale: int) -> None:
        self.sources, self.scale = (inputs, targets), scale
        self._found: dict[tuple[object, ...], _Found] = {}

    def signature(self) -> str:
        return f"pairs x{self.scale} {self.sources[0].signature()} {self.sources[1].signature()}"

    def look(self, split: str | None, *, channels: bool) -> _Found:
        """List both sources and match them; done once as long as they do not change.

        Raises:
            DataError: most of the images are no pairs, or the sources have other splits.
        """
        key = (split, channels, self.signature())
        if key not in self._found:
            listings = [source.listing(split, look=channels) for source in self.sources]
            if listings[0].split != listings[1].split:
                raise DataError(
                    f"{self.sources[0].location} has the splits {', '.join(listings[0].splits) or 'none'}, "
                    f"{self.sources[1].location} {', '.join(listings[1].splits) or 'none'}; pairs need the same"
                )
            self._found = {key: self._matched(listings[0], listings[1])}
        return self._found[key]

    def _matched(self, inputs: Listing, targets: Listing) -> _Found:
        keys = partner_keys(inputs.names, targets.names)
        if not set(keys[0]) & set(keys[1]):
            raise DataError(
                f"no image of {self.sources[0].location} has a partner in {self.sources[1].location}; partners have "
                f"the same name without its extension, and here are {_few(inputs.names)} and {_few(targets.names)}"
            )
        first = _Names(self.sources[0], inputs, keys[0])
        second = _Names(self.sources[1], targets, keys[1])
        refused = (self._refused(first, second), self._refused(second, first))
        kept = [
            Counter(size for name, size in side.sizes.items() if name not in out)
            for side, out in zip((first, second), refused, strict=True)
        ]
        channels = [listing.channels for listing in (inputs, targets) if listing.channels is not None]
        return _Found((inputs, targets), refused, (kept[0], kept[1]), max(channels, default=None))

    def _refused(self, own: _Names, other: _Names) -> dict[str, str]:
        """Why images of one source are no pair with one of the other.

        Raises:
            DataError: that is the majority of them.
        """
        found: dict[str, str] = {}
        for key, names in own.by_key.items():
            partners = other.by_key.get(key, [])
            reason = None
            if len(names) > 1:
                reason = "another image has the same name without its extension"
            elif not partners:
                reason = f"has no partner in {other.source.location}"
            elif len(partners) > 1:
                reason = f"has {len(partners)} partners in {other.source.location}"
            else:
                reason = self._unlike(own, own.sizes.get(names[0]), other.sizes.get(partners[0]))
            if reason is not None:
                found |= dict.fromkeys(names, reason)
        count = len(own.listing.names)
        if len(found) > count - len(found):
            raise DataError(
                f"{len(found)} of the {count} images of {own.source.location} are no pair with one of "
                f"{other.source.location}: {first_of(list(found.items()))}"
            )
        return found

    def _unlike(self, own: _Names, size: Size | None, partner: Size | None) -> str | None:
        """Why images of these sizes are no pair; None if they are one, or if one of them cannot be read."""
        if size is None or partner is None:
            return None
        given, wanted = (size, partner) if own.source is self.sources[0] else (partner, size)
        if (self.scale * given[0], self.scale * given[1]) == wanted:
            return None
        times = "the same size" if self.scale == 1 else f"a target of exactly {self.scale} times the sides"
        return f"has {size[0]}x{size[1]} pixels and its partner {partner[0]}x{partner[1]}, but pairs need {times}"


class Side(Source):
    """One of two matched sources: its images without a partner become errors with the reason."""

    def __init__(self, match: Match, side: int) -> None:
        self.match, self.side = match, side
        self.own, other = match.sources[side], match.sources[1 - side]
        self.kind = self.own.kind
        self.location = f"{self.own.location} ({('inputs', 'targets')[side]}, pairs with {other.location})"

    def signature(self) -> str:
        return self.match.signature()

    def listing(self, split: str | None, *, look: bool) -> Listing:
        found = self.match.look(split, channels=look)
        listing = found.listings[self.side]
        return replace(
            listing, labels=None, classes=(), captions=None, channels=found.channels, sizes=found.sizes[self.side]
        )

    def stream(self, listing: Listing) -> Iterator[Encoded | Block]:
        self.own.listing(listing.split, look=False)  # a source streams what it has listed last
        refused = self.match.look(listing.split, channels=listing.channels is not None).refused[self.side]
        for item in self.own.stream(listing):
            if isinstance(item, Encoded):
                reason = refused.get(item.name)
                yield item if reason is None else Encoded(item.row, item.name, DataError(reason))
            elif not refused:
                yield item
            else:
                yield from _split_block(item, listing.names, refused)


def _split_block(block: Block, names: Sequence[str], refused: dict[str, str]) -> Iterator[Encoded | Block]:
    for row, pixels in enumerate(block.pixels, block.row):
        reason = refused.get(names[row])
        yield Block(row, pixels[None]) if reason is None else Encoded(row, names[row], DataError(reason))


def _sizes(source: Source, listing: Listing) -> dict[str, Size]:
    """The size of each image by name, from the headers; those that cannot be read are missing."""
    found: dict[str, Size] = {}
    for name, size in in_threads(source.stream(listing), lambda chunk: _sizes_of(chunk, listing.names)):
        found[name] = size
    return found


def _sizes_of(chunk: Sequence[Encoded | Block], names: Sequence[str]) -> list[tuple[str, Size]]:
    found: list[tuple[str, Size]] = []
    for item in chunk:
        if isinstance(item, Block):
            height, width = item.pixels.shape[1:3]
            found += [(names[item.row + number], (height, width)) for number in range(len(item.pixels))]
        elif not isinstance(item.contents, DataError):
            try:
                header = probe(item.contents)
            except DataError:  # packing says why
                continue
            found.append((item.name, (header.height, header.width)))
    return found


def partner_keys(inputs: Sequence[str], targets: Sequence[str]) -> tuple[list[str], list[str]]:
    """What partners have in common: the names without extensions, and without folders around everything if need be."""
    ways = itertools.product(_from_inside(inputs), _from_inside(targets))
    return max(ways, key=lambda keys: len(set(keys[0]) & set(keys[1])))


def _from_inside(names: Sequence[str]) -> list[list[str]]:
    """The names without extensions; without the folder around everything; without that inside it; and so on."""
    paths = [_without_extension(name).split("/") for name in names]
    found = [["/".join(path) for path in paths]]
    while paths and all(len(path) > 1 for path in paths) and len({path[0] for path in paths}) == 1:
        paths = [path[1:] for path in paths]
        found.append(["/".join(path) for path in paths])
    return found


def _without_extension(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix[1:].lower() in IMAGE_EXTENSIONS else name


def _few(names: Sequence[str], count: int = 2) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
