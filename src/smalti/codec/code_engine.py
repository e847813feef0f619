"""A trained VQ-VAE with its context net as functions of arrays: pixels to codes, codes to pixels, codes to streams.

A picture is one region, coded as one stream. The functions are those of `CodecEngine` (codec/image_codec.py); there is
one step, 0, and one decoder.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from smalti.codec.code_context import CodeContext, decode_codes, encode_codes
from smalti.codec.entropy import EntropyDecoder, EntropyEncoder
from smalti.codec.fields import SIDE_LIMIT, PayloadKind
from smalti.errors import CodecError, ConfigError
from smalti.models.autoencoder.refinement import refine
from smalti.models.codec.code_context import CompressedAutoencoder
from smalti.runtime.pixels import to_pixels, to_tensor

LARGEST = 4096 * 4096  # pixels of a picture: about 4 GB of activations
BATCH_PIXELS = 1 << 18  # pixels that are encoded or decoded at once, of many small images


class CodeEngine:
    """Functions of a trained VQ-VAE and the context net of its codes.

    Args:
        module: in eval mode.
    """

    payload: ClassVar[PayloadKind] = PayloadKind.CODES
    steps: ClassVar[tuple[int, int]] = (0, 0)

    def __init__(self, module: CompressedAutoencoder) -> None:
        self.module, self.tile = module, module.tokenizer.stride
        self.region = SIDE_LIMIT // self.tile * self.tile

    @cached_property
    def context(self) -> CodeContext:
        """The context net in integers.

        Raises:
            CodecError: its weights are not finite, or too large.
        """
        net = self.module.context
        return CodeContext(net.arrays(), net.codebook_sizes)

    @property
    def device(self) -> torch.device:
        """Of the network."""
        return self.module.context.table.device

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape (P, h, w) of the codes of a picture.

        Raises:
            CodecError: it is too large for one pass of the network.
        """
        if height * width > LARGEST:
            raise CodecError(f"a VQ-VAE takes up to {LARGEST:,} pixels, but this picture has {height}x{width}")
        return len(self.module.context.codebook_sizes), -(-height // self.tile), -(-width // self.tile)

    def codes_of(self, images: np.ndarray, quality: int, *, effort: int) -> np.ndarray:
        """Codes of images of one size.

        Args:
            images: (N, H, W, C) uint8 or uint16.
            quality: without meaning here.
            effort: rounds of code refinement (models/autoencoder/refinement.py).

        Returns:
            (N, P, h, w) int32.

        Raises:
            ConfigError: the images are too large.
        """
        count, height, width, _ = images.shape
        if height * width > LARGEST:
            raise ConfigError(f"a VQ-VAE takes up to {LARGEST:,} pixels, but this picture has {height}x{width}")
        codes = np.empty((count, *self.grid(height, width)), dtype=np.int32)
        size = max(1, BATCH_PIXELS // (height * width))
        for start in range(0, count, size):
            part = to_tensor(images[start : start + size], self.device)
            codes[start : start + size] = refine(self.module.tokenizer, part, rounds=effort).cpu().numpy()
        return codes

    @torch.no_grad()
    def pixels_of(
        self,
        codes: np.ndarray,
        quality: int,
        height: int,
        width: int,
        *,
        bit_depth: int = 8,
        decoder: str = "faithful",
        tuning: Tensor | None = None,
    ) -> np.ndarray:
        """Pixels of codes, in float32: on another machine they may differ by one level where rounding is close.

        Args:
            codes: (N, P, h, w) integers.
            quality, decoder, tuning: without meaning here.
            height, width: of the images, at most h and w times the stride.

        Returns:
            (N, H, W, C) uint8 or uint16.
        """
        parts, size = [], max(1, BATCH_PIXELS // (height * width))
        for start in range(0, len(codes), size):
            part = torch.from_numpy(codes[start : start + size].astype(np.int64)).to(self.device)
            decoded = self.module.tokenizer.decode(part)[:, :, :height, :width]
            parts.append(to_pixels(decoded, bit_depth=bit_depth))
        return np.concatenate(parts)

    def encode(self, codes: np.ndarray, step: int, encoder: EntropyEncoder, *, per_stream: int = 1) -> list[bytes]:
        """The streams of codes (N, P, h, w): see `encode_codes` of codec/code_context.py."""
        return encode_codes(self.context, codes, encoder, per_stream=per_stream)

    def decode(
        self, decoder: EntropyDecoder, shape: tuple[int, int, int, int], step: int, *, per_stream: int = 1
    ) -> np.ndarray:
        """The inverse of `encode`: int32 codes of a shape."""
        count, _, *grid = shape
        found = decode_codes(self.context, decoder, count, (grid[0], grid[1]), per_stream=per_stream)
        return found.astype(np.int32)
