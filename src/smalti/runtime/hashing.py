"""splitmix64, the hash that all shuffling and seeding is based on. Does not import torch.

Source: Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195. All arithmetic is on integers modulo 2^64, so the
results depend neither on the machine nor on the version of numpy.
"""

from __future__ import annotations

import numpy as np

MASK = 2**64 - 1
STEP = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio


def finalize(state: np.ndarray) -> np.ndarray:
    """The output function of splitmix64, a bijection that mixes all bits; applied to uint64 states in place."""
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def hashes(stream: int, start: int, count: int) -> np.ndarray:
    """Outputs start .. start + count - 1 of the generator with initial state `stream`: (count,) uint64, distinct."""
    state = np.arange(count, dtype=np.uint64)
    state *= np.uint64(STEP)
    state += np.uint64((stream + STEP * (start + 1)) & MASK)
    return finalize(state)


def hash_words(words: np.ndarray) -> np.ndarray:
    """The first output of the generator for each initial state, uint64 of any shape; 0 does not map to 0."""
    return finalize(words + np.uint64(STEP))


def hash_integer(value: int) -> int:
    """`hash_words` of one Python integer, taken modulo 2^64."""
    return int(hashes(value, 0, 1)[0])
