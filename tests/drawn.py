"""Pictures in files as arrays: frames that move, grids with their padding, single ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence


def frames_of(path: str | Path, mode: str = "RGB") -> np.ndarray:
    """(frames, H, W, C) of an animation, or of a single picture."""
    with Image.open(path) as opened:
        found = [np.asarray(frame.convert(mode)) for frame in ImageSequence.Iterator(opened)]
    return np.stack(found).reshape(*np.shape(found)[:3], -1)


def tiles_of(path: str, columns: int, *, side: int = 16, padding: int = 2) -> np.ndarray:
    """The pictures of a grid, (rows, columns, side, side, C)."""
    with Image.open(path) as opened:
        sheet = np.asarray(opened)[padding:, padding:]
    rows = sheet.shape[0] // (side + padding)
    assert sheet.shape[:2] == (rows * (side + padding), columns * (side + padding))
    cells = sheet.reshape(rows, side + padding, columns, side + padding, -1)
    return cells.transpose(0, 2, 1, 3, 4)[:, :, :side, :side]


def apart(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference: batches of different shapes may differ in the last bit, and so may their pixels by 1."""
    assert a.shape == b.shape
    return int(abs(a.astype(int) - b.astype(int)).max())


def save(image: np.ndarray, path: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path
