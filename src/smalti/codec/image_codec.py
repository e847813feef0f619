"""A trained transform codec as functions of arrays: pixels to codes, codes to pixels, codes to streams.

Large pictures are cut into regions of at most `REGION` pixels a side, whose codes are searched and entropy coded on
their own, so that memory is bounded. They are decoded together, in strips with as many rows of tiles above and below as
the decoder's convolutions reach, so that there are no seams.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from smalti.codec.context import IntegerContext
from smalti.codec.entropy import EntropyDecoder, EntropyEncoder
from smalti.codec.fields import PayloadKind
from smalti.codec.lossless import linear_levels
from smalti.codec.scalar import decode_codes, encode_codes
from smalti.models.codec.codec import ImageCodec
from smalti.models.codec.search import search
from smalti.runtime.device import fast_bfloat16
from smalti.runtime.pixels import premultiplied, to_pixels, to_tensor, unpremultiplied

REGION = 1024  # pixels a side of what is coded at once
STRIP = 1 << 19  # pixels that are decoded at once
BATCH_PIXELS = 1 << 18  # pixels that are searched at once, of many small images


class CodecEngine:
    """Functions of a trained `ImageCodec`.

    Args:
        module: in eval mode.
        rate_weight: lambda in squared steps for a bit, as in training.
    """

    payload: ClassVar[PayloadKind] = PayloadKind.SCALAR
    steps: ClassVar[tuple[int, int]] = (1, 100)  # smallest and largest step index

    def __init__(self, module: ImageCodec, *, rate_weight: float) -> None:
        self.module, self.rate_weight = module, rate_weight
        self.tile = module.tile
        weight = module.basis.weight
        self.device = weight.device
        self.channels = module.basis.channels

    @cached_property
    def context(self) -> IntegerContext:
        """The context net in integers."""
        net = self.module.context
        tensors = {name: value.detach().cpu().numpy() for name, value in net.state_dict().items()}
        return IntegerContext(tensors, net.bounds, neighbours=net.neighbours, shared=net.shared)

    @property
    def region(self) -> int:
        """Side of a region in pixels, a multiple of the tile."""
        return max(1, REGION // self.tile) * self.tile

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape (D, h, w) of the codes of a picture."""
        return self.module.coefficients, -(-height // self.tile), -(-width // self.tile)

    def codes_of(self, images: np.ndarray, quality: int, *, effort: int) -> np.ndarray:
        """Codes of images of one size.

        Args:
            images: (N, H, W, C) uint8 or uint16.
            effort: rounds of the search.

        Returns:
            (N, D, h, w) int32.
        """
        count, height, width, _ = images.shape
        codes = np.empty((count, *self.grid(height, width)), dtype=np.int32)
        size = max(1, BATCH_PIXELS // (min(height, self.region) * min(width, self.region)))
        for top, left, bottom, right in regions(height, width, self.region):
            for start in range(0, count, size):
                part = self.tensor(images[start : start + size, top:bottom, left:right])
                levels = torch.full((len(part),), float(quality), device=self.device)
                with self._fast():
                    found = search(self.module, part, levels, rounds=effort, rate_weight=self.rate_weight)
                rows = slice(top // self.tile, -(-bottom // self.tile))
                columns = slice(left // self.tile, -(-right // self.tile))
                codes[start : start + size, :, rows, columns] = found.cpu().numpy()
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
            codes: (N, D, h, w) int32.
            height, width: of the images, at most h and w tiles.
            decoder: "faithful" or "pleasing".
            tuning: changes of the decoder's biases, see codec/tuning.py.

        Returns:
            (N, H, W, C) uint8 or uint16.
        """
        count, _, rows, columns = codes.shape
        images = np.empty((count, height, width, self.channels), dtype=np.uint8 if bit_depth == 8 else np.uint16)
        strip = max(1, STRIP // (columns * self.tile**2))  # rows of tiles
        halo = -(-self.module.refiner_reach // self.tile)
        size = max(1, STRIP // (rows * columns * self.tile**2))
        for start in range(0, count, size):
            for first in range(0, rows, strip):
                above, last = max(0, first - halo), min(rows, first + strip)
                part = torch.from_numpy(codes[start : start + size, :, above : min(rows, last + halo)]).to(self.device)
                levels = torch.full((len(part),), float(quality), device=self.device)
                decoded = self.module.decode(part.float(), levels, decoder=decoder, tuning=tuning)
                begin, end = first * self.tile, min(height, last * self.tile)
                own = decoded[:, :, begin - above * self.tile : end - above * self.tile, :width].clamp(-1, 1)
                images[start : start + size, begin:end] = to_pixels(unpremultiplied(own), bit_depth=bit_depth)
        return images

    def encode(self, codes: np.ndarray, step: int, encoder: EntropyEncoder, *, per_stream: int = 1) -> list[bytes]:
        """The streams of codes (N, D, h, w): see `encode_codes` of codec/scalar.py."""
        return encode_codes(self.context, codes, step, encoder, per_stream=per_stream)

    def decode(
        self, decoder: EntropyDecoder, shape: tuple[int, int, int, int], step: int, *, per_stream: int = 1
    ) -> np.ndarray:
        """The inverse of `encode`: int32 codes of a shape."""
        return decode_codes(self.context, decoder, shape, step, per_stream=per_stream)

    def linear_pixels(self, codes: np.ndarray, quality: int, height: int, width: int, bit_depth: int) -> np.ndarray:
        """The linear synthesis of one picture's codes (D, h, w) in integers, (H, W, C): the base of `exact`."""
        basis = (self.module.basis.weight * self.module.basis.scale).detach().cpu().numpy()
        mean = (self.module.mean * self.module.basis.scale).detach().cpu().numpy()
        return linear_levels(basis, mean, codes, quality, bit_depth)[:height, :width]

    def tensor(self, images: np.ndarray) -> Tensor:
        """(N, H, W, C) uint8 or uint16 -> (N, C, H, W) in [-1, 1], premultiplied and padded to whole tiles."""
        return self.module.padded(premultiplied(to_tensor(images, self.device)))

    def _fast(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast for the search, whose result need not be the same on every machine."""
        if not fast_bfloat16(self.device):
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def regions(height: int, width: int, side: int) -> Iterator[tuple[int, int, int, int]]:
    """(top, left, bottom, right) of the regions of a picture, by rows."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield top, left, min(top + side, height), min(left + side, width)


def squared_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean squared error of levels in [0, 1], of RGBA with premultiplied colours."""
    tops = [np.float64(np.iinfo(array.dtype).max) for array in (found, wanted)]
    parts = [array.astype(np.float64) / top for array, top in zip((found, wanted), tops, strict=True)]
    if found.shape[-1] == 4:
        parts = [np.concatenate([part[..., :3] * part[..., 3:], part[..., 3:]], axis=-1) for part in parts]
    return float(np.square(parts[0] - parts[1]).mean())
