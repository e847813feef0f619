"""Latent vectors: sampling, interpolation, and files.

    slerp(a, b, t) = (sin((1 - t) w) a + sin(t w) b) / sin w,   w the angle between a and b

Latents are N(0, 1) in many dimensions, so they lie close to a sphere. Linear interpolation leaves that sphere and
passes through points that were never sampled in training, whose images look washed out (White 2016, arXiv:1609.04468,
section 2). A latent file is JSON with the values and the digest of the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smalti.errors import DataError, command
from smalti.files import input_errors, write_atomically
from smalti.runtime.rng import seeded_generator

KIND = "smalti latent"
FILE_LIMIT_BYTES = 4 * 2**20
LARGEST_VALUE = 1000.0  # limit for values in a file, far beyond samples of N(0, 1) and results of an inversion
NEARLY_PARALLEL = 1e-4  # radians


@dataclass(frozen=True)
class Latent:
    """A latent vector.

    Attributes:
        values: (D,) float32.
        label: a class name, or None.
        model: digest of its model.
    """

    values: np.ndarray
    label: str | None
    model: str


def sample_latents(numbers: Sequence[int], dimension: int, seed: int) -> np.ndarray:
    """Sample (N, D) float32 from N(0, 1); row i depends only on (seed, numbers[i])."""
    values = np.empty((len(numbers), dimension), np.float32)
    for row, number in zip(values, numbers, strict=True):
        row[:] = torch.randn(dimension, generator=seeded_generator(seed, number)).numpy()
    return values


def slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """Spherical interpolation between a and b, both (D,), at t = `share`; linear if they are nearly parallel."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    angle = math.acos(min(1.0, max(-1.0, float(a @ b) / norms))) if norms else 0.0
    weights = 1 - share, share
    if NEARLY_PARALLEL < angle < math.pi - NEARLY_PARALLEL:
        weights = math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)
    return (weights[0] * a + weights[1] * b).astype(np.float32)


def walk(points: np.ndarray, frames: int) -> np.ndarray:
    """A path through all of (K, D) points, interpolated between successive ones: (frames, D), with frames >= K.

    The frames are distributed as evenly as possible over the K - 1 legs.
    """
    legs = len(points) - 1
    stops = [leg * (frames - 1) // legs for leg in range(legs + 1)]
    found = [
        slerp(points[leg], points[leg + 1], step / (stops[leg + 1] - stops[leg]))
        for leg in range(legs)
        for step in range(stops[leg + 1] - stops[leg])
    ]
    return np.stack([*found, points[-1].astype(np.float32)])


def mixtures(points: np.ndarray) -> np.ndarray:
    """Midpoints between all pairs of points, with the points themselves on the diagonal: (K, D) -> (K, K, D)."""
    return np.stack([[slerp(a, b, 0.5) for b in points] for a in points])


def write(path: Path, latent: Latent, **about: Any) -> None:
    """Write a latent file.

    Args:
        about: further entries, for information only.

    Raises:
        OutputError: the file cannot be written.
    """
    plain = {"kind": KIND, "model": latent.model, "label": latent.label, **about,
             "values": [float(value) for value in latent.values]}  # fmt: skip
    text = json.dumps(plain, indent=1, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode()))


def read(path: Path, *, dimension: int, model: str) -> Latent:
    """Read a latent file.

    Args:
        dimension: D of the model that it is for.
        model: digest of that model.

    Raises:
        DataError: the file is missing, is not a latent file, or belongs to another model.
    """
    with input_errors(path, DataError), path.open("rb") as file:
        text = file.read(FILE_LIMIT_BYTES + 1)
    try:
        plain = json.loads(text) if len(text) <= FILE_LIMIT_BYTES else None
        if not isinstance(plain, dict) or plain.get("kind") != KIND:
            raise ValueError
        values, label, owner = plain["values"], plain["label"], plain["model"]
        if not (isinstance(values, list) and isinstance(label, str | None) and isinstance(owner, str)):
            raise ValueError
        if not all(type(value) in (int, float) and abs(value) <= LARGEST_VALUE for value in values):
            raise ValueError
    except (ValueError, KeyError, RecursionError):
        raise DataError(f"{path} is no latent file; {command('invert')} writes them") from None
    if owner != model:
        raise DataError(
            f"{path} is a latent of the model {owner[:12]}, not of {model[:12]}; invert the image with this model"
        )
    if len(values) != dimension:
        raise DataError(
            f"{path} holds {len(values)} values, but a latent of its model has {dimension}; it was changed or damaged, "
            "invert the image again"
        )
    return Latent(np.array(values, dtype=np.float32), label, owner)
