"""Compression of pictures, and of codes alone, with a VQ-VAE and the context net of its codes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, cast

import numpy as np

from smalti.codec.code_context import CodeContext, decode_codes, encode_codes
from smalti.codec.code_engine import CodeEngine
from smalti.codec.image_archive import ImageArchiveWriter
from smalti.codec.image_file import Model, encode_picture, write_picture
from smalti.codec.rans import LaneDecoder, LaneEncoder
from smalti.data.images import ImageLike
from smalti.data.pictures import Picture, read_picture
from smalti.errors import ConfigError, arg
from smalti.models.codec.code_context import CompressedAutoencoder
from smalti.pipelines.autoencoder import Autoencoder
from smalti.pipelines.picture_codec import PictureCodec, check_effort

LANES = 256  # images coded side by side


class CodeCodec(PictureCodec):
    """Pipeline of a model trained with the recipe `context`: a VQ-VAE, and pictures or codes to bytes and back.

    model = smalti.CodeCodec.from_pretrained("runs/context")
    data = model.compress("cat.jpg")
    pixels = model.decompress(data)                               # (H, W, C) uint8
    codes = model.tokenizer.encode("cat.jpg")                     # (1, P, h, w) int64
    payloads = model.compress_codes(codes)                        # a byte string for each image
    codes = model.decompress_codes(payloads, codes.shape[2:])
    """

    missing: ClassVar[str] = "compresses no codes; give a model trained with the preset context"

    @cached_property
    def context(self) -> CodeContext:
        """The integer net, for `encode_codes` and `decode_codes` of codec/code_context.py with any coder.

        Raises:
            CodecError: its weights are not finite, or too large.
        """
        return self.engine.context

    @cached_property
    def engine(self) -> CodeEngine:
        """The VQ-VAE and its net as functions of arrays."""
        return CodeEngine(self._network)

    @cached_property
    def model(self) -> Model:
        """The model for the functions of `smalti.codec`."""
        channels, height, width = self.card.image.shape
        return Model(self.engine, bytes.fromhex(self.card.digest), (height, width, channels))

    @cached_property
    def tokenizer(self) -> Autoencoder:
        """The VQ-VAE whose codes these are."""
        assert self.card.tokenizer is not None
        return Autoencoder(self._network.tokenizer, self.card.tokenizer, self.path, self.device)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes in each plane."""
        return self._network.context.codebook_sizes

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
        """Compress one picture of any size. A VQ-VAE has one rate.

        Args:
            image: as in `Codec.compress`.
            quality, max_bytes, bpp, target_psnr, tune, exact: not for a VQ-VAE.
            effort: rounds of code refinement (models/autoencoder/refinement.py), 0 to 1000, 0 if not given.
            metadata: keep ICC profile, EXIF and XMP.

        Returns:
            A file. It has been decoded, and gave the codes that were encoded.

        Raises:
            ConfigError: an argument is not for a VQ-VAE or out of range, or the picture does not fit the model.
            DataError: the picture cannot be read.
        """
        self.check_settings(
            quality=quality, max_bytes=max_bytes, bpp=bpp, target_psnr=target_psnr, tune=tune, exact=exact
        )
        check_effort(effort or 0)
        picture = read_picture(image, metadata=metadata)
        return write_picture(self.model, encode_picture(self.model, picture, 0, effort=effort or 0))

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
        self.check_settings(quality=quality)
        check_effort(effort or 0)
        return ImageArchiveWriter(
            self.model, path, quality=0, effort=effort or 0, per_block=per_block, named=named, classes=classes,
            overwrite=overwrite, append=append,
        )  # fmt: skip

    def check_settings(self, **given: object) -> None:
        """Raise ConfigError for a setting of `Codec.compress` that is neither None nor 0: a VQ-VAE has one rate."""
        wrong = [name for name, value in given.items() if value is not None and value is not False and value != 0]
        if wrong:
            raise ConfigError(
                f"{arg(wrong[0])} is not for {self.path}: a VQ-VAE has one rate; leave it out, or give a model trained "
                "with a codec preset"
            )

    def compress_codes(self, codes: np.ndarray) -> list[bytes]:
        """Compress the codes of images, each on its own.

        Args:
            codes: (N, P, h, w) integers, on a grid of any size.

        Returns:
            N payloads. They hold 16 bits of a checksum, but neither the size of the grid nor the model.

        Raises:
            CodeRangeError: a code is not in the codebook, or the number of planes is wrong.
        """
        parts = (codes[start : start + LANES] for start in range(0, len(codes), LANES))
        return [stream for part in parts for stream in encode_codes(self.context, part, LaneEncoder(len(part)))]

    def decompress_codes(self, payloads: Sequence[bytes], grid: tuple[int, int]) -> np.ndarray:
        """The inverse of `compress_codes`.

        Args:
            payloads: N byte strings.
            grid: (h, w) of the codes.

        Returns:
            (N, P, h, w) int64.

        Raises:
            CodecError: a payload is damaged, or is of another model or grid.
        """
        found = [np.zeros((0, len(self.codebook_sizes), *grid), dtype=np.int64)]
        for start in range(0, len(payloads), LANES):
            part = payloads[start : start + LANES]
            found.append(decode_codes(self.context, LaneDecoder(part), len(part), grid))
        return np.concatenate(found)

    def information(self, codes: np.ndarray) -> np.ndarray:
        """Bits that the codes of each image take, without what a file adds: (N, P, h, w) -> (N,) float64.

        Raises:
            CodeRangeError: as `compress_codes`.
        """
        parts = (codes[start : start + LANES] for start in range(0, len(codes), LANES))
        return np.concatenate([np.zeros(0), *(self.context.information(part) for part in parts)])

    @property
    def _network(self) -> CompressedAutoencoder:
        return cast(CompressedAutoencoder, self.module)
