"""The order in which a training sees what it learns from: a function of (seed, images seen).

Position p in the stream of a training shows row permutation(seed, p // N)[p % N]: each epoch shows every row once. The
hash is splitmix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195) in 64-bit integers; the permutation is the
stable order of the hashes of 0..N-1. Neither depends on the version of numpy.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import numpy as np

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Shuffled(ABC):
    """Rows that a training sees in the order of its seed; whoever inherits it has a length."""

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
        """The order of an epoch; the last two are kept, since a batch may lie across two."""
        with self._lock:
            for key, order in self._permutations:
                if key == (seed, epoch):
                    return order
            order = permutation(seed, epoch, len(self))
            self._permutations = (*self._permutations[-1:], ((seed, epoch), order))
            return order


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Order of `count` images in one epoch: (count,) int64 with each of 0..count-1 once."""
    keys = hashes(mix(mix(seed & _MASK) ^ mix((2 * epoch) & _MASK)), 0, count)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def hashes(stream: int, start: int, count: int) -> np.ndarray:
    """Outputs start .. start + count - 1 of splitmix64 begun at `stream`; distinct, as each step is invertible."""
    state = np.arange(count, dtype=np.uint64)
    state *= np.uint64(_GOLDEN)
    state += np.uint64((stream + _GOLDEN * (start + 1)) & _MASK)
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def mix(value: int) -> int:
    """One step of splitmix64 on a Python integer."""
    return int(hashes(value, 0, 1)[0])
