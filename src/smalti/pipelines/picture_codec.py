"""Base class of the pipelines that turn pictures into files and back: `Codec` and `CodeCodec`."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from smalti.codec.container import PIXEL_LIMIT
from smalti.codec.image_archive import ImageArchive, ImageArchiveWriter
from smalti.codec.image_file import Model, read_picture_file
from smalti.data.images import ImageLike
from smalti.data.pictures import Picture, read_picture
from smalti.errors import CheckpointError, ConfigError, arg
from smalti.pipelines.base import Pipeline

LARGEST_EFFORT = 1000


@dataclass(frozen=True)
class Settings:
    """How to compress a picture: see `PictureCodec.compress`. Not every kind of model has all of them."""

    quality: int | None = None
    max_bytes: int | None = None
    bpp: float | None = None
    target_psnr: float | None = None
    effort: int | None = None
    tune: int = 0
    exact: bool = False


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
        """Compress one picture of any size.

        Args:
            image: a path, the bytes of an image file, a Pillow image, an array (H, W, C) of uint8 or uint16, or a
                picture.
            quality: 1 to 100; 16 more halve the quantisation step. A `Codec` takes 40 if neither this nor one of the
                next three is given; a VQ-VAE has one rate and takes none of them.
            max_bytes: largest size of the file.
            bpp: the same in bits a pixel.
            target_psnr: smallest PSNR in dB.
            effort: 0 to 1000 rounds of the rate-distortion search, 8 if not given; each takes about as long as three
                decodings. Of a VQ-VAE, rounds of code refinement, 0 if not given.
            tune: steps of training some of a `Codec`'s decoder biases on the picture (codec/tuning.py), for large ones;
                the changes are stored in the file if they are worth it.
            exact: of a `Codec`: store the difference to the exact pixels, to which the file then decodes everywhere.
            metadata: keep ICC profile, EXIF and XMP.

        Returns:
            A file. It has been decoded, and gave the codes that were encoded.

        Raises:
            ConfigError: an argument is out of range or not for this model, or the picture does not fit the model.
            CodecError: the target cannot be reached.
            DataError: the picture cannot be read.
        """
        settings = self.checked(Settings(quality, max_bytes, bpp, target_psnr, effort, tune, exact))
        return self._compressed(read_picture(image, metadata=metadata), settings)

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
        """Begin an archive of many pictures: see `smalti.codec.image_archive.ImageArchiveWriter`.

        Args:
            quality, effort: as in `compress`.
        """
        settings = self.checked(Settings(quality=quality, effort=effort))
        assert settings.quality is not None
        assert settings.effort is not None
        return ImageArchiveWriter(
            self.model, path, quality=settings.quality, effort=settings.effort, per_block=per_block, named=named,
            classes=classes, overwrite=overwrite, append=append,
        )  # fmt: skip

    @abstractmethod
    def checked(self, settings: Settings) -> Settings:
        """Settings with the defaults of this kind of model.

        Raises:
            ConfigError: one is out of range, contradicts another, or is not for this kind of model.
        """

    @abstractmethod
    def _compressed(self, picture: Picture, settings: Settings) -> bytes:
        """The file of a picture, for settings from `checked`."""

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
