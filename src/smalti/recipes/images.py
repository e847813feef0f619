"""Base class of the recipes that train on images, and their batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smalti.config.run import RunConfig
from smalti.data.dataset import Dataset
from smalti.data.packed import Batch
from smalti.data.pairs import PairBatch, PairedImages
from smalti.errors import ConfigError, arg
from smalti.recipes.base import Recipe
from smalti.runtime.pixels import normalized, to_tensor

START_VALUES = 40_000 * 3 * 32**2  # pixel values used for data-dependent initialisation
START_BATCH_VALUES = 500 * 3 * 32**2  # the same per batch


@dataclass(frozen=True)
class Images:
    """A batch on the device: (B, C, H, W) float32 in [-1, 1], labels (B,) int64 or None.

    `targets`, of pairs, is what should become of `pixels`: (B, C, scale H, scale W); None if there are no pairs.
    """

    pixels: Tensor
    labels: Tensor | None = None
    targets: Tensor | None = None


@dataclass(frozen=True)
class ResidentBatch:
    """A batch that is already on the device: images (B, H, W, C) uint8, labels (B,) int64 or None."""

    images: Tensor
    labels: Tensor | None


class ImageRecipe(Recipe[Images]):
    """A recipe that trains on images."""

    @classmethod
    def check_data(cls, config: RunConfig, data: Dataset, held_out: Dataset | None) -> None:
        super().check_data(config, data, held_out)
        for given in (data, held_out):
            if isinstance(given, PairedImages) and not (config.kind.pairs or config.kind.data == "pairs"):
                raise ConfigError(
                    f"{given.source} holds pairs, which the recipe {config.recipe} does not learn from; give one of "
                    "the two sources"
                )
        if isinstance(held_out, PairedImages) != isinstance(data, PairedImages) and held_out is not None:
            raise ConfigError(
                f"of the held-out images of {held_out.source} and those to train on only one are pairs; give "
                f"{arg('held_out_targets')}, or leave {arg('targets')} out"
            )
        height, width = data.spec.shape[-2:]
        if config.data.shift >= min(height, width):
            raise ConfigError(
                f"data.shift is {config.data.shift}, but must be less than the sides of the images, {height}x{width}"
            )

    def to_device(self, batch: Batch | ResidentBatch) -> Images:
        device = self.context.device
        if isinstance(batch, ResidentBatch):
            return Images(normalized(batch.images.permute(0, 3, 1, 2)), batch.labels)
        labels = None if batch.labels is None else torch.from_numpy(np.asarray(batch.labels)).to(device)
        targets = to_tensor(batch.targets, device) if isinstance(batch, PairBatch) else None
        return Images(to_tensor(batch.images, device), labels, targets)

    def fitting_batches(self, data: Dataset, seed: int) -> Iterator[Batch]:
        """Random training images: one epoch including all augmented variants, or as many as `START_VALUES` allows."""
        values = int(np.prod(data.spec.shape))
        count = max(2, min(len(data) * getattr(data, "variants", 1), START_VALUES // values))
        size = max(1, min(count, START_BATCH_VALUES // values))
        for start in range(0, count, size):
            batch: Batch = data.batch(seed, start, min(size, count - start))
            yield Batch(batch.images, None, batch.indices)
