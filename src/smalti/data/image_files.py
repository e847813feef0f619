"""Opening image files with Pillow: sizes bounded before anything is decoded, and one kind of error for all damage."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from smalti.data.archives import bytes_of
from smalti.errors import DataError

PIXEL_LIMIT = 64 * 2**20
"""Images that declare more pixels than this are refused before decoding: a few bytes can declare gigabytes."""

_ORIENTATION = 0x0112

# warnings.catch_warnings changes global state, so only one thread at a time may use it.
_warnings_lock = threading.Lock()


@contextlib.contextmanager
def opened(data: bytes | Path, pixel_limit: int = PIXEL_LIMIT) -> Iterator[Image.Image]:
    """A file as a Pillow image with its metadata, loaded and turned upright.

    Raises:
        DataError: the file is not an image, or is truncated, damaged or too large.
    """
    with unopened(data, pixel_limit) as image:
        yield loaded(image)


def unopened(data: bytes | Path, pixel_limit: int) -> Image.Image:
    """Open an image by its header, without decoding the pixels, and refuse it if it is too large."""
    contents = io.BytesIO(bytes_of(data))
    try:
        with _warnings_lock, warnings.catch_warnings(), _pillow_limit(pixel_limit):
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(contents)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"declares more than {pixel_limit:,} pixels; shrink it first") from error
    except Exception as error:  # Pillow raises almost any type on a damaged header
        raise DataError(_reason(error, "not an image, or its header is damaged")) from error
    width, height = image.size
    if width * height > pixel_limit:
        image.close()
        raise DataError(f"declares {height}x{width} pixels, the limit is {pixel_limit:,}; shrink it first")
    return image


@contextlib.contextmanager
def _pillow_limit(pixels: int) -> Iterator[None]:
    """Pillow's own limit raised where more was asked for; the caller holds the lock."""
    before = Image.MAX_IMAGE_PIXELS
    if before is not None and pixels > before:
        Image.MAX_IMAGE_PIXELS = None  # the caller compares the size itself
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def loaded(image: Image.Image, *, copy: bool = False) -> Image.Image:
    """Decode the pixels and apply the EXIF orientation, in place or to a copy.

    Raises:
        DataError: the file is cut short or damaged.
    """
    try:
        image.load()
        if copy:
            return ImageOps.exif_transpose(image)
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # as above: every format raises its own types
        raise DataError(_reason(error, "cut short or damaged")) from error
    return image


def _reason(error: Exception, what: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        return what
    return f"{what} ({' '.join(str(error).split()) or type(error).__name__})"


def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 is upright."""
    # PngImageFile.getexif decodes the whole image in search of a late eXIf chunk; an early one is already in info.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF: assume no rotation; decoding will show whether the file is usable
        return 1
