"""Pictures with what belongs to them: pixels in 8 or 16 bits, colour profile, EXIF and XMP.

The orientation is applied to the pixels and removed from EXIF and XMP, so that nobody applies it twice. A colour
profile for another colour space than the pixels have (that of a CMYK file, whose pixels become RGB) is dropped. 16-bit
grey stays 16-bit; all other pixels follow the rules of images.py.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from smalti.data.images import PIXEL_LIMIT, ImageLike, opened, to_array
from smalti.errors import DataError

_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N")
_EXIF_START = b"Exif\0\0"  # Pillow has it before the EXIF itself, as JPEG does
_ORIENTATION = 0x0112
_ORIENTATION_IN_XMP = re.compile(rb'\s?tiff:Orientation="[0-9]"|<tiff:Orientation>[0-9]</tiff:Orientation>')


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture.

    Attributes:
        pixels: (H, W, C) uint8 or uint16, C = 1, 3 or 4.
        icc, xmp: their bytes, or None.
        exif: a TIFF header and what follows, or None.
    """

    pixels: np.ndarray
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    @property
    def bit_depth(self) -> int:
        """8 or 16."""
        return 8 * self.pixels.dtype.itemsize

    def to_pil(self) -> Image.Image:
        """As a Pillow image, with the metadata in `info`; colours of 16 bits are rounded to 8."""
        pixels = self.pixels
        if pixels.dtype == np.uint16 and pixels.shape[2] != 1:
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
        image.info.update(self.info())
        return image

    def info(self) -> dict[str, Any]:
        """The metadata by Pillow's names."""
        exif = self.exif and _EXIF_START + self.exif.removeprefix(_EXIF_START)
        found = {"icc_profile": self.icc, "exif": exif, "xmp": self.xmp}
        return {name: value for name, value in found.items() if value}


def read_picture(
    image: ImageLike | bytes | Picture, *, metadata: bool = True, pixel_limit: int = PIXEL_LIMIT
) -> Picture:
    """Read a picture in any of its usual Python forms.

    Args:
        image: a path, the bytes of an image file, a Pillow image, an array (H, W) or (H, W, C) of uint8 or uint16, or a
            picture.
        metadata: keep colour profile, EXIF and XMP.
        pixel_limit: files with more pixels are refused before decoding.

    Raises:
        DataError: it cannot be read, or is no picture.
    """
    if isinstance(image, Picture):
        return image if metadata else Picture(image.pixels)
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint16 and image.ndim in (2, 3) and image.size:
            deep = image[..., None] if image.ndim == 2 else image
            if deep.shape[2] in (1, 3, 4):
                return Picture(deep)
        return Picture(to_array(image))
    if isinstance(image, Image.Image):
        return _from_pil(image, metadata)
    if isinstance(image, bytes):
        with opened(image, pixel_limit) as loaded:
            return _from_pil(loaded, metadata)
    try:
        with opened(Path(os.fspath(image)), pixel_limit) as loaded:
            return _from_pil(loaded, metadata)
    except DataError as error:
        raise DataError(f"{os.fspath(image)}: {error.message}") from error


def _from_pil(image: Image.Image, metadata: bool) -> Picture:
    if image.mode in _DEEP_GREY and image.width and image.height:
        pixels = np.array(ImageOps.exif_transpose(image)).astype(np.uint16)[..., None]
    else:
        pixels = to_array(image)
    if not metadata:
        return Picture(pixels)
    found = [image.info.get(name) for name in ("icc_profile", "exif", "xmp")]
    icc, exif, xmp = (bytes(value) if isinstance(value, bytes) and value else None for value in found)
    if icc is not None and icc[16:20] != (b"GRAY" if pixels.shape[2] == 1 else b"RGB "):
        icc = None
    return Picture(pixels, icc, exif and _without_orientation(exif), xmp and _ORIENTATION_IN_XMP.sub(b"", xmp))


def _without_orientation(data: bytes) -> bytes | None:
    """EXIF as `Picture.exif`; None if nothing else than an orientation is in it, or it cannot be read."""
    exif = Image.Exif()
    try:
        exif.load(data)
        exif.pop(_ORIENTATION, None)
        return exif.tobytes().removeprefix(_EXIF_START) if len(exif) or exif.get_ifd(0x8769) else None
    except Exception:  # Pillow raises almost any type on damaged EXIF, which is not worth losing a picture for
        return None
