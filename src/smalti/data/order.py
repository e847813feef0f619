"""Shuffling: the order of the training examples as a function of (seed, images seen).

Position p of the training stream is row permutation(seed, p // N)[p % N], so each epoch contains every row once. The
permutation is the stable argsort of the hashes of 0..N-1 (runtime/hashing.py).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import numpy as np

from smalti.runtime.hashing import hash_integer, hashes


class Shuffled(ABC):
    """Base of data sets whose rows are shuffled anew in each epoch; subclasses define the length."""

    def __init__(self) -> None:
        self._permutations: tuple[tuple[tuple[int, int], np.ndarray], ...] = ()
        self._lock = threading.Lock()

    @abstractmethod
    def __len__(self) -> int: ...

    def indices(self, seed: int, images_seen: int, count: int) -> np.ndarray:
        """The rows at positions images_seen .. images_seen + count - 1, (count,) int64."""
        parts = []
        position, end = images_seen, images_seen + count
        while position < end:
            epoch, start = divmod(position, len(self))
            stop = min(len(self), start + end - position)
            parts.append(self._permutation(seed, epoch)[start:stop])
            position += stop - start
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _permutation(self, seed: int, epoch: int) -> np.ndarray:
        """The shuffled order of an epoch. The last two are cached, because a batch may span two epochs."""
        with self._lock:
            for key, order in self._permutations:
                if key == (seed, epoch):
                    return order
            order = permutation(seed, epoch, len(self))
            self._permutations = (*self._permutations[-1:], ((seed, epoch), order))
            return order


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The shuffled order of `count` rows in one epoch: (count,) int64, a permutation of 0..count-1."""
    keys = hashes(hash_integer(hash_integer(seed) ^ hash_integer(2 * epoch)), 0, count)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def evenly_spread(count: int, wanted: int) -> np.ndarray:
    """Indices of `wanted` evenly spaced rows out of `count`, or of all if there are fewer: int64, deterministic."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64)
