"""Image generation with a trained GAN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from smalti.data.images import ImageLike
from smalti.errors import ConfigError, arg, did_you_mean
from smalti.models.gan.base import Generator
from smalti.pipelines import inversion, latents
from smalti.pipelines.base import BLOCK, Pipeline
from smalti.pipelines.images import Output, Pictures, check_output, from_array, from_tensor, read_image
from smalti.pipelines.labels import class_number
from smalti.runtime.pixels import to_tensor

MOST_STEPS = 100_000  # optimizer steps of an inversion


class GAN(Pipeline):
    """Pipeline of a model trained with the recipe `gan`: latent vectors to images.

    gan = smalti.GAN.from_pretrained("runs/faces")
    pictures = gan.generate(16, seed=0)                 # (16, H, W, C) uint8
    walk = gan.synthesize(smalti.pipelines.latents.walk(gan.sample_latents([3, 17]), 48))
    """

    missing: ClassVar[str] = "draws no new images; give a model trained with a gan preset, for example gan-nano"

    @property
    def latent_size(self) -> int:
        """D, the length of a latent vector."""
        return self._network.latent

    def generate(
        self,
        count: int,
        *,
        seed: int = 0,
        label: str | None = None,
        truncation: float = 1.0,
        first: int = 0,
        output: Output = "numpy",
    ) -> Pictures:
        """Sample images; image i depends only on (seed, i), so a larger count starts with the same images.

        Args:
            count: number of images.
            seed: an integer >= 0.
            label: a class name, for a conditional model; None: the classes in turn.
            truncation: factor of the latents, from 0 to 1: the truncation trick (Karras et al. 2019, arXiv:1812.04948,
                appendix B, with the mean latent 0). Smaller values trade diversity for typical images.
            first: number of the first image, to continue an earlier call.
            output: "numpy" for (count, H, W, C) uint8, "pil" or "tensor".

        Raises:
            ConfigError: count, seed or truncation is out of range, or the model has no such label.
        """
        check_output(output)
        self.check_generation(label=label, truncation=truncation, seed=seed)
        if count < 1 or first < 0:
            raise ConfigError(f"count is {count} and first {first}; the count must be 1 or more, the first 0 or more")
        # Always in the same blocks of one size, since rounding depends on the shape of the batch: image i must be equal
        # for any `first` and `count`.
        begin, end = first // BLOCK * BLOCK, -(-(first + count) // BLOCK) * BLOCK
        pictures = []
        for start in range(begin, end, BLOCK):
            numbers = range(start, start + BLOCK)
            z = self.sample_latents(numbers, seed=seed)
            pictures.append(self.synthesize(z, labels=self.labels(numbers, label), truncation=truncation))
        wanted = np.concatenate(pictures)[first - begin : first - begin + count]
        return from_array(wanted, output, self.device)

    def check_generation(self, *, label: str | None = None, truncation: float = 1.0, seed: int = 0) -> None:
        """Check the arguments of `generate` without generating. Raises as it does."""
        if seed < 0:
            raise ConfigError(f"seed is {seed}, but must be 0 or more")
        _check_truncation(truncation)
        self._class_number(label)

    def sample_latents(self, numbers: Sequence[int], *, seed: int = 0) -> np.ndarray:
        """The latents that `generate` uses for images of these numbers: (N, D) float32.

        Raises:
            ConfigError: the seed or a number is negative.
        """
        if seed < 0 or min(numbers, default=0) < 0:
            raise ConfigError(f"seed is {seed} and the image number {min(numbers, default=0)}; both must be 0 or more")
        return latents.sample_latents(numbers, self.latent_size, seed)

    def labels(self, numbers: Sequence[int], label: str | None = None) -> list[int] | None:
        """The labels that `generate` uses for images of these numbers; None for an unconditional model."""
        chosen, classes = self._class_number(label), self._network.classes
        return [number % classes if chosen is None else chosen for number in numbers] if classes else None

    def synthesize(
        self,
        z: np.ndarray | Tensor,
        *,
        labels: Sequence[int] | None = None,
        truncation: float = 1.0,
        output: Output = "numpy",
    ) -> Pictures:
        """Generate the images of given latents.

        Args:
            z: (N, D) floats, an array or a tensor.
            labels: class numbers, for a conditional model.
            truncation: as in `generate`.
            output: "numpy" for (N, H, W, C) uint8, "pil", or "tensor", which is differentiable with respect to z.

        Raises:
            ConfigError: the latents or labels do not fit the model.
        """
        check_output(output)
        if z.ndim != 2 or z.shape[1] != self.latent_size:
            raise ConfigError(f"found latents of shape {tuple(z.shape)}; {self.path} takes (N, {self.latent_size})")
        _check_truncation(truncation)
        self._check_labels(labels, len(z))
        with torch.set_grad_enabled(torch.is_grad_enabled() and output == "tensor"):
            return from_tensor(self._synthesize(z, labels, truncation), output)

    def _synthesize(self, z: np.ndarray | Tensor, labels: Sequence[int] | None, truncation: float) -> Tensor:
        """(N, C, H, W), computed in batches of one size, because rounding depends on the shape of the batch."""
        count, padding = len(z), -len(z) % BLOCK
        if isinstance(z, Tensor):
            points = torch.cat([truncation * z, z.new_zeros(padding, z.shape[1])])
        else:
            points = torch.from_numpy(np.concatenate([truncation * z, np.zeros((padding, z.shape[1]))]))
        numbers = None if labels is None else [*labels, *[0] * padding]
        parts = [torch.empty(0, *self.card.image.shape, device=self.device)]
        for start in range(0, len(points), BLOCK):
            part = points[start : start + BLOCK].float().to(self.device)
            chosen = None if numbers is None else torch.tensor(numbers[start : start + BLOCK], device=self.device)
            with self.autocast():
                parts.append(self._network(part, chosen))
        return torch.cat(parts)[:count]

    def invert(
        self, image: ImageLike | Tensor, *, label: str | None = None, steps: int = 200, seed: int = 0
    ) -> np.ndarray:
        """GAN inversion: the latent whose image is most similar to a given one (pipelines/inversion.py).

        Args:
            image: in any form that pipelines/images.py lists, of the size that the model generates.
            label: class name of the image, for a conditional model.
            steps: optimizer steps; more give a closer match.
            seed: of the initial candidates.

        Returns:
            (D,) float32.

        Raises:
            ConfigError: the image has another shape, the label is missing or unknown, or steps is out of range.
        """
        self.check_inversion(label=label, steps=steps)
        array = self.check_image(image)
        target = to_tensor(array[None].copy(), self.device)[0]
        z = inversion.invert(self._network, target, self._class_number(label), steps=steps, seed=seed)
        return z.cpu().numpy()

    def check_inversion(self, *, label: str | None, steps: int) -> None:
        """Check the arguments of `invert` before any image is read. Raises as it does."""
        if not 0 <= steps <= MOST_STEPS:
            raise ConfigError(f"steps is {steps}, but must be from 0 to {MOST_STEPS}")
        if self._class_number(label) is None and self._network.classes:
            known = did_you_mean("", self.card.classes)
            raise ConfigError(f"{self.path} draws by label; say which with {arg('label')}; {known}")

    def check_image(self, image: ImageLike | Tensor) -> np.ndarray:
        """Convert an image to (H, W, C) uint8; ConfigError if it does not have the shape that the model generates."""
        channels, height, width = self.card.image.shape
        return read_image(image, shape=(channels, height, width), owner=self.path)

    def _check_labels(self, labels: Sequence[int] | None, count: int) -> None:
        classes = self._network.classes
        if (labels is not None) != bool(classes) or (labels is not None and len(labels) != count):
            raise ConfigError(f"{self.path} takes {'a label' if classes else 'no labels'} for each image")
        if labels is not None and not all(0 <= label < classes for label in labels):
            raise ConfigError(f"labels are {list(labels)[:8]}, but must be from 0 to {classes - 1}")

    def _class_number(self, label: str | None) -> int | None:
        return class_number(
            label,
            self.card,
            classes=self._network.classes,
            owner=self.path,
            setting=("model.conditional", "true"),
        )

    @property
    def _network(self) -> Generator:
        return cast(Generator, self.module)


def _check_truncation(truncation: float) -> None:
    if not 0 <= truncation <= 1:
        raise ConfigError(f"truncation is {truncation:g}, but must be from 0, the mean image, to 1, no truncation")
