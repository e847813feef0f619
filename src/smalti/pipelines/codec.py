"""Compression of pictures with a trained codec."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
from torch import nn

from smalti.checkpoint.file import Card
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
from smalti.data.pictures import Picture
from smalti.errors import CodecError, ConfigError, arg
from smalti.models.codec.codec import ImageCodec
from smalti.pipelines.picture_codec import PictureCodec, Settings, check_effort

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

    def checked(self, settings: Settings) -> Settings:
        """See `PictureCodec.checked`; the quality stays None where a size or a PSNR is the target."""
        rate = Rate(settings.quality, settings.max_bytes, settings.bpp, settings.target_psnr)
        effort = EFFORT if settings.effort is None else settings.effort
        check_effort(effort)
        check_effort(settings.tune, "tune")
        return dataclasses.replace(settings, effort=effort, quality=QUALITY if rate == Rate() else settings.quality)

    def _compressed(self, picture: Picture, settings: Settings) -> bytes:
        effort = cast(int, settings.effort)
        encode = functools.partial(encode_picture, self.model, picture, effort=effort, tune=settings.tune)

        def written(coded: Coded) -> bytes:
            return write_picture(self.model, coded, exact=settings.exact)

        if settings.quality is not None:
            return written(encode(settings.quality))
        if settings.target_psnr is not None:
            return written(self._of_psnr(encode, settings.target_psnr))
        limit = settings.max_bytes
        if limit is None:
            limit = int(cast(float, settings.bpp) * picture.pixels.shape[0] * picture.pixels.shape[1] / 8)
        return _of_size(lambda quality: written(encode(quality)), limit)

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
