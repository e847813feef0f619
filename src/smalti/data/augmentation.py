"""Translation of images by whole pixels, with reflection padding at the border. Pixels are (N, H, W, C) uint8."""

from __future__ import annotations

import numpy as np


def moved(pixels: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Translate each image by its own offset.

    Args:
        pixels: (N, H, W, C) uint8.
        offsets: (N, 2) int64 (dy, dx), smaller than the sides: output pixel (y, x) is input pixel (y + dy, x + dx).

    Returns:
        The same shape; positions outside the image are reflected back into it.
    """
    count, height, width, _ = pixels.shape
    return gathered(pixels, mirrored(height, offsets[:, 0]), mirrored(width, offsets[:, 1])) if count else pixels


def mirrored(side: int, offsets: np.ndarray) -> np.ndarray:
    """(N,) offsets -> (N, side): positions 0..side-1 plus the offset, reflected at the borders of the image."""
    last = side - 1
    positions: np.ndarray = last - np.abs(last - np.abs(np.arange(side) + offsets[:, None]))
    return positions


def gathered(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Select rows (N, H) and columns (N, W) of each image."""
    # Viewing each pixel as a single item is several times faster than gathering each channel.
    items = np.ascontiguousarray(pixels).view(f"V{pixels.shape[3]}")[..., 0]
    chosen: np.ndarray = items[np.arange(len(pixels))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return chosen.view(np.uint8).reshape(pixels.shape)
