"""A Pillow plugin: `Image.open("cat.smi")`, `image.save("cat.smi", model="zoo:photo")`, archives as frames.

Opening reads the header and the metadata; pixels are decoded in `load()`. Sizes are checked by Pillow, against
`Image.MAX_IMAGE_PIXELS`, before that. Pixels are stored upright, so nothing has an orientation to apply. An archive
opens as its first image, and `seek` goes to the others.

Pillow has no list of plugins to look up: `register` must be called. Which model a file needs is not known here, but to
the `Models` that it is given. Damage is an `OSError`, as in Pillow's own formats.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import IO, Any, Protocol

from PIL import Image, ImageFile, UnidentifiedImageError

from smalti.codec.archive import ArchiveHeader, ArchiveReader
from smalti.codec.container import (
    HEADER_LIMIT,
    METADATA_LIMIT,
    ChunkKind,
    Form,
    FullHeader,
    chunk_spans,
    form_of,
    is_compressed,
    read_header,
)
from smalti.codec.fields import SIDE_LIMIT, unpack
from smalti.codec.image_archive import ImageArchive
from smalti.codec.image_file import Model, read_picture_file
from smalti.data.pictures import Picture
from smalti.errors import CodecError, SmaltiError

FORMAT = "SMALTI"
ANY_SIZE = SIDE_LIMIT**2  # Pillow has its own limit
_INFO: dict[str, str] = {ChunkKind.ICC: "icc_profile", ChunkKind.EXIF: "exif", ChunkKind.XMP: "xmp"}


class Models(Protocol):
    """Knows models by their digests."""

    def native(self, digest: bytes, source: str) -> tuple[int, int, int]:
        """(height, width, channels) of the images that a model was trained on; CodecError if it is not at hand."""
        ...

    def model(self, digest: bytes, source: str) -> Model:
        """A model; CodecError if it is not at hand."""
        ...

    def compress(self, image: Image.Image, options: dict[str, Any]) -> bytes:
        """The file of an image, by the options of `Image.save`."""
        ...


class SmaltiImageFile(ImageFile.ImageFile):
    """A compressed file as a Pillow image.

    Attributes:
        n_frames: images of an archive; 1 of another file.
        is_animated: whether there are several.
    """

    format = FORMAT
    format_description = "smalti compressed image"
    models: Models  # set by `register`
    n_frames, is_animated = 1, False
    _archive: ArchiveReader | None = None
    _images: ImageArchive | None = None  # the archive with its model, once an image is decoded
    _block: tuple[int, list[Picture]] = (-1, [])  # the block that was decoded last
    _frame = _decoded = 0  # an image that comes out of a pickle has its pixels

    def _open(self) -> None:
        assert self.fp is not None
        self._source, self._decoded = os.fsdecode(self.filename) or "this file", -1
        start = self.fp.read(HEADER_LIMIT)
        try:
            if form_of(start[:3], source=self._source) == Form.ARCHIVE:
                self._data = os.fsdecode(self.filename) or start + self.fp.read()
                self._archive = ArchiveReader(self._data)
                if not len(self._archive):
                    raise CodecError(f"{self._source} holds no images; get or make it again")
                self._describe(*self._shape_of_frame(self._archive, 0))
            else:
                header = read_header(start, pixel_limit=ANY_SIZE, source=self._source)
                if isinstance(header, FullHeader):
                    self._describe(header.height, header.width, header.channels, header.bit_depth)
                else:
                    self._describe(*self.models.native(header.digest, self._source), 8)
                self._read_metadata(start)
        except SmaltiError as error:
            self._close_archive()
            raise UnidentifiedImageError(str(error)) from error
        if self._archive is not None:
            self.n_frames, self.is_animated = len(self._archive), len(self._archive) > 1

    def _describe(self, height: int, width: int, channels: int, bit_depth: int) -> None:
        """Set size and mode."""
        modes = {1: "I;16" if bit_depth == 16 else "L", 3: "RGB", 4: "RGBA"}
        if channels not in modes:
            raise CodecError(f"{self._source} has {channels} channels, expected 1, 3 or 4; decompress it with smalti")
        self._size, self._mode, self.tile = (width, height), modes[channels], []

    def _shape_of_frame(self, archive: ArchiveReader, frame: int) -> tuple[int, int, int, int]:
        """(height, width, channels, bit depth) of an image of the archive."""
        header: ArchiveHeader | FullHeader = archive.header
        number, _ = archive.block_of(frame)
        if len(archive.images_of(number)) == 1:
            block = archive.read_block(number)
            if block.single:
                one = read_header(block.payload, pixel_limit=ANY_SIZE, source=self._source)
                assert isinstance(one, FullHeader)
                header = one
        return header.height, header.width, header.channels, header.bit_depth

    def _read_metadata(self, start: bytes) -> None:
        """Put the metadata into `info`, from wherever they are in the file; damaged ones are reported by `load`."""
        assert self.fp is not None
        for span in chunk_spans(start, pixel_limit=ANY_SIZE, source=self._source):
            if span.kind in _INFO and span.length <= METADATA_LIMIT:
                self.fp.seek(span.start)
                with contextlib.suppress(CodecError):
                    packed = self.fp.read(span.length)
                    value = unpack(packed, limit=METADATA_LIMIT, name="metadata", source=self._source)
                    start_of_exif = b"Exif\0\0" if span.kind == ChunkKind.EXIF else b""
                    self.info[_INFO[ChunkKind(span.kind)]] = start_of_exif + value

    def load(self) -> Any:
        """Decode the current image.

        Raises:
            OSError: it is damaged, or its model is not at hand.
        """
        if self._decoded != self._frame:
            try:
                image = self._picture().to_pil()
            except SmaltiError as error:
                raise OSError(str(error)) from error
            if image.size != self.size or image.mode != self.mode:
                raise OSError(f"{self._source} decodes to {image.mode} {image.size}, not {self.mode} {self.size}")
            self.im = image.im
            self.info.update(image.info)
            self._decoded = self._frame
            if self._archive is None and self.fp is not None and getattr(self, "_exclusive_fp", False):
                self.fp.close()
        return Image.Image.load(self)

    def _picture(self) -> Picture:
        """The current image."""
        if self._archive is not None:
            return self._picture_of_archive(self._archive)
        if self.fp is None or self.fp.closed:
            raise CodecError(f"{self._source} has been closed; open it again")
        self.fp.seek(0)
        data = self.fp.read()
        header = read_header(data[:HEADER_LIMIT], pixel_limit=ANY_SIZE, source=self._source)
        model = self.models.model(header.digest, self._source)
        return read_picture_file(model, data, pixel_limit=ANY_SIZE, source=self._source)

    def _picture_of_archive(self, archive: ArchiveReader) -> Picture:
        if self._images is None:
            model = self.models.model(archive.header.digest, self._source)
            self._images = ImageArchive(model, self._data, pixel_limit=ANY_SIZE)
        number, place = archive.block_of(self._frame)
        if self._block[0] != number:
            found = list(self._images.blocks([number]))
            if not found:
                raise CodecError(f"image {self._frame} of {self._source} is damaged; get or make it again")
            self._block = found[0]
        return self._block[1][place]

    def seek(self, frame: int) -> None:
        """Go to an image of an archive.

        Raises:
            EOFError: there is no such image.
            OSError: it is damaged.
            Image.DecompressionBombError: it is too large for Pillow.
        """
        if not 0 <= frame < self.n_frames:
            raise EOFError(f"image {frame} of {self.n_frames} in {self._source}")
        if frame == self._frame:
            return
        assert self._archive is not None
        try:
            height, width, channels, depth = self._shape_of_frame(self._archive, frame)
            _check_pixels(height * width)
            self._describe(height, width, channels, depth)
        except SmaltiError as error:
            raise OSError(str(error)) from error
        self._frame = frame
        for name in _INFO.values():
            self.info.pop(name, None)

    def tell(self) -> int:
        """Number of the current image."""
        return self._frame

    def close(self) -> None:
        """Close the file."""
        self._close_archive()
        super().close()

    def __exit__(self, *arguments: object) -> None:
        self._close_archive()
        super().__exit__(*arguments)

    def _close_archive(self) -> None:
        for opened in (self._archive, self._images):
            if opened is not None:
                opened.close()


def register(models: Models) -> None:
    """Make Pillow open and write compressed files.

    Args:
        models: knows the models of the files.
    """
    SmaltiImageFile.models = models
    Image.register_open(FORMAT, SmaltiImageFile, is_compressed)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, ".smi")
    Image.register_mime(FORMAT, "image/x-smalti")


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    file.write(SmaltiImageFile.models.compress(image, dict(image.encoderinfo)))


def _check_pixels(pixels: int) -> None:
    """What Pillow checks when a file is opened, for another image of the same file."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or pixels <= limit:
        return
    said = f"an image of {pixels:,} pixels exceeds the limit of {limit:,}; it could be a decompression bomb"
    if pixels > 2 * limit:
        raise Image.DecompressionBombError(said)
    warnings.warn(said, Image.DecompressionBombWarning, stacklevel=3)
