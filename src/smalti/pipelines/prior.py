"""Image generation, inpainting and variations with a trained prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from smalti.data.images import ImageLike
from smalti.errors import ConfigError, arg
from smalti.models.prior import likelihood
from smalti.models.prior.image_prior import ImagePrior
from smalti.models.prior.sampling import Sampling
from smalti.pipelines import inpainting
from smalti.pipelines.base import BLOCK, Pipeline
from smalti.pipelines.images import (
    ImagesLike,
    Output,
    Pictures,
    check_output,
    from_array,
    read_image,
    read_images,
)
from smalti.pipelines.labels import class_number
from smalti.runtime.pixels import to_pixels, to_tensor
from smalti.runtime.rng import seeded_generator

BATCH = 64  # batch size of `code_bits`


class Prior(Pipeline):
    """Pipeline of a model trained with the recipe `prior`: samples codes of a VQ-VAE, and decodes them to images.

    prior = smalti.Prior.from_pretrained("runs/prior")
    pictures = prior.generate(16, label="cat", sampling=smalti.Sampling(guidance=2))
    repaired = prior.fill("photo.png", mask)
    """

    missing: ClassVar[str] = (
        "knows no codes to go on from; give a model trained with a prior preset, for example maskgit-small"
    )

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes in each plane that the prior samples."""
        return self._network.prior.codebook_sizes

    def generate(
        self,
        count: int,
        *,
        seed: int = 0,
        label: str | None = None,
        prompt: str | None = None,
        sampling: Sampling | None = None,
        first: int = 0,
        output: Output = "numpy",
    ) -> Pictures:
        """Sample images; image i depends only on (seed, i), so a larger count starts with the same images.

        Args:
            count: number of images.
            seed: an integer >= 0.
            label: a class name, for a class-conditional prior; None: classes in proportion to the training set.
            prompt: a description of the image, for a text-conditional prior; None: unconditional.
            sampling: temperature, top k, top p, guidance and steps.
            first: number of the first image, to continue an earlier call.
            output: "numpy" for (count, H, W, C) uint8, "pil" or "tensor".

        Raises:
            ConfigError: an argument is out of range, or does not fit the model.
        """
        check_output(output)
        self.check_generation(label=label, prompt=prompt, sampling=sampling, seed=seed)
        if count < 1 or first < 0:
            raise ConfigError(f"count is {count} and first {first}; the count must be 1 or more, the first 0 or more")
        # Always in the same blocks of one size, since rounding depends on the shape of the batch: image i must be equal
        # for any `first` and `count`.
        begin, end = first // BLOCK * BLOCK, -(-(first + count) // BLOCK) * BLOCK
        pictures = [
            self._sample(range(start, start + BLOCK), seed, label, prompt, sampling or Sampling())
            for start in range(begin, end, BLOCK)
        ]
        return from_array(np.concatenate(pictures)[first - begin : first - begin + count], output, self.device)

    def check_generation(
        self,
        *,
        label: str | None = None,
        prompt: str | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> None:
        """Check the arguments of `generate` without generating. Raises as it does."""
        if seed < 0:
            raise ConfigError(f"seed is {seed}, but must be 0 or more")
        if prompt is not None and self._network.condition != "text":
            raise ConfigError(
                f"{self.path} was trained without captions, so a prompt means nothing to it; leave it out, "
                f"or train with {arg('model.condition', 'text')} on codes that have captions"
            )
        self._class_number(label)
        if self._network.condition == "text" and prompt is None:
            self._check_unconditional("so give a prompt")
        if sampling is None:
            return
        if sampling.steps is not None and self._network.prior.causal:
            raise ConfigError(f"{self.path} draws code after code, so there are no steps; leave {arg('steps')} out")
        if sampling.guidance != 1:
            if self._network.condition == "none":
                raise ConfigError(f"{self.path} was trained without labels or captions: guidance has nothing to go by")
            self._check_unconditional("which guidance needs")
            if self._network.condition == "text" and prompt is None:
                raise ConfigError("guidance leads from any image to what a prompt says; give a prompt, or no guidance")

    def labels(self, numbers: Sequence[int], label: str | None = None) -> list[int] | None:
        """The labels that `generate` uses for images of these numbers; None for a prior without labels."""
        chosen = self._class_number(label)
        if chosen is None:
            return self._network.labels_by_frequency(numbers)
        return [chosen for _ in numbers]

    def fill(
        self,
        image: ImageLike | Tensor,
        mask: np.ndarray,
        *,
        count: int = 4,
        seed: int = 0,
        label: str | None = None,
        prompt: str | None = None,
        sampling: Sampling | None = None,
        output: Output = "numpy",
    ) -> Pictures:
        """Inpainting: fill a hole in an image, in several versions (pipelines/inpainting.py).

        Args:
            image: in any form that pipelines/images.py lists, of the size that the model generates.
            mask: (H, W) bool, true where the image is to be filled.
            count: number of versions.
            seed, label, prompt, sampling, output: as in `generate`.

        Returns:
            `count` images, equal to the given one outside of the mask.

        Raises:
            ConfigError: the image or mask has the wrong shape, nothing or everything is masked, or as `generate`.
        """
        check_output(output)
        array = self.check_image(image)
        positions = self.masked_positions(mask)
        hidden = np.broadcast_to(positions, (max(count, 0), *positions.shape))
        surroundings = inpainting.filled_from_surroundings(array, mask)
        decoded = self._resample(surroundings, hidden, seed, label, prompt, sampling)
        return from_array(inpainting.blend(array, decoded, mask), output, self.device)

    def masked_positions(self, mask: np.ndarray) -> np.ndarray:
        """The positions of the code grid that `fill` resamples: (H, W) bool -> (h, w) bool. Raises as `fill`."""
        height, width = self.card.image.shape[1:]
        if mask.shape != (height, width) or mask.dtype != np.bool_:
            raise ConfigError(
                f"found a mask of {'x'.join(map(str, mask.shape))} ({mask.dtype}); the model makes images of "
                f"{height}x{width}, and a mask is bool"
            )
        return inpainting.masked_positions(mask, self._network.prior.grid, self._network.tokenizer.stride)

    def vary(
        self,
        image: ImageLike | Tensor,
        *,
        strength: float = 0.3,
        count: int = 4,
        seed: int = 0,
        label: str | None = None,
        prompt: str | None = None,
        sampling: Sampling | None = None,
        output: Output = "numpy",
    ) -> Pictures:
        """Sample variations of an image: a random fraction of its code positions is resampled.

        Args:
            strength: the fraction, above 0 and up to 1.
            image, count, seed, label, prompt, sampling, output: as in `fill`. Returns and raises as it does.
        """
        check_output(output)
        array = self.check_image(image)
        inpainting.check_strength(strength)
        grid = self._network.prior.grid
        resampled = max(1, round(strength * grid[0] * grid[1]))
        hidden = np.zeros((max(count, 0), grid[0] * grid[1]), bool)
        for version, row in enumerate(hidden):
            order = torch.randperm(len(row), generator=seeded_generator(seed, 11, version))
            row[order[:resampled].numpy()] = True
        versions = self._resample(array, hidden.reshape(-1, *grid), seed, label, prompt, sampling)
        return from_array(versions, output, self.device)

    def _resample(
        self,
        image: np.ndarray,
        hidden: np.ndarray,
        seed: int,
        label: str | None,
        prompt: str | None,
        sampling: Sampling | None,
    ) -> np.ndarray:
        """Versions of an image, (H, W, C) uint8, with the masked codes, (N, h, w), resampled: (N, H, W, C) uint8."""
        network, count = self._network, len(hidden)
        if count < 1:
            raise ConfigError(f"count is {count}, but must be 1 or more")
        self.check_resampling(label=label, prompt=prompt, sampling=sampling, seed=seed)
        chosen = None if label is None else self.labels([0], label)
        with torch.no_grad(), self.autocast():
            codes = network.tokenizer.encode(to_tensor(image[None].copy(), self.device)).codes
            sampled = inpainting.resample_codes(
                network,
                codes.expand(count, -1, -1, -1),
                torch.from_numpy(np.array(hidden)).to(self.device),
                seed=seed,
                how=sampling or Sampling(),
                labels=None if chosen is None else torch.tensor(chosen * count, device=self.device),
                texts=None if prompt is None else [prompt] * count,
            )
            # Padded to blocks of one size, because rounding depends on the shape of the batch.
            padded = torch.cat([sampled, sampled[:1].expand(-count % BLOCK, -1, -1, -1)])
            return np.concatenate([to_pixels(network.decode(part)) for part in torch.split(padded, BLOCK)])[:count]

    @torch.no_grad()
    def code_bits(self, images: ImagesLike, *, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The codes of images, and their bits under a causal prior: -log2 p(code | previous codes).

        Args:
            images: in any form that pipelines/images.py lists, of the size that the model generates.
            labels: (N,) class numbers, for a class-conditional prior; None: unconditional. Prompts are not supported.

        Returns:
            Codes and bits: (N, P, h, w) int64 and float32.

        Raises:
            ConfigError: the images have another shape, the prior is masked and has no likelihood, or labels are
                missing for a prior that was trained without condition dropout.
        """
        network = self._network
        if labels is None:
            self._check_unconditional("so its bits are those of images with it")
        if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() < len(self.card.classes):
            raise ConfigError(f"labels must be from 0 to {len(self.card.classes) - 1}, the classes of {self.path}")
        if isinstance(images, np.ndarray) and not len(images):
            raise ConfigError("there are no images whose bits could be counted")
        found = read_images(images, channels=self.card.image.shape[0], owner=self.path)
        codes, bits = [], []
        for start in range(0, len(found), BATCH):
            self.check_image(found[start])
            part = found[start : start + BATCH]
            pixels = part.to(self.device) if isinstance(part, Tensor) else to_tensor(part.copy(), self.device)
            known = None if labels is None else torch.from_numpy(labels[start : start + BATCH]).to(self.device)
            with self.autocast():
                encoded = network.tokenizer.encode(pixels).codes
                bits.append(likelihood.code_bits(network, encoded, labels=known).float().cpu().numpy())
            codes.append(encoded.cpu().numpy())
        return np.concatenate(codes), np.concatenate(bits)

    def check_resampling(self, *, label: str | None, prompt: str | None, sampling: Sampling | None, seed: int) -> None:
        """Check the arguments that `fill` and `vary` share. Raises as they do."""
        self.check_generation(label=label, prompt=prompt, sampling=sampling, seed=seed)
        if label is None and prompt is None:
            self._check_unconditional("so give the label")
            if sampling is not None and sampling.guidance != 1:
                raise ConfigError("guidance leads from any image to those of a label; give a label, or no guidance")

    def check_likelihood(self) -> None:
        """Check that the prior has a likelihood.

        Raises:
            ConfigError: it is a masked prior.
        """
        likelihood.check_likelihood(self._network)

    def check_image(self, image: ImageLike | Tensor) -> np.ndarray:
        """Convert an image to (H, W, C) uint8; ConfigError if it does not have the shape that the model generates."""
        channels, height, width = self.card.image.shape
        return read_image(image, shape=(channels, height, width), owner=self.path)

    def _check_unconditional(self, remark: str) -> None:
        """Check that an unconditional prediction is possible; else ConfigError, with the remark appended."""
        config = self._network.prior.config
        if config.condition != "none" and config.condition_dropout == 0:
            what = "label" if config.condition == "class" else "caption"
            raise ConfigError(
                f"{self.path} was trained with model.condition_dropout=0: it never saw an image without its {what}, "
                f"{remark}"
            )

    def _class_number(self, label: str | None) -> int | None:
        return class_number(
            label, self.card, classes=self._network.classes, owner=self.path, setting=("model.condition", "class")
        )

    @torch.no_grad()
    def _sample(
        self, numbers: Sequence[int], seed: int, label: str | None, prompt: str | None, sampling: Sampling
    ) -> np.ndarray:
        labels = self.labels(numbers, label)
        with self.autocast():
            codes = self._network.draw(
                numbers,
                seed,
                sampling,
                labels=None if labels is None else torch.tensor(labels, device=self.device),
                texts=None if prompt is None else [prompt] * len(numbers),
            )
            return to_pixels(self._network.decode(codes))

    @property
    def _network(self) -> ImagePrior:
        return cast(ImagePrior, self.module)
