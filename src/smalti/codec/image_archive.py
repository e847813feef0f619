"""Archives of pictures: blocks of images of the model's native size, coded side by side, and single files of others.

    with ImageArchiveWriter(model, "thumbs.smt", quality=40, effort=4) as archive:
        archive.add(Picture(pixels), name="cat.png", label=3)

    with ImageArchive(model, "thumbs.smt") as archive:
        archive[7].pixels

Images of the native size wait until a whole batch of blocks is there: one search and one pass of the entropy coder,
whose lanes are the blocks. Each block is a stream with a 16-bit checksum of its codes, inside a block of the archive
with a CRC-32 of its bytes.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

import numpy as np

from smalti.codec.archive import ArchiveHeader, ArchiveReader, ArchiveWriter
from smalti.codec.archive_block import Block
from smalti.codec.blas import one_blas_thread
from smalti.codec.container import PIXEL_LIMIT, CoderKind
from smalti.codec.fields import DIGEST_BYTES, check_model
from smalti.codec.image_file import Model, encode_picture, read_picture_file, write_picture
from smalti.codec.rans import LaneDecoder, LaneEncoder
from smalti.codec.scalar import streams_of
from smalti.data.pictures import Picture
from smalti.errors import CodecError
from smalti.runtime.threads import one_torch_thread

LANES = 256  # blocks that are coded side by side, the more the faster
FEWEST_LANES = 16
BATCH_PIXELS = 1 << 22  # of the images in a batch, if that is not fewer than `FEWEST_LANES` blocks
THREADS = 2  # batches that are coded at once

_Waiting: TypeAlias = tuple[np.ndarray, str, int]  # pixels, name, label
T = TypeVar("T")
R = TypeVar("R")


class ImageArchiveWriter:
    """Compresses pictures into an archive. A context manager: leaving it without an exception finishes the file.

    Args:
        model: the codec.
        path: the file.
        quality, effort: as in `Codec.compress`.
        per_block: images in a block, 1 to 16; with 1 each is quickest to reach, with 16 files are smallest.
        named: whether the images have names.
        classes: class names; empty without labels.
        overwrite: replace an existing file.
        append: go on with an existing file, which must have been written with the same settings.

    Raises:
        OutputError: the file exists, or cannot be written.
        CodecError: with `append`, the file is of another model or other settings.
    """

    def __init__(
        self,
        model: Model,
        path: str | os.PathLike[str],
        *,
        quality: int,
        effort: int,
        per_block: int = 16,
        named: bool = True,
        classes: Sequence[str] = (),
        overwrite: bool = False,
        append: bool = False,
    ) -> None:
        self.model, self.quality, self.effort = model, quality, effort
        height, width, channels = model.native
        header = ArchiveHeader(
            digest=model.digest[:DIGEST_BYTES], width=width, height=height, channels=channels, step=quality,
            payload=model.engine.payload, coder=CoderKind.LANES, per_block=per_block, named=named,
            labelled=bool(classes), classes=tuple(classes),
        )  # fmt: skip
        self.writer = ArchiveWriter.append(path, header) if append else ArchiveWriter(path, header, overwrite=overwrite)
        self._waiting: list[_Waiting] = []
        self._running: deque[tuple[list[_Waiting], Future[list[bytes]]]] = deque()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="smalti-codec")

    def add(self, picture: Picture, *, name: str = "", label: int = -1) -> None:
        """Add a picture of any size. One of the native size is written when its batch of blocks is full.

        Raises:
            OutputError: the disk is full; what was written before stays readable.
            ConfigError: a colour picture for a grey model.
        """
        pixels, header = picture.pixels, self.writer.header
        if pixels.shape == self.model.native and picture.bit_depth == 8 and picture.bare:
            self._waiting.append((pixels, name, label))
            if len(self._waiting) >= lanes_for(self.model, header.per_block) * header.per_block:
                self._submit()
            return
        self.flush()  # images stay in their order
        coded = encode_picture(self.model, picture, self.quality, effort=self.effort)
        self.writer.write_single(write_picture(self.model, coded, full=True), name=name, label=label)

    def flush(self) -> None:
        """Write the images that wait."""
        self._submit()
        self.settle()

    def settle(self) -> None:
        """Write the batches that are being compressed."""
        while self._running:
            self._write_next()

    def _submit(self) -> None:
        """Compress the images that wait in a thread of its own, and write what is ready."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._running.append((waiting, self._pool.submit(self._compressed, [pixels for pixels, _, _ in waiting])))
        while len(self._running) > THREADS:
            self._write_next()

    def _compressed(self, images: list[np.ndarray]) -> list[bytes]:
        with one_blas_thread(), one_torch_thread():  # another batch is compressed at the same time
            codes = self.model.engine.codes_of(np.stack(images), self.quality, effort=self.effort)
            return self._streams(codes)

    def _write_next(self) -> None:
        waiting, result = self._running.popleft()
        self._write(result.result(), [name for _, name, _ in waiting], [label for _, _, label in waiting])

    def add_codes(
        self, codes: np.ndarray, *, names: Sequence[str] | None = None, labels: Sequence[int] | None = None
    ) -> None:
        """Write images of the native size by their codes (N, D, h, w) int32, of the archive's quality."""
        self.flush()
        self._write(self._streams(codes), names or [""] * len(codes), labels or [-1] * len(codes))

    def _streams(self, codes: np.ndarray) -> list[bytes]:
        """The blocks of some images, decoded again and compared."""
        engine, size = self.model.engine, self.writer.header.per_block
        encoder = LaneEncoder(streams_of(len(codes), size))
        streams = engine.encode(codes, self.quality, encoder, per_stream=size)
        again = engine.decode(LaneDecoder(streams), _shape(codes), self.quality, per_stream=size)
        if not np.array_equal(again, codes):
            raise CodecError("a block did not decode to its own codes; this machine computes wrongly, or smalti does")
        return streams

    def _write(self, streams: list[bytes], names: Sequence[str], labels: Sequence[int]) -> None:
        header = self.writer.header
        for number, stream in enumerate(streams):
            part = slice(number * header.per_block, min((number + 1) * header.per_block, len(names)))
            self.writer.write_block(
                stream,
                count=part.stop - part.start,
                names=names[part] if header.named else None,
                labels=labels[part] if header.labelled else None,
            )

    def close(self) -> None:
        """Write what waits and the index."""
        try:
            self.flush()
        finally:
            self._pool.shutdown(cancel_futures=True)
        self.writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.flush()
        except BaseException:
            self.writer.__exit__(*sys.exc_info())
            raise
        finally:
            self._pool.shutdown(cancel_futures=True)
        self.writer.__exit__(kind, error, trace)


class ImageArchive:
    """Pictures of an archive, in any order.

    Args:
        model: the codec that wrote it.
        source: path of the file, or its bytes.
        decoder: "faithful" or "pleasing".
        pixel_limit: of images of other sizes than the native one.

    Raises:
        CodecError: the file cannot be read, is damaged at its beginning, or is of another model.
    """

    def __init__(
        self,
        model: Model,
        source: str | os.PathLike[str] | bytes,
        *,
        decoder: str = "faithful",
        pixel_limit: int = PIXEL_LIMIT,
    ) -> None:
        self.model, self.decoder, self.pixel_limit = model, decoder, pixel_limit
        self.reader = ArchiveReader(source)
        try:
            header, name = self.reader.header, "this archive" if isinstance(source, bytes) else os.fspath(source)
            check_model(header.digest, model.digest, source=name)
            native, low, high = (header.height, header.width, header.channels), *model.engine.steps
            if (
                native != model.native
                or header.payload != model.engine.payload
                or header.coder != CoderKind.LANES
                or header.apart
                or header.bit_depth != 8
                or not low <= header.step <= high
            ):
                raise CodecError(f"{name} was not written by this kind of model; get it again, or give its model")
        except BaseException:
            self.reader.close()
            raise

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, image: int) -> Picture:
        """One image, without decoding other blocks.

        Raises:
            CodecError: its block is damaged.
            IndexError: there is no such image.
        """
        number, place = self.reader.block_of(image)
        return self._pictures([self.reader.read_block(number)])[place]

    def blocks(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[int, list[Picture]]]:
        """Blocks by number, or all of them, many decoded at once: (block number, its pictures).

        Damaged blocks are left out; `reader.problems` says which.
        """
        wanted = range(self.reader.block_count) if numbers is None else numbers
        for found in _ahead(self._batches(wanted), self._decoded):
            yield from found

    def _batches(self, numbers: Sequence[int]) -> Iterator[list[tuple[int, Block]]]:
        """The readable blocks, as many at a time as all threads have work."""
        lanes = min(lanes_for(self.model, self.reader.header.per_block), -(-len(numbers) // THREADS))
        batch: list[tuple[int, Block]] = []
        for number in numbers:
            try:
                batch.append((number, self.reader.read_block(number)))
            except CodecError as error:
                self.reader.note_problem(number, error)
                continue
            if len(batch) == lanes:
                yield batch
                batch = []
        yield batch

    def _decoded(self, batch: list[tuple[int, Block]]) -> list[tuple[int, list[Picture]]]:
        try:
            pictures = iter(self._pictures([block for _, block in batch]))
            return [(number, list(itertools.islice(pictures, block.count))) for number, block in batch]
        except CodecError as error:  # one of them: find out which
            if len(batch) == 1:
                self.reader.note_problem(batch[0][0], error)
                return []
            half = len(batch) // 2
            return self._decoded(batch[:half]) + self._decoded(batch[half:])

    def _pictures(self, blocks: list[Block]) -> list[Picture]:
        """The pictures of some blocks."""
        found: dict[int, list[Picture]] = {}
        for index, block in enumerate(blocks):
            if block.single:
                picture = read_picture_file(
                    self.model, block.payload, decoder=self.decoder, pixel_limit=self.pixel_limit, source="this image"
                )
                found[index] = [picture]
        for count in {block.count for block in blocks if not block.single}:
            same = [index for index, block in enumerate(blocks) if not block.single and block.count == count]
            images = self._native([blocks[index].payload for index in same], count)
            for place, index in enumerate(same):
                found[index] = [Picture(pixels) for pixels in images[place * count : (place + 1) * count]]
        return [picture for index in range(len(blocks)) for picture in found[index]]

    def _native(self, payloads: list[bytes], count: int) -> np.ndarray:
        height, width, _ = self.model.native
        engine, quality = self.model.engine, self.reader.header.step
        dimension, rows, columns = engine.grid(height, width)
        shape = (len(payloads) * count, dimension, rows, columns)
        with one_blas_thread(), one_torch_thread():  # other blocks are decoded at the same time
            codes = engine.decode(LaneDecoder(payloads), shape, quality, per_stream=count)
            return engine.pixels_of(codes, quality, height, width, decoder=self.decoder)

    def close(self) -> None:
        """Close the file."""
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lanes_for(model: Model, per_block: int) -> int:
    """How many blocks of images of a model are coded side by side."""
    height, width, _ = model.native
    return max(FEWEST_LANES, min(LANES, BATCH_PIXELS // (height * width * per_block)))


def _ahead(jobs: Iterable[T], work: Callable[[T], R]) -> Iterator[R]:
    """Results in order, with `THREADS` jobs running ahead."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="smalti-codec") as pool:
        running: deque[Future[R]] = deque()
        try:
            for job in jobs:
                running.append(pool.submit(work, job))
                if len(running) > THREADS:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _shape(codes: np.ndarray) -> tuple[int, int, int, int]:
    count, dimension, height, width = codes.shape
    return count, dimension, height, width
