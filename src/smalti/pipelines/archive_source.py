"""Archives of compressed pictures as a data source: `smalti.data.load("thumbs.smt")`, `smalti train --data thumbs.smt`.

Names say what the splits are, as in a zip of image files. Classes and labels are those of the archive, or else the
class folders of the names. The model is found by its digest: a checkpoint in the folder of the archive, or in the zoo.
Damaged images are listed as skipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from smalti.codec.archive import ArchiveHeader, ArchiveReader
from smalti.codec.container import Form, FullHeader, form_of, read_header
from smalti.codec.fields import SIDE_LIMIT
from smalti.data.image_tree import assign_splits, class_labels
from smalti.data.pictures import Picture
from smalti.data.sources import Block, Encoded, Listing, Numbered, Source, choose_split
from smalti.errors import CodecError, DataError, command


class ArchiveSource(Source):
    """The images of an archive.

    Args:
        path: of the file.
        location: what messages and the cache call it.

    Raises:
        DataError: it is no archive.
    """

    kind = "smt"

    def __init__(self, path: Path, location: str) -> None:
        self.path, self.location = path, location
        self._images: list[int] = []  # of each row of the last listing
        try:
            with path.open("rb") as file:
                form = form_of(file.read(3), source=location)
        except CodecError as error:
            raise DataError(error.message) from error
        if form != Form.ARCHIVE:
            raise DataError(
                f"{location} is one compressed image; give an archive, or decompress it with {command('decompress')}"
            )

    def signature(self) -> str:
        status = self.path.stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    def listing(self, split: str | None, *, look: bool) -> Listing:
        try:
            with ArchiveReader(self.path) as reader:
                return self._listing(reader, split, look)
        except CodecError as error:
            raise DataError(error.message) from error

    def _listing(self, reader: ArchiveReader, split: str | None, look: bool) -> Listing:
        if not len(reader):
            raise DataError(f"{self.location} holds no images; make it again")
        numbers = Numbered("", len(reader))
        names = [name or numbers[number] for number, name in enumerate(reader.names or [""] * len(reader))]
        splits, assignments = assign_splits(names)
        chosen = choose_split(split, splits, self.location)
        counts = Counter(assignment.split for assignment in assignments)
        self._images = [number for number, place in enumerate(assignments) if place.split == chosen]
        labels, classes = _labels(reader, names)
        kept = [labels[number] for number in self._images]
        labelled = bool(classes) and min(kept) >= 0
        sizes, channels, modes = _looked_at(reader, self._images) if look else (None, None, Counter[str]())
        if look and not sizes:
            raise DataError(f"all images of {self.location} are damaged; get or make it again")
        return Listing(
            split=chosen,
            splits=splits,
            names=[names[number] for number in self._images],
            labels=kept if labelled else None,
            classes=classes if labelled else (),
            sizes=sizes,
            channels=channels,
            counts={name: counts[name] for name in splits},
            modes=modes,
            ignored=counts[None] if splits else 0,
        )

    def stream(self, listing: Listing) -> Iterator[Encoded | Block]:
        from smalti.pipelines.codec_models import CodecFinder  # late: a pack that is there needs no torch

        rows = {number: row for row, number in enumerate(self._images)}
        left = dict(rows)
        try:
            with ArchiveReader(self.path) as reader:
                digest = reader.header.digest
            codec = CodecFinder().find(digest, source=self.location, folders=[self.path.parent])
            with codec.open_archive(self.path) as archive:
                blocks = sorted({archive.reader.block_of(number)[0] for number in rows})
                for block, pictures in archive.blocks(blocks):
                    for number, picture in zip(archive.reader.images_of(block), pictures, strict=True):
                        if left.pop(number, None) is not None:
                            yield Block(rows[number], _plain(picture)[None])
        except CodecError as error:
            raise DataError(error.message) from error
        for row in left.values():
            yield Encoded(row, listing.names[row], DataError("damaged inside the archive"))


def _labels(reader: ArchiveReader, names: list[str]) -> tuple[list[int], tuple[str, ...]]:
    """Labels and classes of all images: those of the archive, or else by the folders of the names."""
    labels = reader.labels
    if labels is None:
        return class_labels(names)
    classes = reader.classes or tuple(str(number) for number in range(int(labels.max()) + 1))
    return labels.tolist(), classes


def _looked_at(reader: ArchiveReader, images: list[int]) -> tuple[Counter[tuple[int, int]], int, Counter[str]]:
    """The sizes of images, the channels that hold them all, and their modes. Reads the blocks of one image."""
    sizes: Counter[tuple[int, int]] = Counter()
    channels: Counter[int] = Counter()
    for number, count in Counter(reader.block_of(image)[0] for image in images).items():
        try:
            height, width, depth = shape_of_block(reader, number)
        except CodecError:
            continue  # it is skipped when it is read
        sizes[height, width] += count
        channels[depth] += count
    modes = Counter({{1: "L", 3: "RGB", 4: "RGBA"}.get(depth, str(depth)): n for depth, n in channels.items()})
    return sizes, 4 if 4 in channels else 1 if set(channels) == {1} else 3, modes


def shape_of_block(reader: ArchiveReader, number: int) -> tuple[int, int, int]:
    """(height, width, channels) of the images of a block.

    Raises:
        CodecError: it is damaged.
    """
    header: ArchiveHeader | FullHeader = reader.header
    if len(reader.images_of(number)) == 1:
        block = reader.read_block(number)
        if block.single:
            one = read_header(block.payload, pixel_limit=SIDE_LIMIT**2)
            assert isinstance(one, FullHeader)
            header = one
    return header.height, header.width, header.channels


def _plain(picture: Picture) -> np.ndarray:
    """8-bit pixels."""
    pixels = picture.pixels
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return pixels
