"""Images with known flaws, to test whether metrics react to them.

    blurred           g(x) ~ exp(-x^2 / (2 sigma^2)), separable, sigma in pixels, edges mirrored (b a | a b c)
    noisy             pixel + 255 * std * n,  n ~ N(0, 1);  std = 0.05 is called 5 % noise here
    without_classes   simulates mode dropping: some classes are missing
    with_copies       simulates memorisation: a share of the images is copied from the training set
    degraded_copies   copies as they occur in practice: JPEG compressed, shifted, mirrored, slightly brighter or darker

Layout: uint8 (N, H, W, C) with C in 1, 3, 4. Alpha is blurred, shifted and mirrored together with the colours, which
are blurred premultiplied; noise, brightness and JPEG do not change it. All functions are deterministic.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image

from smalti.data.images import as_array, as_image
from smalti.errors import ConfigError, DataError

BRIGHTNESS = 0.02  # relative change of a brighter or darker copy
JPEG_QUALITY = 85
_BLOCK = 256  # images converted to float at once


@dataclass(frozen=True)
class Copies:
    """Images, some of which are copies of training images.

    Attributes:
        images: (N, H, W, C) uint8.
        sources: (N,) int64, index of the training image of which each image is a copy; -1 if it is none.
        kinds: degradation of each copy, a key of `DEGRADATIONS`; "" if it is none.
    """

    images: np.ndarray
    sources: np.ndarray
    kinds: tuple[str, ...]


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur.

    Args:
        images: (N, H, W, C) uint8.
        sigma: standard deviation of the Gaussian in pixels, from 0 (no blur) to 100; truncated at 4 sigma.

    Returns:
        (N, H, W, C) uint8, rounded once at the end.

    Raises:
        DataError: the images have the wrong type or shape.
        ConfigError: sigma is out of range.
    """
    _check(images)
    if not 0 <= sigma <= 100:
        raise ConfigError(f"sigma of a blur is 0 to 100 pixels, not {sigma}")
    if sigma < 0.05:  # the weight of the neighbouring pixels, exp(-1/(2 sigma^2)), is 0 in float64
        return images.copy()
    radius = math.ceil(4 * sigma)
    weights = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    weights = (weights / weights.sum()).astype(np.float32)

    def smooth(pixels: np.ndarray) -> np.ndarray:
        for axis in (1, 2):
            pixels = _along(pixels, weights, axis)
        return pixels

    def blur(pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[-1] != 4:
            return smooth(pixels)
        alpha = pixels[..., 3:]
        weighted = smooth(np.concatenate([pixels[..., :3] * alpha, alpha], axis=-1))
        alpha = weighted[..., 3:]
        return np.concatenate([weighted[..., :3] / np.maximum(alpha, 1e-3), alpha], axis=-1)

    return _in_blocks(images, blur)


def noisy(images: np.ndarray, *, std: float = 0.05, seed: int = 0) -> np.ndarray:
    """Add independent Gaussian noise to every value and clip to the pixel range.

    Args:
        images: (N, H, W, C) uint8; a fourth channel is alpha and is not changed.
        std: standard deviation relative to the pixel range: 0.05 is 12.75 grey levels.
        seed: non-negative integer.

    Returns:
        (N, H, W, C) uint8.

    Raises:
        DataError: the images have the wrong type or shape.
        ConfigError: std is negative.
    """
    _check(images)
    if not 0 <= std < math.inf:
        raise ConfigError(f"the standard deviation of noise is a share of the range from 0, not {std}")
    generator = np.random.default_rng([seed, 1])

    def add(pixels: np.ndarray) -> np.ndarray:
        colours = 3 if pixels.shape[-1] == 4 else pixels.shape[-1]
        noise = generator.standard_normal((*pixels.shape[:-1], colours), dtype=np.float32)
        pixels[..., :colours] += np.float32(255 * std) * noise
        return pixels

    return _in_blocks(images, add)


def without_classes(images: np.ndarray, labels: np.ndarray, dropped: Collection[int]) -> tuple[np.ndarray, np.ndarray]:
    """Remove all images of some classes.

    Args:
        images: (N, H, W, C) uint8.
        labels: (N,) integers.
        dropped: labels of the classes to remove.

    Returns:
        The remaining images and labels, in order.

    Raises:
        DataError: the number of labels differs from that of the images, a class does not occur, or no image remains.
    """
    _check(images)
    if labels.shape != (len(images),):
        raise DataError(f"{len(images)} images need as many labels, but these have shape {labels.shape}")
    absent = sorted(set(dropped) - set(labels.tolist()))
    if absent:
        raise DataError(f"class {absent[0]} cannot be dropped: no image has that label")
    kept = ~np.isin(labels, list(dropped))
    if not kept.any():
        raise DataError("dropping every class leaves no image")
    return images[kept], labels[kept]


def with_copies(
    generated: np.ndarray, training: np.ndarray, share: float, *, seed: int = 0, degraded: bool = False
) -> Copies:
    """Replace a share of the generated images with copies of training images.

    Args:
        generated: (N, H, W, C) uint8.
        training: (M, H, W, C) uint8; each is copied at most once if there are enough.
        share: proportion of the N images to replace, from 0 to 1; rounded, but at least one image unless it is 0.
        seed: non-negative integer; determines which images are replaced, and by which.
        degraded: whether copies are degraded as by `degraded_copies`, or exact.

    Returns:
        N images, with the copies marked.

    Raises:
        DataError: the images have the wrong type or shape, or the two sets differ in size or channels.
        ConfigError: share is out of range.
    """
    _check(generated)
    _check(training)
    if generated.shape[1:] != training.shape[1:]:
        raise DataError(
            f"copies must have the shape of what they replace, but training images are {training.shape[1:]} "
            f"and generated ones {generated.shape[1:]}; resize one of them"
        )
    if not 0 <= share <= 1:
        raise ConfigError(f"the share of copies is 0 to 1, not {share}")
    count = min(max(round(share * len(generated)), 1 if share else 0), len(generated))
    images, kinds = generated.copy(), [""] * len(generated)
    sources = np.full(len(generated), -1, np.int64)
    if count:
        positions = np.random.default_rng([seed, 2]).permutation(len(generated))[:count]
        copies = degraded_copies(training, count, seed=seed, kinds=tuple(DEGRADATIONS) if degraded else ("exact",))
        images[positions], sources[positions] = copies.images, copies.sources
        for position, kind in zip(positions, copies.kinds, strict=True):
            kinds[position] = kind
    return Copies(images, sources, tuple(kinds))


def degraded_copies(training: np.ndarray, count: int, *, seed: int = 0, kinds: tuple[str, ...] | None = None) -> Copies:
    """Copies of training images with one degradation each, to calibrate a copy detector.

    Args:
        training: (M, H, W, C) uint8; each is copied at most once if there are enough.
        count: number of copies.
        seed: non-negative integer.
        kinds: keys of `DEGRADATIONS`, used in turn; None uses all of them.

    Returns:
        `count` images with their sources and kinds, in random order.

    Raises:
        DataError: the images have the wrong type or shape.
        ConfigError: count is negative, or a kind does not exist.
    """
    _check(training)
    if count < 0:
        raise ConfigError(f"the number of copies is at least 0, not {count}")
    chosen = tuple(DEGRADATIONS) if kinds is None else kinds
    if not chosen or set(chosen) - set(DEGRADATIONS):
        raise ConfigError(f"copies are changed by {', '.join(DEGRADATIONS)}, not by {', '.join(chosen) or 'nothing'}")
    generator = np.random.default_rng([seed, 3])
    rounds = -(-count // len(training))
    sources = np.concatenate([generator.permutation(len(training)) for _ in range(rounds)] or [np.empty(0, np.int64)])
    sources = sources[:count].astype(np.int64)
    order = [chosen[i % len(chosen)] for i in range(count)]
    copies = [DEGRADATIONS[kind](training[source], generator) for kind, source in zip(order, sources, strict=True)]
    images = np.stack(copies) if copies else np.empty((0, *training.shape[1:]), np.uint8)
    return Copies(images, sources, tuple(order))


def _exact(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return image


def _through_jpeg(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    colours = image[..., :3] if image.shape[-1] == 4 else image
    file = io.BytesIO()
    as_image(colours).save(file, "JPEG", quality=JPEG_QUALITY)
    with Image.open(file, formats=("JPEG",)) as opened:
        decoded = as_array(opened)
    return np.concatenate([decoded, image[..., 3:]], axis=-1) if image.shape[-1] == 4 else decoded


def _shifted(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Shift by one pixel up, down, left or right, with edge padding."""
    down, right = ((0, 1), (0, -1), (1, 0), (-1, 0))[generator.integers(4)]
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = image.shape[:2]
    return padded[1 - down : 1 - down + height, 1 - right : 1 - right + width]


def _mirrored(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return image[:, ::-1]


def _brightened(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    factor = np.ones(image.shape[-1])
    factor[:3] += BRIGHTNESS * generator.choice((-1, 1))
    return np.clip(np.rint(image * factor), 0, 255).astype(np.uint8)


DEGRADATIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "exact": _exact,
    "jpeg": _through_jpeg,
    "shift": _shifted,
    "mirror": _mirrored,
    "brightness": _brightened,
}


def _along(pixels: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Convolve one axis of (N, H, W, C) float32 with symmetric weights and mirrored edges."""
    radius, side = len(weights) // 2, pixels.shape[axis]
    padding = [(0, 0)] * 4
    padding[axis] = (radius, radius)
    padded = np.pad(pixels, padding, mode="symmetric")
    total = np.zeros_like(pixels)
    for offset, weight in enumerate(weights):
        window = [slice(None)] * 4
        window[axis] = slice(offset, offset + side)
        total += weight * padded[tuple(window)]
    return total


def _in_blocks(images: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply a function of float32 pixels in [0, 255] in blocks of images, and round to uint8."""
    result = np.empty_like(images)
    for start in range(0, len(images), _BLOCK):
        changed = change(images[start : start + _BLOCK].astype(np.float32))
        result[start : start + _BLOCK] = np.clip(np.rint(changed), 0, 255)
    return result


def _check(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or images.size == 0:
        raise DataError(f"expected uint8 images (N, H, W, 1, 3 or 4), not {images.dtype} of shape {images.shape}")
