"""Batches on the device: for training steps, scores and previews.

If the training set fits into a GPU's memory as uint8, it is kept there, and batches are gathered on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from smalti.config.data import DataConfig
from smalti.data.dataset import Dataset
from smalti.data.order import evenly_spread
from smalti.data.packed import AugmentedImages
from smalti.recipes.base import Recipe
from smalti.recipes.images import ResidentBatch
from smalti.runtime.distributed import rank, world

PREVIEW_IMAGES = 64
RESIDENT_PART = 4096  # images copied to the device at a time
RESIDENT_SHARE = 0.25  # fraction of the free device memory that a resident training set may use

ToDevice = Callable[[Any], Any]  # `Recipe.to_device`


@runtime_checkable
class Augmentable(Protocol):
    """A dataset that supports random augmentation."""

    def augmented(self, *, flip: bool, shift: int) -> Dataset: ...


def training_stream(data: Dataset, config: DataConfig) -> Dataset:
    """The dataset with the configured augmentation; unchanged if it does not support any."""
    return data.augmented(flip=config.flip, shift=config.shift) if isinstance(data, Augmentable) else data


class Feed:
    """Training batches, from device memory if the dataset fits there.

    Args:
        stream: the dataset, as returned by `training_stream`.
        to_device: `Recipe.to_device`.
        room_bytes: device memory that the dataset may use; None: a quarter of what is free on a GPU, 0 on a CPU.
    """

    def __init__(
        self, stream: Dataset, to_device: ToDevice, device: torch.device, *, room_bytes: int | None = None
    ) -> None:
        self.to_device = to_device
        room_bytes = _free_bytes(device) if room_bytes is None else room_bytes
        fits = isinstance(stream, AugmentedImages) and len(stream) * int(np.prod(stream.spec.shape)) <= room_bytes
        self.source = ResidentImages(stream, device) if fits and isinstance(stream, AugmentedImages) else stream

    def batch(self, seed: int, images_seen: int, count: int) -> Any:
        """This rank's share of the batch that begins at `images_seen`."""
        share = count // world()
        return self.to_device(self.source.batch(seed, images_seen + rank() * share, share))


def open_feed(recipe: Recipe[Any], data: Dataset, config: DataConfig) -> Feed:
    """The training batches of a dataset, augmented as configured."""
    return Feed(training_stream(data, config), recipe.to_device, recipe.context.device)


def first_batches(recipe: Recipe[Any], data: Dataset, config: DataConfig, seed: int) -> Iterator[Any]:
    """The batches that `Recipe.start` initialises from: the same on every rank and for every call."""
    return map(recipe.to_device, recipe.fitting_batches(training_stream(data, config), seed))


class ResidentImages:
    """A dataset in device memory; its batches equal those of the dataset on disk."""

    def __init__(self, stream: AugmentedImages, device: torch.device) -> None:
        self.stream, self.device = stream, device
        parts = np.array_split(np.arange(len(stream)), -(-len(stream) // RESIDENT_PART))
        self.pixels = torch.cat([torch.from_numpy(stream.take(part).images).to(device) for part in parts])

    def batch(self, seed: int, images_seen: int, count: int) -> ResidentBatch:
        """As `AugmentedImages.batch`, but already on the device."""
        order = self.stream.order(seed, images_seen, count)
        index, rows, columns = (
            torch.from_numpy(part).to(self.device, non_blocking=True)
            for part in (order.indices, order.rows, order.columns)
        )
        labels = None if order.labels is None else torch.from_numpy(order.labels).to(self.device)
        return ResidentBatch(self.pixels[index[:, None, None], rows[:, :, None], columns[:, None, :]], labels)


def _free_bytes(device: torch.device) -> int:
    return int(RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def spread_batch(data: Dataset, count: int, to_device: ToDevice) -> Any:
    """One batch of evenly spaced examples, the same for every call."""
    return to_device(data.take(evenly_spread(len(data), count)))


def spread_batches(data: Dataset, count: int, batch: int, to_device: ToDevice) -> Iterator[Any]:
    """Evenly spaced examples in batches, the same for every call."""
    indices = evenly_spread(len(data), count)
    for start in range(0, len(indices), batch):
        yield to_device(data.take(indices[start : start + batch]))


def preview_count(data: Dataset) -> int:
    """Number of examples in a preview; fewer if the images are large."""
    return PREVIEW_IMAGES if max(data.spec.shape[1:]) <= 64 else PREVIEW_IMAGES // 4
