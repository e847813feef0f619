"""Base class of the pipelines that turn pictures into files and back: `Codec` and `CodeCodec`."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from PIL import Image

from smalti.codec.container import PIXEL_LIMIT
from smalti.codec.image_archive import ImageArchive, ImageArchiveWriter
from smalti.codec.image_file import Model, read_picture_file
from smalti.data.images import ImageLike
from smalti.data.pictures import Picture
from smalti.errors import CheckpointError, ConfigError, arg
from smalti.pipelines.base import Pipeline

LARGEST_EFFORT = 1000


class PictureCodec(Pipeline):
    """A trained model that compresses pictures."""

    missing: ClassVar[str] = "cannot compress pictures; give a model trained with a codec preset, or with context"

    @property
    @abstractmethod
    def model(self) -> Model:
        """The model for the functions of `smalti.codec`."""

    @property
    def decoders(self) -> tuple[str, ...]:
        """The decoders that the model has."""
        return ("faithful",)

    @abstractmethod
    def compress(
        self,
        image: ImageLike | bytes | Picture,
        *,
        quality: int | None = None,
        max_bytes: int | None = None,
        bpp: float | None = None,
        target_psnr: float | None = None,
        effort: int | None = None,
        tune: int = 0,
        exact: bool = False,
        metadata: bool = True,
    ) -> bytes:
        """Compress one picture of any size; what is not given has the default of the kind of model."""

    @abstractmethod
    def write_archive(
        self,
        path: str | os.PathLike[str],
        *,
        quality: int | None = None,
        effort: int | None = None,
        per_block: int = 16,
        named: bool = True,
        classes: Sequence[str] = (),
        overwrite: bool = False,
        append: bool = False,
    ) -> ImageArchiveWriter:
        """Begin an archive of many pictures: see `smalti.codec.image_archive.ImageArchiveWriter`."""

    def check_settings(self, **given: object) -> None:
        """Raise ConfigError for settings of `compress`, neither None nor 0, that this kind of model does not have."""

    def decompress(
        self, data: bytes, *, decoder: str = "faithful", pixel_limit: int = PIXEL_LIMIT, source: str = "this file"
    ) -> np.ndarray:
        """Decode a file of one picture: (H, W, C) uint8, or uint16 for a picture of 16 bits.

        Args:
            decoder: one of `decoders`; all read the same file.
            pixel_limit: larger pictures are refused before anything is allocated.
            source: name of the file, for messages.

        Raises:
            CodecError: the file is damaged, too large, or was compressed with another model.
            ConfigError: the model has no such decoder.
        """
        return self.read(data, decoder=decoder, pixel_limit=pixel_limit, source=source).pixels

    def open(
        self, data: bytes, *, decoder: str = "faithful", pixel_limit: int = PIXEL_LIMIT, source: str = "this file"
    ) -> Image.Image:
        """Decode a file of one picture to a Pillow image, with its metadata in `info`. See `decompress`."""
        return self.read(data, decoder=decoder, pixel_limit=pixel_limit, source=source).to_pil()

    def read(
        self, data: bytes, *, decoder: str = "faithful", pixel_limit: int = PIXEL_LIMIT, source: str = "this file"
    ) -> Picture:
        """Decode a file of one picture to pixels with their metadata. See `decompress`."""
        self.check_decoder(decoder)
        return read_picture_file(self.model, data, decoder=decoder, pixel_limit=pixel_limit, source=source)

    def open_archive(
        self, source: str | os.PathLike[str] | bytes, *, decoder: str = "faithful", pixel_limit: int = PIXEL_LIMIT
    ) -> ImageArchive:
        """Open an archive of pictures: see `smalti.codec.image_archive.ImageArchive`."""
        self.check_decoder(decoder)
        return ImageArchive(self.model, source, decoder=decoder, pixel_limit=pixel_limit)

    def check_decoder(self, decoder: str) -> None:
        """Raise ConfigError if the model has no such decoder."""
        if decoder not in self.decoders:
            raise ConfigError(f"{arg('decoder')} is {decoder!r}, but {self.path} has {' and '.join(self.decoders)}")


def picture_codec(model: Pipeline) -> PictureCodec:
    """Check that a model compresses pictures, and return it.

    Raises:
        CheckpointError: it is of another kind.
    """
    if not isinstance(model, PictureCodec):
        raise CheckpointError(f"{model.path} is a {model.card.kind}, which {PictureCodec.missing}")
    return model


def check_effort(effort: int, name: str = "effort") -> None:
    """Raise ConfigError if the number of search rounds, or of another such effort, is out of range."""
    if not 0 <= effort <= LARGEST_EFFORT:
        raise ConfigError(f"{arg(name)} is {effort}, but must be from 0 to {LARGEST_EFFORT} rounds")
