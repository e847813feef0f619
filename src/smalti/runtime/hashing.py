"""splitmix64, the hash behind every order and every seed. Knows no torch.

Source: Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195. Everything is integer arithmetic modulo 2^64, so the
numbers depend on neither the machine nor the version of numpy.
"""

from __future__ import annotations

import numpy as np

MASK = 2**64 - 1
STEP = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio


def finalize(state: np.ndarray) -> np.ndarray:
    """The output function, for each of any number of uint64 states: a bijection that mixes every bit. In place."""
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def hashes(stream: int, start: int, count: int) -> np.ndarray:
    """Outputs start .. start + count - 1 of the generator begun at `stream`: (count,) uint64, all distinct."""
    state = np.arange(count, dtype=np.uint64)
    state *= np.uint64(STEP)
    state += np.uint64((stream + STEP * (start + 1)) & MASK)
    return finalize(state)


def hash_words(words: np.ndarray) -> np.ndarray:
    """The first output of a generator begun at each of the words, uint64 of any shape; 0 does not stay 0."""
    return finalize(words + np.uint64(STEP))


def hash_integer(value: int) -> int:
    """`hash_words` of one Python integer, taken modulo 2^64."""
    return int(hashes(value, 0, 1)[0])
