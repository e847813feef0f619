"""Limits on memory: images held at once, and images in one file."""

from __future__ import annotations

from smalti.errors import ConfigError, arg

PIXEL_LIMIT = 2**28  # pixels in one file; writing it takes a few bytes of memory per pixel
CHUNK, CHUNK_PIXELS = 256, 2**24  # images, and their pixels, held at once when reading from or writing to disk


def together(shape: tuple[int, int, int]) -> int:
    """The number of images of a shape (channels, height, width) to hold in memory at once, at least one."""
    return max(1, min(CHUNK, CHUNK_PIXELS // (shape[1] * shape[2])))


def check_pixels(shape: tuple[int, int, int], count: int, advice: str | None = None) -> None:
    """Check that the images of one file do not exceed the size limit.

    Args:
        shape: (channels, height, width) of an image.
        count: number of images.
        advice: what to do instead, for the message; None: fewer images, or a file for each.

    Raises:
        ConfigError: the file would be too large.
    """
    _, height, width = shape
    if count * height * width <= PIXEL_LIMIT:
        return
    advice = advice or f"fewer, or generate a file for each: an {arg('out')} without .png"
    raise ConfigError(
        f"{count:,} pictures of {height}x{width} are {count * height * width / 1e6:,.0f} million pixels, but one "
        f"file holds at most {PIXEL_LIMIT / 1e6:,.0f} million, {PIXEL_LIMIT // (height * width):,} pictures; draw "
        f"{advice}"
    )
