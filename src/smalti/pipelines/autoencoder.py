"""Encoding images to codes and decoding them, with a trained VQ-VAE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from smalti.errors import ConfigError, arg
from smalti.models.autoencoder import autoencoder as networks
from smalti.models.autoencoder.refinement import refine
from smalti.pipelines.base import Pipeline
from smalti.pipelines.images import ImagesLike, Output, Pictures, check_output, from_array, read_images
from smalti.runtime.pixels import to_pixels, to_tensor

LARGEST_EFFORT = 10_000
PIXEL_LIMIT = 4096 * 4096  # pixels per batch: about 4 GB of activations


class Autoencoder(Pipeline):
    """Pipeline of a model trained with the recipe `vqvae`: images to a grid of codes and back.

    model = smalti.Autoencoder.from_pretrained("runs/photos")
    codes = model.encode("cat.jpg")             # (1, P, h, w) int64
    pictures = model.decode(codes)              # (1, H, W, C) uint8
    """

    missing: ClassVar[str] = "cannot reconstruct images; give a model trained with a vqvae preset"

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes in each plane of what `encode` returns."""
        return self._network.quantizer.codebook_sizes

    @property
    def stride(self) -> int:
        """Downsampling factor: pixels per position of the code grid, along each side."""
        return self._network.stride

    def reconstruct(
        self, images: ImagesLike, *, effort: int = 0, batch: int = 64, output: Output = "numpy"
    ) -> Pictures:
        """Encode and decode images of any size.

        Args:
            images: in any form that pipelines/images.py lists.
            effort: rounds of code refinement (models/autoencoder/refinement.py); 0: the codes of the encoder.
            batch: batch size of the networks.
            output: "numpy", "pil" or "tensor". With a float tensor as input, "tensor" and no effort, the output is
                differentiable, through the quantizer's gradient estimator.

        Returns:
            The reconstructions, in the size of the images and the form that `output` names.

        Raises:
            ConfigError, DataError: the images do not fit the model or are too large, or effort is out of range.
        """
        check_output(output)
        found = read_images(images, channels=self.card.image.shape[0], owner=self.path)
        if isinstance(found, Tensor) and output == "tensor" and effort == 0:
            return self._reconstruct_tensor(found, batch)
        height, width = found.shape[2:] if isinstance(found, Tensor) else found.shape[1:3]
        codes = self.encode(found, effort=effort, batch=batch)
        return from_array(self._decoded(codes, batch)[:, :height, :width], output, self.device)

    @torch.no_grad()
    def encode(self, images: ImagesLike, *, effort: int = 0, batch: int = 64) -> np.ndarray:
        """Encode images of any size.

        Args:
            images, effort, batch: as in `reconstruct`. Raises as it does.

        Returns:
            (N, P, ceil(H / stride), ceil(W / stride)) int64.
        """
        check_effort(effort)
        parts = self._parts(read_images(images, channels=self.card.image.shape[0], owner=self.path), batch)
        with self.autocast():
            return np.concatenate([refine(self._network, part, rounds=effort).cpu().numpy() for part in parts])

    @torch.no_grad()
    def decode(self, codes: np.ndarray | Tensor, *, batch: int = 64, output: Output = "numpy") -> Pictures:
        """Decode codes to images.

        Args:
            codes: (N, P, h, w) integers.
            batch, output: as in `reconstruct`.

        Returns:
            N images of h * stride x w * stride pixels.

        Raises:
            CodeRangeError: a code is not in the codebook, or the number of planes is wrong.
        """
        check_output(output)
        return from_array(self._decoded(codes, batch), output, self.device)

    @torch.no_grad()
    def _decoded(self, codes: np.ndarray | Tensor, batch: int) -> np.ndarray:
        whole = codes if isinstance(codes, Tensor) else torch.from_numpy(np.ascontiguousarray(codes, dtype=np.int64))
        parts = torch.split(whole.long(), batch)
        with self.autocast():
            return np.concatenate([to_pixels(self._network.decode(part.to(self.device))) for part in parts])

    def _reconstruct_tensor(self, images: Tensor, batch: int) -> Tensor:
        """Differentiable reconstruction: (N, C, H, W) -> the same shape in [-1, 1]."""
        parts = torch.split(images.to(self.device, torch.float32), batch)
        with self.autocast():
            return torch.cat([self._network(part)[1].float().clamp(-1, 1) for part in parts])

    def _parts(self, images: np.ndarray | Tensor, batch: int) -> Iterator[Tensor]:
        """The images in batches on the device; ConfigError, before the first batch, if they are too large."""
        height, width = images.shape[2:] if isinstance(images, Tensor) else images.shape[1:3]
        if height * width > PIXEL_LIMIT:
            raise ConfigError(
                f"an image of {height}x{width} is too large for one pass of the network; "
                f"give {arg('size')}, for example {arg('size', 1024)}"
            )
        batch = max(1, min(batch, PIXEL_LIMIT // 16 // (height * width)))
        parts = (images[start : start + batch] for start in range(0, len(images), batch))
        # Copied, because torch does not support read-only arrays, such as memory-mapped ones.
        return (
            part.to(self.device, torch.float32) if isinstance(part, Tensor) else to_tensor(part.copy(), self.device)
            for part in parts
        )

    @property
    def _network(self) -> networks.Autoencoder:
        return cast(networks.Autoencoder, self.module)


def check_effort(effort: int) -> None:
    """Check the number of rounds of code refinement.

    Raises:
        ConfigError: it is out of range.
    """
    if not 0 <= effort <= LARGEST_EFFORT:
        raise ConfigError(f"effort is {effort}, but must be from 0 to {LARGEST_EFFORT} rounds")
