"""Rate-distortion curves: points (bytes an image, PSNR in dB), by bytes.

bytes at a PSNR    the logarithm of the bytes is interpolated linearly in dB
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

Curve: TypeAlias = list[tuple[float, float]]


def frontier(points: Sequence[tuple[float, float]]) -> Curve:
    """The points that no other one beats in bytes and in PSNR, by bytes."""
    best: Curve = []
    for size, psnr in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or psnr > best[-1][1]:
            best.append((size, psnr))
    return best


def bytes_at(curve: Sequence[tuple[float, float]], psnr: float) -> float | None:
    """Bytes an image at a PSNR; None outside of the curve, which is one of `frontier`."""
    for (small, low), (large, high) in itertools.pairwise(curve):
        if low <= psnr <= high:
            share = (psnr - low) / (high - low)
            return math.exp((1 - share) * math.log(small) + share * math.log(large))
    return None


def psnr_at(curve: Sequence[tuple[float, float]], size: float) -> float | None:
    """PSNR at so many bytes an image, the inverse of `bytes_at`; None outside of the curve."""
    for (small, low), (large, high) in itertools.pairwise(curve):
        if small <= size <= large:
            share = math.log(size / small) / math.log(large / small)
            return (1 - share) * low + share * high
    return None
