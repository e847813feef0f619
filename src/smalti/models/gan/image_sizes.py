"""Which image sizes a network reaches from a coarse grid by doubling: 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, ..."""

from __future__ import annotations

from smalti.errors import ConfigError, arg

SHORTEST = 16  # side of an image
COARSEST = range(4, 8)  # shorter side of the grid
LISTED = 256  # the longest side that a message lists; longer ones follow the same rule


def doublings(height: int, width: int) -> tuple[int, tuple[int, int]]:
    """How often a grid is doubled on the way to images of a size, and the grid, whose shorter side is 4 to 7.

    Raises:
        ConfigError: no doubling leads there; the message names the nearest size that can be reached.
    """
    count = _count(min(height, width))
    if min(height, width) < SHORTEST:
        problem = f"are smaller than {SHORTEST} pixels along a side"
    elif height % 2**count or width % 2**count:
        problem = "cannot be reached by doubling a grid whose shorter side is 4 to 7"
    else:
        return count, (height >> count, width >> count)
    reached = sorted(side << k for side in COARSEST for k in range(2, 7) if side << k <= LISTED)
    raise ConfigError(
        f"images of {height}x{width} {problem}; shorter sides that can be reached are "
        f"{', '.join(map(str, reached))}, ...; give for example {arg('size', _nearest(height, width))}"
    )


def _count(side: int) -> int:
    """Halvings after which a side is less than 8."""
    return max(2, (side // 8).bit_length())


def _nearest(height: int, width: int) -> str:
    """As on the command line. The shorter side comes first, because it decides which longer ones are reached."""
    shorter = _rounded(max(min(height, width), SHORTEST), min(height, width))
    return f"{_rounded(max(height, SHORTEST), shorter)}x{_rounded(max(width, SHORTEST), shorter)}"


def _rounded(side: int, shorter: int) -> int:
    """To the nearest side that is reached where the shorter one is about `shorter`."""
    unit = 2 ** _count(shorter)
    return (side + unit // 2) // unit * unit
