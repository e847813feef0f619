"""Applying a network to a picture of any size in tiles.

A tile is given to the network with as many pixels around it as the network sees, and only its own part of the result is
kept: the result is that of the whole picture, up to rounding, whatever the tiles are. Tiles begin at multiples of what
the network pads its inputs to. Only one tile is in memory as floats; if it does not fit, tiles become half as large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from smalti.errors import ConfigError, arg
from smalti.runtime.pixels import to_pixels, to_tensor

TILE = 768  # pixels a side: larger ones look less at the pixels around them, but leave the cache
SMALLEST_TILE = 32

Work = Callable[[Tensor, Tensor | None], Tensor]


def spans(size: int, tile: int, reach: int, multiple: int) -> Iterator[tuple[int, int, int, int]]:
    """(begin, end, first, last) along one side: the part begin..end of a tile, of which first..last is looked at."""
    tile, halo = _up(tile, multiple), _up(reach, multiple)
    for begin in range(0, size, tile):
        end = min(size, begin + tile)
        yield begin, end, max(0, begin - halo), min(size, end + halo)


def apply_tiled(
    work: Work,
    picture: np.ndarray,
    hole: np.ndarray | None = None,
    *,
    scale: int,
    reach: int,
    multiple: int,
    tile: int | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Apply a network to a picture.

    Args:
        work: (1, C, H, W) in [-1, 1] and (1, 1, H, W) or None -> (1, C, scale H, scale W).
        picture: (H, W, C) uint8 or uint16.
        hole: (H, W) bool, true where pixels are missing.
        scale, reach, multiple: of the network, see models/restorer/restorer.py.
        tile: side of a tile in pixels; None: `TILE`, halved while memory does not suffice.

    Returns:
        (scale H, scale W, C) of the picture's type, rounded and clipped.

    Raises:
        ConfigError: the tile is too small; or memory does not even suffice for the smallest one.
    """
    if tile is not None and tile < SMALLEST_TILE:
        raise ConfigError(f"{arg('tile')} is {tile}, but must be at least {SMALLEST_TILE}")
    height, width, channels = picture.shape
    bit_depth = 8 * picture.dtype.itemsize
    found = np.empty((scale * height, scale * width, channels), picture.dtype)
    side = tile or TILE

    def run(rows: tuple[int, int, int, int], columns: tuple[int, int, int, int]) -> None:
        (y0, y1, above, below), (x0, x1, left, right) = rows, columns
        mask = None
        if hole is not None:
            mask = torch.from_numpy(hole[above:below, left:right].astype(np.float32)).to(device)[None, None]
        result = work(to_tensor(picture[None, above:below, left:right], device), mask)
        own = result[:, :, scale * (y0 - above) : scale * (y1 - above), scale * (x0 - left) : scale * (x1 - left)]
        found[scale * y0 : scale * y1, scale * x0 : scale * x1] = to_pixels(own, bit_depth=bit_depth)[0]

    while True:
        try:
            for rows in spans(height, side, reach, multiple):
                for columns in spans(width, side, reach, multiple):
                    run(rows, columns)
            return found
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if tile is not None or side // 2 < SMALLEST_TILE:
                raise ConfigError(
                    f"memory does not suffice for tiles of {side} pixels; give a smaller {arg('tile')}"
                    if tile is not None
                    else f"memory does not suffice for a tile of {side} pixels and what the network sees around it"
                ) from None
            side //= 2


def _out_of_memory(error: BaseException) -> bool:
    """torch reports a processor's lack of memory as a RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
