"""Symbols that stand for the codes of a VQ-VAE in entropy coding, and their order. Imports no torch.

A plane of up to 4096 codes is one symbol. A larger one is two, because 2^16 frequencies would be too coarse for it and
an output for each code too large: codes get ranks, and the symbols are the two digits of the rank,

    rank = high * low_size(K) + low

Positions are coded in waves x + 2 y = 0, 1, 2, ... A position's neighbours are all in earlier waves, so what is coded
depends on them as in raster order, and a wave's positions can be computed together. In a wave, all first symbols come
before all second ones, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

LARGEST_ALPHABET = 4096
NEIGHBOURS = ((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, -2), (-2, 0))  # (down, right)
ABOVE, LEFT, RIGHT = 2, 2, 1  # how far they reach beyond the grid


def low_size(size: int) -> int:
    """Number of values of the low digit in a plane of this many codes."""
    return 1 << (size - 1).bit_length() // 2 + (size - 1).bit_length() % 2


def symbol_sizes(codebook_sizes: Sequence[int]) -> tuple[int, ...]:
    """Number of values of each symbol of a position, in coding order."""
    sizes: list[int] = []
    for size in codebook_sizes:
        sizes += [size] if size <= LARGEST_ALPHABET else [-(-size // low_size(size)), low_size(size)]
    return tuple(sizes)


def waves(height: int, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of the positions of each wave."""
    for wave in range(width + 2 * height - 2):
        rows = np.arange(max(0, (wave - width + 2) // 2), min(height, wave // 2 + 1))
        if len(rows):
            yield rows, wave - 2 * rows


def code_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks that give similar codes the same high digit: cut in halves again and again, across the longest axis.

    Args:
        values: (K, D) codebook.

    Returns:
        (K,) int64, a permutation.
    """
    centred = values.astype(np.float64) - values.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(values))
    along = centred @ axes
    bits = (len(values) - 1).bit_length()
    order = np.arange(len(values))
    for level in range(bits):
        axis = int(variances.argmax())
        variances[axis] /= 4
        parts = np.arange(len(values)) >> bits - level
        order = order[np.lexsort((along[order, axis], parts))]
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values))
    return ranks
