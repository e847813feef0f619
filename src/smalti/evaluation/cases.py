"""Images with a known flaw, so that one can see whether a measurement notices it.

    blurred           g(x) ~ exp(-x^2 / (2 sigma^2)), separable, sigma in pixels, edges mirrored (b a | a b c)
    noisy             pixel + 255 * std * n,  n ~ N(0, 1);  std 0.05 is what is called 5 % noise here
    without_classes   a model that has forgotten some classes
    with_copies       a generator of whose output a share is copied from its training images
    degraded_copies   copies as they turn up in practice: through a JPEG file, shifted, mirrored, a little brighter

Layout: uint8 (N, H, W, C) with C in 1, 3, 4. Alpha is blurred, shifted and mirrored with the colours, which it weighs;
noise, brightness and JPEG leave it alone. Every case depends on its arguments alone.
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

BRIGHTNESS = 0.02  # of a slightly brighter or darker copy
JPEG_QUALITY = 85
_BLOCK = 256  # images taken to floats at once


@dataclass(frozen=True)
class Copies:
    """Images of which some are copies.

    Attributes:
        images: (N, H, W, C) uint8.
        sources: (N,) int64, the training image each one is a copy of, -1 where it is none.
        kinds: N words, how each copy was changed: a key of `DEGRADATIONS`, "" where it is none.
    """

    images: np.ndarray
    sources: np.ndarray
    kinds: tuple[str, ...]


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur.

    Args:
        images: (N, H, W, C) uint8.
        sigma: standard deviation of the Gaussian in pixels, from 0 (no blur) to 100; it is cut off at 4 sigma.

    Returns:
        (N, H, W, C) uint8, rounded once.

    Raises:
        DataError: no such images.
        ConfigError: sigma is out of range.
    """
    _check(images)
    if not 0 <= sigma <= 100:
        raise ConfigError(f"sigma of a blur is 0 to 100 pixels, not {sigma}")
    if sigma < 0.05:  # the neighbours' weight, exp(-1/(2 sigma^2)), is 0 in float64
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
    """Gaussian noise, independent for every value, clipped to the range of pixels.

    Args:
        images: (N, H, W, C) uint8; a fourth channel is alpha and stays as it is.
        std: standard deviation as a share of the range of pixels: 0.05 is 12.75 grey levels.
        seed: any integer from 0.

    Returns:
        (N, H, W, C) uint8.

    Raises:
        DataError: no such images.
        ConfigError: a negative std.
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
    """The images of the other classes, in their order.

    Args:
        images: (N, H, W, C) uint8.
        labels: (N,) integers.
        dropped: the labels that go.

    Returns:
        Images and labels that are left.

    Raises:
        DataError: not one label an image, a class that is not there, or no image is left.
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
    """A generator's output, a share of it replaced by training images.

    Args:
        generated: (N, H, W, C) uint8.
        training: (M, H, W, C) uint8; each is copied at most once while there are enough.
        share: of the N images, from 0 to 1; rounded to whole images, at least one unless it is 0.
        seed: any integer from 0; decides which images go, and what takes their place.
        degraded: whether copies are changed as by `degraded_copies`, instead of exact.

    Returns:
        N images, the copies among them marked.

    Raises:
        DataError: no such images, or the two differ in size or channels.
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
        places = np.random.default_rng([seed, 2]).permutation(len(generated))[:count]
        copies = degraded_copies(training, count, seed=seed, kinds=tuple(DEGRADATIONS) if degraded else ("exact",))
        images[places], sources[places] = copies.images, copies.sources
        for place, kind in zip(places, copies.kinds, strict=True):
            kinds[place] = kind
    return Copies(images, sources, tuple(kinds))


def degraded_copies(training: np.ndarray, count: int, *, seed: int = 0, kinds: tuple[str, ...] | None = None) -> Copies:
    """Copies of training images, each changed in one way, to see from what distance on a detector calls a copy.

    Args:
        training: (M, H, W, C) uint8; each is copied at most once while there are enough.
        count: copies to make.
        seed: any integer from 0.
        kinds: keys of `DEGRADATIONS` to take in turn; None takes all of them, so each is as frequent as the next.

    Returns:
        `count` images with their sources and kinds, in random order.

    Raises:
        DataError: no such images.
        ConfigError: a negative count, or a kind that does not exist.
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
    """By one pixel up, down, left or right; the row or column that comes in repeats the edge."""
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
    """Convolve one axis of (N, H, W, C) float32 with symmetric weights; the edges are mirrored."""
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
    """Apply a change of float32 pixels in [0, 255] a few images at a time, and round to uint8."""
    result = np.empty_like(images)
    for start in range(0, len(images), _BLOCK):
        changed = change(images[start : start + _BLOCK].astype(np.float32))
        result[start : start + _BLOCK] = np.clip(np.rint(changed), 0, 255)
    return result


def _check(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or images.size == 0:
        raise DataError(f"expected uint8 images (N, H, W, 1, 3 or 4), not {images.dtype} of shape {images.shape}")
