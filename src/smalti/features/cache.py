"""Feature cache: features are computed in one pass over the images and stored for all metrics.

    <cache>/features/<key>.safetensors     one tensor `features`, (N, D) float32
    key = sha256(format, fingerprint of the images, digest of the extractor, indices, N, D)

The batch size is not part of the key.  The header holds a sha256 of the values; features are recomputed if the file is
truncated, modified or of the wrong shape, so a damaged cache never gives wrong values.
Memory: the features and one batch of images.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import torch
from torch import Tensor

from smalti.data.loading import cache_folder
from smalti.errors import ConfigError, DataError, OutputError
from smalti.features.extractor import Extractor
from smalti.features.resizing import check_images
from smalti.files import output_errors, write_atomically

_log = logging.getLogger(__name__)

FORMAT = 1
_HEADER_LIMIT = 4096  # bytes; ours are a few hundred

Progress = Callable[[int, int | None], None]


class Images(Protocol):
    """A set of images with a fingerprint, such as `smalti.data.PackedImages` or `ArrayImages`."""

    @property
    def fingerprint(self) -> str:
        """Identifies the pixels: equal for two sets only if their pixels are equal."""

    def __len__(self) -> int: ...

    def pixels(self, indices: np.ndarray, /) -> np.ndarray:
        """(len(indices), H, W, C) uint8."""


class ArrayImages:
    """Images held in memory.

    Attributes:
        images: (N, H, W, C) uint8.
        fingerprint: identifies the pixels.

    Args:
        fingerprint: None: a sha256 over shape and pixels.

    Raises:
        DataError: `images` has another type or shape.
    """

    def __init__(self, images: np.ndarray, *, fingerprint: str | None = None) -> None:
        check_images(images)
        self.images = images
        self.fingerprint = _fingerprint(images) if fingerprint is None else fingerprint

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """A copy of the selected images, (len(indices), H, W, C) uint8.

        Raises:
            IndexError: an index is outside 0..N-1.
        """
        chosen: np.ndarray = self.images[_checked_indices(indices, len(self))]
        return chosen


def collect(
    images: Images,
    extractor: Extractor,
    *,
    indices: np.ndarray | Sequence[int] | None = None,
    cache: Path | None = None,
    batch: int = 64,
    progress: Progress | None = None,
) -> Tensor:
    """The features of images, from the cache or computed in one pass.

    Args:
        images: see `Images`.
        extractor: the feature extractor.
        indices: images to use, in this order; None: all.
        cache: the cache folder; None: that of the user. If it cannot be written, a warning is logged.
        batch: batch size; affects speed and memory only.
        progress: called with (images done, total).

    Returns:
        (N, D) float32 on the CPU.

    Raises:
        DataError: the extractor or the images raise it; see `Extractor.features`.
        ConfigError: batch is below 1.
        IndexError: an index is out of range.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}, but at least one image must be taken at a time")
    chosen = np.arange(len(images)) if indices is None else np.asarray(indices, dtype=np.int64)
    if chosen.ndim != 1:
        raise DataError(f"indices are of shape {chosen.shape}; expected one row of them")
    chosen = _checked_indices(chosen, len(images))
    shape = (len(chosen), extractor.dimension)
    path = cache_folder(cache) / "features" / f"{_key(images, extractor, chosen)}.safetensors"
    cached = _read(path, shape)
    if cached is not None:
        if progress is not None:
            progress(len(chosen), len(chosen))
        return cached
    features = torch.empty(shape)
    for start in range(0, len(chosen), batch):
        rows = chosen[start : start + batch]
        features[start : start + batch] = extractor.features(images.pixels(rows))
        if progress is not None:
            progress(start + len(rows), len(chosen))
    _write(path, features, extractor)
    return features


def _checked_indices(indices: np.ndarray | Sequence[int], count: int) -> np.ndarray:
    """Indices as int64. Raises IndexError for one outside 0..count-1."""
    chosen = np.asarray(indices, dtype=np.int64)
    if chosen.size and (chosen.min() < 0 or chosen.max() >= count):
        raise IndexError(f"image {chosen[(chosen < 0) | (chosen >= count)][0]} of {count}")
    return chosen


def _key(images: Images, extractor: Extractor, chosen: np.ndarray) -> str:
    everything = len(chosen) == len(images) and bool((chosen == np.arange(len(images))).all())
    which = "all" if everything else hashlib.sha256(chosen.astype("<i8").tobytes()).hexdigest()
    parts = [FORMAT, images.fingerprint, extractor.digest, which, len(chosen), extractor.dimension]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _fingerprint(images: np.ndarray) -> str:
    sha = hashlib.sha256(f"uint8 {list(images.shape)}\n".encode())
    for image in images:  # one at a time, because the array may be a non-contiguous view
        sha.update(np.ascontiguousarray(image).data)
    return sha.hexdigest()


def _checksum(features: Tensor) -> str:
    return hashlib.sha256(_bytes(features)).hexdigest()


def _bytes(features: Tensor) -> memoryview:
    return features.numpy().reshape(-1).view(np.uint8).data


def _write(path: Path, features: Tensor, extractor: Extractor) -> None:
    """Write features without a second copy in memory; logs a warning if the file cannot be written."""
    size = features.numel() * features.element_size()
    header = {
        "__metadata__": {"sha256": _checksum(features), "extractor": extractor.name, "digest": extractor.digest},
        "features": {"dtype": "F32", "shape": list(features.shape), "data_offsets": [0, size]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the values to eight bytes

    def fill(file: IO[bytes]) -> None:
        file.write(struct.pack("<Q", len(text)) + text)
        file.write(_bytes(features))

    try:
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, fill)
    except OutputError as error:
        _log.warning("the features are not kept: %s", error)


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """Cached features; None if the file is missing or damaged.

    The expected size is known in advance, so a header that claims more is rejected before memory is allocated.
    """
    size = shape[0] * shape[1] * 4
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _HEADER_LIMIT or path.stat().st_size != 8 + length + size:
                return None
            header = json.loads(file.read(length))
            entry, checksum = header["features"], header["__metadata__"]["sha256"]
            if (entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]) != ("F32", shape, [0, size]):
                return None
            features = torch.empty(shape)
            if file.readinto(_bytes(features)) != size:
                return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # missing or damaged: recompute
    return features if _checksum(features) == checksum else None
