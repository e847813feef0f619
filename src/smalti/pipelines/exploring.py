"""Exploring a GAN's latent space: interpolation between images, and a table of pairwise mixtures.

found = points(gan, "3,17")                     # images 3 and 17 of seed 0; or a latent file: "cat.latent.json,17"
frames = walk(gan, found, 48)                   # (48, H, W, C) uint8
table = mix(gan, found)                         # (K * K, H, W, C) uint8, row by row
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smalti.errors import ConfigError, arg
from smalti.pipelines import latents
from smalti.pipelines.gan import GAN

MIX_LIMIT = 100  # points in one walk or table


@dataclass(frozen=True)
class Points:
    """Points in a latent space, and the class label with which all of them are synthesized.

    Attributes:
        values: (K, D) float32.
        label: class number; None for an unconditional model.
        class_name: name of the class; None for an unconditional model.
    """

    values: np.ndarray
    label: int | None
    class_name: str | None

    def labels(self, count: int) -> list[int] | None:
        """The labels of `count` images, for `GAN.synthesize`."""
        return None if self.label is None else [self.label] * count


def points(gan: GAN, text: str, *, seed: int = 0, label: str | None = None, name: str = "points") -> Points:
    """Parse a list of image numbers and latent files to points of a latent space.

    Args:
        gan: the model.
        text: 2 to 100 entries separated by commas: "3,17" or "cat.latent.json,3".
        seed: for image numbers, as in `GAN.generate`.
        label: a class name; None: the class of the first latent file that has one, else that of the first image.
        name: name of the argument in messages.

    Raises:
        ConfigError: the list cannot be parsed, the seed is negative, or the model has no such label.
        DataError: a latent file is missing, damaged or of another model.
    """
    words = [word.strip() for word in text.split(",")]
    if not 2 <= len(words) <= MIX_LIMIT or not all(words):
        raise ConfigError(
            f"{arg(name)} is {text!r}, but must be from 2 to {MIX_LIMIT} image numbers or latent files, as in 3,17"
        )
    numbers = [int(word) if word.isascii() and word.isdigit() and len(word) < 19 else None for word in words]
    found = []
    for word, number in zip(words, numbers, strict=True):
        if number is not None:
            found.append(gan.sample_latents([number], seed=seed)[0])
            continue
        point = latents.read(Path(word), dimension=gan.latent_size, model=gan.card.digest)
        label = point.label if label is None else label
        found.append(point.values)
    labels = gan.labels([numbers[0] or 0], label)
    chosen = None if labels is None else labels[0]
    return Points(np.stack(found), chosen, None if chosen is None else gan.card.classes[chosen])


def check_frames(points: Points, frames: int) -> None:
    """Raise ConfigError if a walk has fewer frames than points."""
    count = len(points.values)
    if frames < count:
        raise ConfigError(f"{arg('count')} is {frames}, but a walk over {count} pictures has at least as many frames")


def walk(gan: GAN, points: Points, frames: int, *, truncation: float = 1.0) -> np.ndarray:
    """Images along a path through all points, interpolated between successive points.

    Args:
        frames: number of images, at least one per point.
        truncation: as in `GAN.generate`.

    Returns:
        (frames, H, W, C) uint8.

    Raises:
        ConfigError: there are fewer frames than points, or truncation is out of range.
    """
    check_frames(points, frames)
    path = latents.walk(points.values, frames)
    images: np.ndarray = gan.synthesize(path, labels=points.labels(frames), truncation=truncation)
    return images


def mix(gan: GAN, points: Points, *, truncation: float = 1.0) -> np.ndarray:
    """A K x K table of images: midpoints between pairs of points, with the points themselves on the diagonal.

    Args:
        truncation: as in `GAN.generate`.

    Returns:
        (K * K, H, W, C) uint8, row by row.

    Raises:
        ConfigError: truncation is out of range.
    """
    table = latents.mixtures(points.values).reshape(-1, points.values.shape[1])
    images: np.ndarray = gan.synthesize(table, labels=points.labels(len(table)), truncation=truncation)
    return images
