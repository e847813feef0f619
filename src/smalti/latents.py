"""Points in a generator's latent space: drawn, mixed, walked between, and kept in files.

    slerp(a, b, t) = (sin((1 - t) w) a + sin(t w) b) / sin w,   w the angle between a and b

Latents are N(0, 1) in many dimensions, so they lie near a sphere; the straight line between two of them passes where no
latent ever was in training, and pictures from there are washed out (White 2016, arXiv:1609.04468, section 2).
A latent file is JSON: who made it, of which model, and its numbers.
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

from smalti.errors import DataError
from smalti.files import input_errors, write_atomically
from smalti.layers.randomness import seeded_generator

KIND = "smalti latent"
FILE_LIMIT_BYTES = 4 * 2**20
NEARLY_PARALLEL = 1e-4  # radians


@dataclass(frozen=True)
class Latent:
    """One point.

    Attributes:
        values: (D,) float32.
        label: a class name, or None.
        model: digest of the model it belongs to.
    """

    values: np.ndarray
    label: str | None
    model: str


def drawn(numbers: Sequence[int], dimension: int, seed: int) -> np.ndarray:
    """(N, D) float32 from N(0, 1); row i depends on (seed, numbers[i]) alone."""
    rows = [torch.randn(dimension, generator=seeded_generator(seed, number)) for number in numbers]
    return torch.stack(rows).numpy()


def slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """The point at `share` of the way from a to b, both (D,): the formula above, a straight line where they align."""
    cosine = float(a.astype(np.float64) @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))
    angle = math.acos(min(1.0, max(-1.0, cosine)))
    if angle < NEARLY_PARALLEL or math.pi - angle < NEARLY_PARALLEL:
        return (a + share * (b - a)).astype(np.float32)
    weights = math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)
    return (weights[0] * a + weights[1] * b).astype(np.float32)


def walk(points: np.ndarray, frames: int) -> np.ndarray:
    """From the first of (K, D) points over the others to the last, in evenly spaced frames: (frames, D)."""
    stops = np.linspace(0, len(points) - 1, frames)
    steps = [(min(int(stop), len(points) - 2), stop) for stop in stops]
    return np.stack([slerp(points[start], points[start + 1], stop - start) for start, stop in steps])


def mixed(points: np.ndarray) -> np.ndarray:
    """(K, D) -> (K, K, D): at (i, j) the middle between points i and j, on the diagonal the points themselves."""
    return np.stack([[a if a is b else slerp(a, b, 0.5) for b in points] for a in points])


def write(path: Path, latent: Latent, **about: Any) -> None:
    """Write a latent file; `about` is added for people.

    Raises:
        OutputError: it cannot be written.
    """
    plain = {"kind": KIND, "model": latent.model, "label": latent.label, **about,
             "values": [float(value) for value in latent.values]}  # fmt: skip
    text = json.dumps(plain, indent=1, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode()))


def read(path: Path, *, dimension: int, model: str) -> Latent:
    """A latent file's point.

    Args:
        dimension: D of the model it is wanted for, and `model` that model's digest.

    Raises:
        DataError: missing, no latent file, or one of another model.
    """
    with input_errors(path, DataError), path.open("rb") as file:
        text = file.read(FILE_LIMIT_BYTES + 1)
    try:
        plain = json.loads(text) if len(text) <= FILE_LIMIT_BYTES else None
        if not isinstance(plain, dict) or plain.get("kind") != KIND:
            raise ValueError
        values = np.array(plain["values"], dtype=np.float32)
        label, owner = plain["label"], plain["model"]
        if values.ndim != 1 or not np.isfinite(values).all() or not isinstance(label, str | None):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise DataError(f"{path} is no latent file; smalti invert writes them") from None
    if owner != model or len(values) != dimension:
        raise DataError(
            f"{path} is a latent of the model {str(owner)[:12]}, not of {model[:12]}; invert the image with this model"
        )
    return Latent(values, label, owner)
