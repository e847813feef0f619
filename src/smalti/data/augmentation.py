"""Images moved by whole pixels; what leaves on one side comes back mirrored on the other. Pixels are (N, H, W, C)."""

from __future__ import annotations

import numpy as np


def moved(pixels: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Each image moved by its own offset.

    Args:
        pixels: (N, H, W, C) uint8.
        offsets: (N, 2) int64, rows and columns to look further on, smaller than the sides.

    Returns:
        The same shape; pixels from beyond the border are those as far inside of it.
    """
    count, height, width, _ = pixels.shape
    return gathered(pixels, mirrored(height, offsets[:, 0]), mirrored(width, offsets[:, 1])) if count else pixels


def mirrored(side: int, offsets: np.ndarray) -> np.ndarray:
    """(N,) -> (N, side): the places 0..side-1, moved and reflected back where they leave the image."""
    last = side - 1
    return last - np.abs(last - np.abs(np.arange(side) + offsets[:, None]))


def gathered(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Each image made of its own rows (N, H) and columns (N, W)."""
    # Whole pixels are copied as one item: several times faster than gathering each channel.
    items = np.ascontiguousarray(pixels).view(f"V{pixels.shape[3]}")[..., 0]
    chosen = items[np.arange(len(pixels))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return chosen.view(np.uint8).reshape(pixels.shape)
