"""What one does with a trained prior, from Python; a part of `Model`, which is in pipelines/base.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from smalti.checkpoint.file import Card
from smalti.errors import CheckpointError, ConfigError
from smalti.models.prior import likelihood
from smalti.models.prior.image_prior import ImagePrior
from smalti.models.prior.sampling import Sampling
from smalti.pipelines import inpainting
from smalti.runtime.pixels import to_pixels, to_tensor
from smalti.runtime.rng import seeded_generator

BLOCK = 16  # images that are always drawn together
BATCH = 64  # images whose bits are counted together


class PriorModel(ABC):
    """Images from codes that a prior draws, all of them or some."""

    module: nn.Module
    card: Card
    path: Path
    device: torch.device

    @abstractmethod
    def check_image(self, image: np.ndarray) -> None: ...
    @abstractmethod
    def check_drawing(
        self, *, label: str | None, truncation: float = 1.0, prompt: str | None, sampling: Sampling | None, seed: int
    ) -> None: ...
    @abstractmethod
    def labels(self, numbers: Sequence[int], label: str | None = None) -> list[int] | None: ...

    @torch.no_grad()
    def fill(
        self,
        image: np.ndarray,
        hole: np.ndarray,
        *,
        count: int = 4,
        seed: int = 0,
        label: str | None = None,
        prompt: str | None = None,
        sampling: Sampling | None = None,
    ) -> np.ndarray:
        """Versions of an image with a hole filled: inpainting.py.

        Args:
            image: (H, W, C) uint8, of the shape that the model makes.
            hole: (H, W) bool, what is to be filled.
            count: of versions.
            seed, label, prompt, sampling: as in `generate`.

        Returns:
            (count, H, W, C) uint8, outside the hole the image itself.

        Raises:
            CheckpointError: the model is no prior.
            ConfigError: an image or a mask of another shape, nothing or all of it masked, or as `generate`.
        """
        self.check_image(image)
        places = self.masked_positions(hole)
        hidden = np.broadcast_to(places, (max(count, 0), *places.shape))
        decoded = self._resample(
            inpainting.filled_from_surroundings(image, hole), hidden, seed, label, prompt, sampling
        )
        return inpainting.blend(image, decoded, hole)

    def masked_positions(self, hole: np.ndarray) -> np.ndarray:
        """The places of the codes that `fill` draws anew: (H, W) bool -> (h, w) bool. Raises as `fill`."""
        generator = self._prior()
        if hole.shape != self.card.image[1:] or hole.dtype != np.bool_:
            raise ConfigError(
                f"found a mask of {'x'.join(map(str, hole.shape))} ({hole.dtype}); the model makes images of "
                f"{'x'.join(map(str, self.card.image[1:]))}, and a mask is bool"
            )
        return inpainting.masked_positions(hole, generator.prior.grid, generator.tokenizer.stride)

    @torch.no_grad()
    def vary(
        self,
        image: np.ndarray,
        *,
        strength: float = 0.3,
        count: int = 4,
        seed: int = 0,
        label: str | None = None,
        prompt: str | None = None,
        sampling: Sampling | None = None,
    ) -> np.ndarray:
        """Images like a given one: a share of its places, chosen at random, is drawn anew.

        Args:
            strength: the share, above 0 and up to 1.
            image, count, seed, label, prompt, sampling: as in `fill`. Returns and raises as it does.
        """
        generator = self._prior()
        self.check_image(image)
        inpainting.check_strength(strength)
        grid = generator.prior.grid
        wanted = max(1, round(strength * grid[0] * grid[1]))
        hidden = np.zeros((max(count, 0), grid[0] * grid[1]), bool)
        for version, row in enumerate(hidden):
            order = torch.randperm(len(row), generator=seeded_generator(seed, 11, version))
            row[order[:wanted].numpy()] = True
        return self._resample(image, hidden.reshape(-1, *grid), seed, label, prompt, sampling)

    def _resample(
        self,
        image: np.ndarray,
        hidden: np.ndarray,
        seed: int,
        label: str | None,
        prompt: str | None,
        sampling: Sampling | None,
    ) -> np.ndarray:
        generator, count = self._prior(), len(hidden)
        if count < 1:
            raise ConfigError(f"count is {count}, but must be 1 or more")
        self.check_resampling(label=label, prompt=prompt, sampling=sampling, seed=seed)
        codes = generator.tokenizer.encode(to_tensor(image[None].copy(), self.device)).codes
        chosen = None if label is None else self.labels([0], label)
        drawn = inpainting.resample_codes(
            generator,
            codes.expand(count, -1, -1, -1),
            torch.from_numpy(np.array(hidden)).to(self.device),
            seed=seed,
            how=sampling or Sampling(),
            labels=None if chosen is None else torch.tensor(chosen * count, device=self.device),
            texts=None if prompt is None else [prompt] * count,
        )
        # Always as many at once: even the last bit of an image depends on the shape of the batch that it is in.
        whole = torch.cat([drawn, drawn[:1].expand(-count % BLOCK, -1, -1, -1)])
        return np.concatenate([to_pixels(generator.decode(part)) for part in whole.split(BLOCK)])[:count]

    @torch.no_grad()
    def code_bits(self, images: np.ndarray, *, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The codes of images, and the bits of each by a causal prior: -log2 p(code | those before it).

        Args:
            images: (N, H, W, C) uint8.
            labels: (N,) class numbers, for a prior that knows them; None: no label, and never a prompt.

        Returns:
            (N, P, h, w) int64 and float32.

        Raises:
            CheckpointError: the model is no prior.
            ConfigError: images of another shape; a masked prior, which knows no likelihood; no labels for a prior that
                has never done without.
        """
        generator = self._prior()
        if labels is None:
            self._check_left_out("so its bits are those of images with it")
        if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() < len(self.card.classes):
            raise ConfigError(f"labels must be from 0 to {len(self.card.classes) - 1}, the classes of {self.path}")
        if not len(images):
            raise ConfigError("there are no images whose bits could be counted")
        codes, bits = [], []
        for start in range(0, len(images), BATCH):
            self.check_image(images[start])
            part = slice(start, start + BATCH)
            found = generator.tokenizer.encode(to_tensor(images[part].copy(), self.device)).codes
            known = None if labels is None else torch.from_numpy(labels[part]).to(self.device)
            codes.append(found.cpu().numpy())
            bits.append(likelihood.code_bits(generator, found, labels=known).cpu().numpy())
        return np.concatenate(codes), np.concatenate(bits)

    @property
    def prior_codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes in each plane that a prior draws; CheckpointError for a model that is none."""
        return self._prior().prior.codebook_sizes

    def check_resampling(self, *, label: str | None, prompt: str | None, sampling: Sampling | None, seed: int) -> None:
        """See that `fill` and `vary` can draw this. Raises as they do."""
        self._prior()
        self.check_drawing(label=label, prompt=prompt, sampling=sampling, seed=seed)
        if label is None and prompt is None:
            self._check_left_out("so give the label")
            if sampling is not None and sampling.guidance != 1:
                raise ConfigError("guidance leads from any image to those of a label; give a label, or no guidance")

    def check_likelihood(self) -> None:
        """See that this is a prior that knows how likely codes are.

        Raises:
            CheckpointError: it is no prior.
            ConfigError: it is a masked one.
        """
        likelihood.check_likelihood(self._prior())

    def _check_left_out(self, remark: str) -> None:
        """See that the prior knows images of no label or caption at all; the error ends with the remark."""
        config = self._prior().prior.config
        if config.condition != "none" and config.condition_dropout == 0:
            what = "label" if config.condition == "class" else "caption"
            raise ConfigError(
                f"{self.path} was trained with model.condition_dropout=0: it never saw an image without its {what}, "
                f"{remark}"
            )

    def _prior(self) -> ImagePrior:
        if not isinstance(self.module, ImagePrior):
            raise CheckpointError(
                f"{self.path} is a {self.card.kind}, which knows no codes to go on from; "
                "give a model trained with a prior preset, for example maskgit-small"
            )
        return self.module

    def _draw_codes(
        self,
        module: ImagePrior,
        numbers: Sequence[int],
        seed: int,
        label: str | None,
        prompt: str | None,
        sampling: Sampling,
    ) -> np.ndarray:
        labels = self.labels(numbers, label)
        codes = module.draw(
            numbers,
            seed,
            sampling,
            labels=None if labels is None else torch.tensor(labels, device=self.device),
            texts=None if prompt is None else [prompt] * len(numbers),
        )
        return to_pixels(module.decode(codes))
