"""Load a source as packed images: list it, decode it in threads, write the pack, open it.

Decoding holds only a few chunks of files in memory, whatever the size of the source. Files that cannot be decoded are
skipped and listed; if they are the majority, that is an error.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import platformdirs

from smalti.data import images
from smalti.data.cache import Options, PackWriter, cache_key, open_pack
from smalti.data.opening import expanded, find_source
from smalti.data.packed import PackedImages
from smalti.data.sources import SPLIT_NAMES, Block, Encoded, Listing, Source, choose_split, first_of
from smalti.errors import ConfigError, DataError, arg

T = TypeVar("T")
Progress = Callable[[int, int | None], None]

_CHUNK_IMAGES = 64
_CHUNK_BYTES = 8 * 2**20
_SIDE_LIMIT = 16384  # pixels along one side of packed images


def default_cache_folder() -> Path:
    """The folder for packed images and downloads if none is given: smalti's folder in the user cache of the system."""
    return Path(platformdirs.user_cache_dir("smalti", appauthor=False))


def cache_folder(cache: str | os.PathLike[str] | None) -> Path:
    """Resolve the `cache` argument to a folder.

    Raises:
        DataError: it begins with ~name and there is no such user.
    """
    return default_cache_folder() if cache is None else expanded(cache)


def load(
    source: str | os.PathLike[str],
    *,
    size: tuple[int, int] | int | None = None,
    resize: str = "cover",
    channels: int | None = None,
    split: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> PackedImages:
    """Load images of one size. They are packed on disk the first time and opened immediately after that.

    Args:
        source: a folder, zip or tar of images; CIFAR-10 (python or binary); IDX; .npz; a .smt archive, whose model is
            in the same folder or in the zoo; "cifar10"; "emoji". The last two always mean the data set; a folder of
            that name is "./emoji".
        size: (height, width) in pixels, or one number for both; None keeps the size, which must be the same for all.
        resize: "cover" (fill, crop the centre), "contain" (fit, pad) or "stretch".
        channels: 1, 3 or 4; None means 4 if any image has a transparent pixel, else 1 if all are grey, else 3.
        split: "train", "test" or "val"; None means "train", or everything if the source has no splits.
        cache: folder for the packed images; None means `default_cache_folder()`.
        progress: called with (images done, total images or None).

    Raises:
        DataError: the source is missing, empty or damaged, or its images differ in size and no size is given.
        ConfigError: an invalid resize rule, number of channels or size.
        OutputError: the cache cannot be written.
    """
    place = cache_folder(cache)
    found = find_source(source, cache=place, progress=progress)
    return load_source(
        found, os.fspath(source), size=size, resize=resize, channels=channels, split=split, cache=place,
        progress=progress,
    )  # fmt: skip


def load_source(
    found: Source,
    name: str,
    *,
    size: tuple[int, int] | int | None,
    resize: str,
    channels: int | None,
    split: str | None,
    cache: Path,
    progress: Progress | None,
    unit: int = 1,
) -> PackedImages:
    """Load a source that is open already, as `load` does.

    Args:
        found: the source.
        name: of the source, for the result.
        unit: with resize "crop", the position of what is kept is a multiple of this many pixels.
    """
    options = _options(size, resize, channels, unit)
    split = SPLIT_NAMES.get(split or "", split)
    for _ in range(3):  # another process may replace the pack between writing and opening
        signature = found.signature()
        packed = _open_cached(found, split, options, cache, signature, name)
        if packed is not None:
            return packed
        _pack(found, split, options, cache, signature, progress)
    raise DataError(f"{found.location} keeps changing while it is packed; wait until it is complete, then try again")


def _options(size: tuple[int, int] | int | None, resize: str, channels: int | None, unit: int) -> Options:
    images.check_options(channels=channels, resize=resize)
    if size is not None:
        size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if not all(1 <= side <= _SIDE_LIMIT for side in size):
            raise ConfigError(f"size is {size[0]}x{size[1]} (height x width); each must be 1 to {_SIDE_LIMIT} pixels")
    return Options(size, resize, channels, unit)


def _open_cached(
    found: Source, split: str | None, options: Options, cache: Path, signature: str, source: str
) -> PackedImages | None:
    """Open the pack of the requested split. The source is not listed, so each possible default split is tried."""
    for candidate in (split,) if split is not None else ("train", None, "val", "test"):
        packed = open_pack(_folder(found, candidate, options, cache), signature, source)
        if packed is not None and packed.split == choose_split(split, packed.splits, found.location):
            return packed
    return None


def _folder(found: Source, split: str | None, options: Options, cache: Path) -> Path:
    return cache / "packed" / cache_key(found.location, split, options)


def _pack(
    found: Source, split: str | None, options: Options, cache: Path, signature: str, progress: Progress | None
) -> None:
    listing = found.listing(split, look=options.size is None or options.channels is None)
    height, width = options.size or _one_size(listing, found.location)
    channels = options.channels or listing.channels
    assert channels is not None
    shape = (height, width, channels)
    writer = PackWriter(_folder(found, listing.split, options, cache), len(listing.names), shape)
    skipped: list[tuple[str, str]] = []
    try:
        job = _Job(shape, options.resize, exact=options.size is None, unit=options.unit)
        for done, result in _counted(in_threads(found.stream(listing), job.run)):
            if isinstance(result, Block):
                writer.write(result.row, result.pixels)
            else:
                skipped.append((result.name, str(result.contents)))
            if progress is not None:
                progress(done, len(listing.names))
        _check_enough(len(writer.rows()), skipped, found.location)
        writer.finish(listing, options, signature, sorted(skipped))
    finally:
        writer.abandon()


def _counted(results: Iterable[Block | Encoded]) -> Iterator[tuple[int, Block | Encoded]]:
    """Yield each result with the number of images so far."""
    done = 0
    for result in results:
        done += len(result.pixels) if isinstance(result, Block) else 1
        yield done, result


def _one_size(listing: Listing, location: str) -> tuple[int, int]:
    assert listing.sizes is not None
    if len(listing.sizes) == 1:
        return next(iter(listing.sizes))
    common = listing.sizes.most_common(3)
    shown = ", ".join(f"{height}x{width} ({count})" for (height, width), count in common[:-1])
    (height, width), count = common[-1]
    more = f" and {len(listing.sizes) - 3} more sizes" if len(listing.sizes) > 3 else ""
    raise DataError(
        f"{location} has images of several sizes: found {shown} and {height}x{width} ({count}){more}; "
        f"give {arg('size')}, for example {arg('size', 64)}"
    )


def _check_enough(good: int, skipped: list[tuple[str, str]], location: str) -> None:
    if good == 0 or len(skipped) > good:
        count = f"{len(skipped)} of {good + len(skipped)}"
        raise DataError(f"{count} files in {location} cannot be read as images: {first_of(sorted(skipped))}")


@dataclass(frozen=True)
class _Job:
    """Decodes images to one shape (height, width, channels); `exact` refuses other sizes instead of resizing."""

    shape: tuple[int, int, int]
    resize: str
    exact: bool
    unit: int = 1

    def run(self, chunk: list[Encoded | Block]) -> list[Block | Encoded]:
        """Decode each image; one that cannot be decoded becomes an `Encoded` with a DataError as contents."""
        return [self._block(item) if isinstance(item, Block) else self._decode(item) for item in chunk]

    def _block(self, block: Block) -> Block:
        height, width, channels = self.shape
        if block.pixels.shape[1:] == self.shape:
            return block
        options: dict[str, Any] = {"channels": channels, "size": (height, width), "resize": self.resize}
        return Block(block.row, np.stack([images.change(self._in_units(one), **options) for one in block.pixels]))

    def _decode(self, item: Encoded) -> Block | Encoded:
        if isinstance(item.contents, DataError):
            return item
        height, width, channels = self.shape
        size = None if self.exact else (height, width)
        try:
            if self.unit == 1:
                pixels = images.decode(item.contents, channels=channels, size=size, resize=self.resize)
            else:
                whole = self._in_units(images.decode(item.contents, channels=channels))
                pixels = images.change(whole, channels=channels, size=size, resize=self.resize)
        except DataError as error:
            return Encoded(item.row, item.name, error)
        if pixels.shape != self.shape:
            found = f"{pixels.shape[0]}x{pixels.shape[1]} pixels, the others are {height}x{width}"
            return Encoded(item.row, item.name, DataError(found))
        return Block(item.row, pixels[None])

    def _in_units(self, pixels: np.ndarray) -> np.ndarray:
        """Cut off what makes the middle of an image begin at a multiple of `unit`, before it is taken by "crop"."""
        height, width = self.shape[:2]
        if self.unit == 1 or self.exact or self.resize != "crop":
            return pixels
        if (pixels.shape[1] < pixels.shape[0]) != (width < height) and width != height:
            pixels = np.rot90(pixels)  # as "crop" turns it
        margins = (pixels.shape[0] - height, pixels.shape[1] - width)
        if min(margins) < 0:  # it will be enlarged
            return pixels
        rows, columns = (
            side - self.unit * (margin // self.unit % 2) for side, margin in zip(pixels.shape[:2], margins, strict=True)
        )
        return np.ascontiguousarray(pixels[:rows, :columns])


def in_threads(stream: Iterable[Encoded | Block], work: Callable[[list[Encoded | Block]], list[T]]) -> Iterator[T]:
    """Yield the results of `work` on chunks of the stream, in order, with a few chunks per core in memory."""
    workers = max(1, min(16, os.cpu_count() or 1))
    waiting: deque[Future[list[T]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="smalti-decode") as pool:
        try:
            for chunk in _chunks(stream):
                waiting.append(pool.submit(work, chunk))
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _chunks(stream: Iterable[Encoded | Block]) -> Iterator[list[Encoded | Block]]:
    """Group images into chunks that are small enough to bound memory and large enough for one task."""
    chunk: list[Encoded | Block] = []
    held_bytes = 0
    for item in stream:
        chunk.append(item)
        if isinstance(item, Block):
            held_bytes += item.pixels.nbytes
        elif isinstance(item.contents, bytes):
            held_bytes += len(item.contents)
        if len(chunk) >= _CHUNK_IMAGES or held_bytes >= _CHUNK_BYTES:
            yield chunk
            chunk, held_bytes = [], 0
    if chunk:
        yield chunk
