"""Compression of pictures with a trained codec."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
from torch import nn

from smalti.checkpoint.file import Card
from smalti.codec.image_archive import ImageArchiveWriter
from smalti.codec.image_codec import CodecEngine, squared_error
from smalti.codec.image_file import (
    QUALITIES,
    Coded,
    Model,
    encode_picture,
    exclude_unlikely,
    model_pixels,
    picture_pixels,
    write_picture,
)
from smalti.codec.tuning import read_tuning
from smalti.config.codec import CodecConfig
from smalti.data.images import ImageLike
from smalti.data.pictures import Picture, read_picture
from smalti.errors import CodecError, ConfigError, arg
from smalti.models.codec.codec import ImageCodec
from smalti.pipelines.picture_codec import PictureCodec, check_effort

EFFORT = 8  # rounds of the search
QUALITY = 40
DECODERS = ("faithful", "pleasing")


@dataclass(frozen=True)
class Rate:
    """How far to compress: one of these, the others None.

    Attributes:
        quality: 1 to 100; 16 more halve the quantisation step.
        max_bytes: largest size of the file.
        bpp: the same in bits a pixel.
        target_psnr: smallest PSNR in dB.
    """

    quality: int | None = None
    max_bytes: int | None = None
    bpp: float | None = None
    target_psnr: float | None = None

    def __post_init__(self) -> None:
        given = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(arg(name) for name in given)} contradict each other; give one of them")
        low, high = QUALITIES
        if self.quality is not None and not low <= self.quality <= high:
            raise ConfigError(f"{arg('quality')} is {self.quality}, but must be from {low} to {high}")
        for name in ("max_bytes", "bpp", "target_psnr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{arg(name)} is {value}, but must be a number above 0")


class Codec(PictureCodec):
    """Pipeline of a model trained with the recipe `codec`: pictures to bytes and back.

    codec = smalti.Codec.from_pretrained("zoo:photo")
    data = codec.compress("cat.jpg", bpp=0.3)
    pixels = codec.decompress(data)              # (H, W, C) uint8
    """

    missing: ClassVar[str] = "cannot compress pictures at several qualities; give a model trained with a codec preset"

    def __init__(self, module: nn.Module, card: Card, path: Path, device: torch.device | str = "cpu") -> None:
        super().__init__(module, card, path, device)
        config = card.config.model
        assert isinstance(config, CodecConfig)
        self.rate_weight = config.rate_weight

    @cached_property
    def engine(self) -> CodecEngine:
        """The transform codec as functions of arrays."""
        return CodecEngine(cast(ImageCodec, self.module), rate_weight=self.rate_weight)

    @cached_property
    def model(self) -> Model:
        """The codec for the functions of `smalti.codec`."""
        channels, height, width = self.card.image.shape
        return Model(self.engine, bytes.fromhex(self.card.digest), (height, width, channels))

    @property
    def decoders(self) -> tuple[str, ...]:
        """The decoders that the model has: "faithful", and perhaps "pleasing"."""
        return DECODERS if cast(ImageCodec, self.module).pleasing is not None else DECODERS[:1]

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
            quality, max_bytes, bpp, target_psnr: see `Rate`; quality 40 if none is given.
            effort: rounds of the rate-distortion search, 0 to 1000, 8 if not given; each takes about as long as three
                decodings.
            tune: steps of training some of the decoder's biases on the picture (codec/tuning.py), for large ones; the
                changes are stored in the file if they are worth it.
            exact: store the difference to the exact pixels too: the file decodes to them, on every machine.
            metadata: keep ICC profile, EXIF and XMP.

        Returns:
            A file. It has been decoded, and gave the codes that were encoded.

        Raises:
            ConfigError: an argument is out of range, or the codec is for grey pictures and this one is not.
            CodecError: the target cannot be reached.
            DataError: the picture cannot be read.
        """
        rate = Rate(quality, max_bytes, bpp, target_psnr)
        effort = EFFORT if effort is None else effort
        check_effort(effort)
        check_effort(tune, "tune")
        picture = read_picture(image, metadata=metadata)
        encode = functools.partial(encode_picture, self.model, picture, effort=effort, tune=tune)
        if rate.target_psnr is not None:
            return write_picture(self.model, self._of_psnr(encode, rate.target_psnr), exact=exact)

        def written(level: int) -> bytes:
            return write_picture(self.model, encode(level), exact=exact)

        if rate.quality is not None or rate == Rate():
            return written(rate.quality or QUALITY)
        pixels = picture.pixels.shape[0] * picture.pixels.shape[1]
        limit = rate.max_bytes if rate.max_bytes is not None else int(cast(float, rate.bpp) * pixels / 8)
        return _of_size(written, limit)

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
            quality, effort: 40 and 8 if not given.
        """
        quality, effort = QUALITY if quality is None else quality, EFFORT if effort is None else effort
        check_effort(effort)
        Rate(quality)
        return ImageArchiveWriter(
            self.model, path, quality=quality, effort=effort, per_block=per_block, named=named, classes=classes,
            overwrite=overwrite, append=append,
        )  # fmt: skip

    def _of_psnr(self, encode: Callable[[int], Coded], wanted: float) -> Coded:
        """The lowest quality whose PSNR is at least as wanted."""
        low, high = QUALITIES
        best: Coded | None = None
        while low <= high:
            middle = (low + high) // 2
            coded = encode(middle)
            if self.psnr(coded) >= wanted:
                best, high = coded, middle - 1
            else:
                low = middle + 1
        if best is None:
            raise CodecError(
                f"quality {QUALITIES[1]} of this picture has {self.psnr(encode(QUALITIES[1])):.2f} dB, less than the "
                f"{wanted:g} dB asked for; ask for less, or give {arg('exact', True)}"
            )
        return best

    def psnr(self, coded: Coded) -> float:
        """PSNR of a picture's codes in dB, without alpha that is stored beside them; as they are in a file."""
        exclude_unlikely(self.model, coded)
        pixels = coded.picture.pixels
        height, width, channels = pixels.shape
        depth, native = coded.picture.bit_depth, self.model.native[2]
        tuning = read_tuning(self.engine, coded.tuning) if coded.tuning else None
        found = self.model.engine.pixels_of(
            coded.codes[None], coded.quality, height, width, bit_depth=depth, tuning=tuning
        )[0]
        kept = picture_pixels(found, min(channels, native))
        wanted = model_pixels(pixels, native) if channels == 4 else pixels
        return -10 * float(np.log10(max(squared_error(kept, wanted[..., : kept.shape[2]]), 1e-12)))


def _of_size(written: Callable[[int], bytes], limit: int) -> bytes:
    """The file of the best quality that has at most `limit` bytes, by bisection."""
    low, high = QUALITIES
    best = None
    while low <= high:
        middle = (low + high) // 2
        data = written(middle)
        if len(data) <= limit:
            best, low = data, middle + 1
        else:
            high = middle - 1
    if best is None:
        raise CodecError(
            f"the smallest file of this picture has {len(written(QUALITIES[0])):,} bytes, more than the {limit:,} "
            "asked for; allow more, or make the picture smaller"
        )
    return best
