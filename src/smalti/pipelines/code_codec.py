"""Compression of pictures, and of codes alone, with a VQ-VAE and the context net of its codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, cast

import numpy as np

from smalti.codec.code_context import CodeContext, decode_codes, encode_codes
from smalti.codec.code_engine import CodeEngine
from smalti.codec.image_file import Model, encode_picture, write_picture
from smalti.codec.rans import LaneDecoder, LaneEncoder
from smalti.data.pictures import Picture
from smalti.errors import ConfigError, arg
from smalti.models.codec.code_context import CompressedAutoencoder
from smalti.pipelines.autoencoder import Autoencoder
from smalti.pipelines.picture_codec import PictureCodec, Settings, check_effort

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

    def checked(self, settings: Settings) -> Settings:
        """See `PictureCodec.checked`; a VQ-VAE has one rate, whose step index is 0."""
        given = dataclasses.asdict(settings)
        effort = given.pop("effort") or 0
        wrong = [name for name, value in given.items() if value is not None and value is not False and value != 0]
        if wrong:
            raise ConfigError(
                f"{arg(wrong[0])} is not for {self.path}: a VQ-VAE has one rate; leave it out, or give a model trained "
                "with a codec preset"
            )
        check_effort(effort)
        return Settings(quality=0, effort=effort)

    def _compressed(self, picture: Picture, settings: Settings) -> bytes:
        return write_picture(self.model, encode_picture(self.model, picture, 0, effort=cast(int, settings.effort)))

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
