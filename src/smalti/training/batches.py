"""Packed images, or codes of images, as batches on the device: for steps, for scores, for previews.

A GPU keeps the whole set in its memory where it fits, as uint8; the images of a batch are then gathered there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

from smalti.config.data import DataConfig
from smalti.data import PackedImages
from smalti.data.codes import CodeBatch, CodeSet
from smalti.data.order import evenly_spread
from smalti.recipes import Codes, Images
from smalti.runtime.distributed import rank, world
from smalti.runtime.pixels import normalized, to_tensor

PREVIEW_IMAGES = 64
RESIDENT_PART = 4096  # images that are copied to the device at a time
RESIDENT_SHARE = 0.25  # of the device's free memory that a set may take
START_VALUES = 40_000 * 3 * 32**2  # of pixels, to fit to
START_BATCH_VALUES = 500 * 3 * 32**2
START_CODES = 20_000_000

Data = PackedImages | CodeSet


def batch_at(
    data: PackedImages, seed: int, images_seen: int, count: int, stream: DataConfig, device: torch.device
) -> Images:
    """This rank's share of the batch that begins at `images_seen`."""
    share = count // world()
    batch = data.batch(seed, images_seen + rank() * share, share, flip=stream.flip, shift=stream.shift)
    labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(device)
    return Images(to_tensor(batch.images, device), labels)


class Feeding(Protocol):
    """What gives a training its batches."""

    def batch(self, seed: int, images_seen: int, count: int, stream: DataConfig) -> Images | Codes: ...


def open_feed(data: Data, device: torch.device) -> Feeding:
    """The batches of a training."""
    return CodeFeed(data, device) if isinstance(data, CodeSet) else Feed(data, device)


class CodeFeed:
    """The batches of a training on codes."""

    def __init__(self, data: CodeSet, device: torch.device) -> None:
        self.data, self.device = data, device

    def batch(self, seed: int, images_seen: int, count: int, stream: DataConfig) -> Codes:
        """This rank's share of the batch that begins at `images_seen`."""
        share = count // world()
        return _codes(self.data.batch(seed, images_seen + rank() * share, share), self.device)


def _codes(batch: CodeBatch, device: torch.device) -> Codes:
    labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(device)
    return Codes(torch.from_numpy(batch.codes).to(device), labels, batch.captions)


class Feed:
    """The batches of a training, bit for bit those of `batch_at`.

    Args:
        room_bytes: what the set may take of the device's memory; None: a quarter of what is free, nothing on a CPU.
    """

    def __init__(self, data: PackedImages, device: torch.device, *, room_bytes: int | None = None) -> None:
        self.data, self.device = data, device
        if room_bytes is None:
            room_bytes = _free_bytes(device)
        self.resident: torch.Tensor | None = None
        if len(data) * int(np.prod(data.shape)) <= room_bytes:
            parts = np.array_split(np.arange(len(data)), -(-len(data) // RESIDENT_PART))
            self.resident = torch.cat([torch.from_numpy(data.pixels(part)).to(device) for part in parts])

    def batch(self, seed: int, images_seen: int, count: int, stream: DataConfig) -> Images:
        """This rank's share of the batch that begins at `images_seen`."""
        if self.resident is None:
            return batch_at(self.data, seed, images_seen, count, stream, self.device)
        share = count // world()
        order = self.data.order(seed, images_seen + rank() * share, share, flip=stream.flip, shift=stream.shift)
        index, rows, columns = (
            torch.from_numpy(part).to(self.device, non_blocking=True)
            for part in (order.indices, order.rows, order.columns)
        )
        pixels = self.resident[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        labels = None if order.labels is None else torch.from_numpy(order.labels).to(self.device)
        return Images(normalized(pixels.permute(0, 3, 1, 2)), labels)


def _free_bytes(device: torch.device) -> int:
    return int(RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def _take(data: Data, indices: np.ndarray, device: torch.device) -> Images | Codes:
    if isinstance(data, CodeSet):
        return _codes(data.take(indices), device)
    labels = None if data.labels is None else torch.from_numpy(np.asarray(data.labels)[indices]).to(device)
    return Images(to_tensor(data.pixels(indices), device), labels)


def some_images(data: Data, count: int, device: torch.device) -> Images | Codes:
    """Evenly spread images of a set, the same ones each time."""
    return _take(data, evenly_spread(len(data), count), device)


def slices(data: Data, count: int, batch: int, device: torch.device) -> Iterator[Images | Codes]:
    """Evenly spread images, a batch at a time."""
    indices = evenly_spread(len(data), count)
    for start in range(0, len(indices), batch):
        yield _take(data, indices[start : start + batch], device)


def first_batches(data: Data, seed: int, stream: DataConfig, device: torch.device) -> Iterator[Images | Codes]:
    """Random training images for what is fitted before the first step: the same ones on every rank."""
    if isinstance(data, CodeSet):
        yield from slices(data, max(1, START_CODES // int(np.prod(data.about.row))), 1024, device)
        return
    values = int(np.prod(data.shape))
    variants = (2 if stream.flip else 1) * (2 * stream.shift + 1) ** 2
    count = max(2, min(len(data) * variants, START_VALUES // values))
    size = max(1, min(count, START_BATCH_VALUES // values))
    for start in range(0, count, size):
        batch = data.batch(seed, start, min(size, count - start), flip=stream.flip, shift=stream.shift)
        yield Images(to_tensor(batch.images, device))


def preview_count(data: Data) -> int:
    """Fewer large pictures than small ones: a sheet is for looking at."""
    return PREVIEW_IMAGES if max(data.shape[1:]) <= 64 else PREVIEW_IMAGES // 4
