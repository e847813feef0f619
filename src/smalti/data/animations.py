"""Animated pictures, frame by frame: GIF, APNG and WebP. Pages of a TIFF are no animation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from smalti.data.image_files import PIXEL_LIMIT, unopened
from smalti.data.pictures import Picture, read_picture
from smalti.errors import DataError

_FORMATS = ("GIF", "PNG", "WEBP")


@dataclass(frozen=True, eq=False)
class Animation:
    """Whole frames, which are shown one after the other.

    Attributes:
        frames: all of the same size and with the same channels.
        durations_ms: how long each is shown.
        loops: how often all are shown; 0: forever.
    """

    frames: tuple[Picture, ...]
    durations_ms: tuple[float, ...]
    loops: int

    def each(self, work: Callable[[Picture], Picture]) -> Animation:
        """The same with other frames."""
        return replace(self, frames=tuple(work(frame) for frame in self.frames))


def read_animation(data: bytes, *, pixel_limit: int = PIXEL_LIMIT) -> Animation | None:
    """The frames of an image file, or None if it holds a single picture.

    Args:
        pixel_limit: files whose frames together have more pixels are refused before decoding.

    Raises:
        DataError: it cannot be read, or is too large.
    """
    with unopened(data, pixel_limit) as image:
        count = int(getattr(image, "n_frames", 1)) if image.format in _FORMATS else 1
        if count < 2:
            return None
        if count * image.width * image.height > pixel_limit:
            raise DataError(
                f"has {count:,} frames of {image.height}x{image.width} pixels, the limit for all of them is "
                f"{pixel_limit:,}; shrink or cut it first"
            )
        # A picture for programs that show no animations may come before the frames of an APNG.
        first = 1 if image.info.get("default_image") else 0
        frames, durations = [], []
        for number in range(first, count):
            try:
                image.seek(number)
                frames.append(_frame(image, metadata=number == first))
            except (DataError, OSError, ValueError, SyntaxError, EOFError) as error:
                raise DataError(f"frame {number} is cut short or damaged") from error
            durations.append(float(image.info.get("duration") or 0))
        loops = image.info.get("loop", 1)
    most = max(frame.pixels.shape[2] for frame in frames)
    return Animation(tuple(_with_channels(frame, most) for frame in frames), tuple(durations), int(loops))


def _frame(image: Image.Image, *, metadata: bool) -> Picture:
    """The frame that an image is at; metadata belong to the whole file, so the first frame has them."""
    return read_picture(image.copy(), metadata=metadata)


def _with_channels(frame: Picture, channels: int) -> Picture:
    """Grey is repeated, and opaque frames get the alpha that others have."""
    pixels = frame.pixels
    if pixels.shape[2] == 1 and channels > 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 3 and channels == 4:
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=2)
    return replace(frame, pixels=pixels)
