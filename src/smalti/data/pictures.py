"""Pictures with what belongs to them: pixels in 8 or 16 bits, colour profile, EXIF, XMP and resolution.

The orientation is applied to the pixels and removed from EXIF and XMP, so that nobody applies it twice. The pixels of a
CMYK file with a colour profile become sRGB by that profile. A profile for another colour space than the pixels have is
dropped. 16 bits stay 16 bits: of grey, and of colours where imagecodecs is installed (deep.py). All other pixels follow
the rules of images.py.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from smalti.data.archives import bytes_of
from smalti.data.deep import can_read_deep, has_deep_colours, read_deep
from smalti.data.image_files import PIXEL_LIMIT, opened, orientation_of, unopened
from smalti.data.images import ImageLike, to_array
from smalti.errors import DataError

_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N")
_EXIF_START = b"Exif\0\0"  # Pillow has it before the EXIF itself, as JPEG does
_ORIENTATION = 0x0112
_X_RESOLUTION = 0x011A
_ORIENTATION_IN_XMP = re.compile(rb'\s?tiff:Orientation="[0-9]"|<tiff:Orientation>[0-9]</tiff:Orientation>')


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture.

    Attributes:
        pixels: (H, W, C) uint8 or uint16, C = 1, 3 or 4.
        icc, xmp: their bytes, or None.
        exif: a TIFF header and what follows, or None.
        dpi: pixels per inch from left to right and from top to bottom, or None.
        rounded: whether the file has 16-bit colours that were read with 8 bits, as imagecodecs is missing.
    """

    pixels: np.ndarray
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    rounded: bool = False

    @property
    def bit_depth(self) -> int:
        """8 or 16."""
        return 8 * self.pixels.dtype.itemsize

    @property
    def bare(self) -> bool:
        """Whether it has no profile, EXIF or XMP."""
        return not (self.icc or self.exif or self.xmp)

    def to_pil(self) -> Image.Image:
        """As a Pillow image, with the metadata in `info`; colours of 16 bits are rounded to 8."""
        pixels = self.pixels
        if pixels.dtype == np.uint16 and pixels.shape[2] != 1:
            pixels = eight_bits(pixels)
        image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
        image.info.update(self.info())
        return image

    def info(self) -> dict[str, Any]:
        """The metadata by Pillow's names."""
        exif = self.exif and _EXIF_START + self.exif.removeprefix(_EXIF_START)
        found = {"icc_profile": self.icc, "exif": exif, "xmp": self.xmp, "dpi": self.dpi}
        return {name: value for name, value in found.items() if value}


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Pixels of uint16 rounded to uint8; those of uint8 as they are."""
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


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
        return _from_file(image, metadata, pixel_limit)
    try:
        return _from_file(bytes_of(Path(os.fspath(image))), metadata, pixel_limit)
    except DataError as error:
        raise DataError(f"{os.fspath(image)}: {error.message}") from error


def _from_file(data: bytes, metadata: bool, pixel_limit: int) -> Picture:
    with unopened(data, pixel_limit) as header:
        deep = has_deep_colours(header, data)
        if deep and can_read_deep():
            orientation = orientation_of(header)
            return _with_metadata(_turned(read_deep(data, header), orientation), header, metadata)
    with opened(data, pixel_limit) as image:
        picture = _from_pil(image, metadata)
        return replace(picture, rounded=True) if deep else picture


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels upright, by the meaning of EXIF's orientation."""
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(pixels, turns))


def _from_pil(image: Image.Image, metadata: bool) -> Picture:
    if image.mode in _DEEP_GREY and image.width and image.height:
        pixels = np.array(ImageOps.exif_transpose(image)).astype(np.uint16)[..., None]
    elif image.mode == "CMYK" and image.info.get("icc_profile"):
        pixels = to_array(_by_profile(image))
    else:
        pixels = to_array(image)
    return _with_metadata(pixels, image, metadata)


def _by_profile(image: Image.Image) -> Image.Image:
    """A CMYK image as sRGB by its own profile, or unchanged if the profile is of no use."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        found = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    assert found is not None  # only where a result is changed in place
    return found


def _with_metadata(pixels: np.ndarray, image: Image.Image, metadata: bool) -> Picture:
    if not metadata:
        return Picture(pixels)
    found = [image.info.get(name) for name in ("icc_profile", "exif", "xmp")]
    icc, exif, xmp = (bytes(value) if isinstance(value, bytes) and value else None for value in found)
    if icc is not None and icc[16:20] != (b"GRAY" if pixels.shape[2] == 1 else b"RGB "):
        icc = None
    xmp = xmp and _ORIENTATION_IN_XMP.sub(b"", xmp)
    return Picture(pixels, icc, exif and _without_orientation(exif), xmp, _dpi(image))


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    """The resolution, if it makes sense: some programs write zeros, and TIFF has fractions that are not numbers."""
    if "jfif_unit" in image.info and image.info["jfif_unit"] == 0 and _X_RESOLUTION not in image.getexif():
        return None  # Pillow makes up 72
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return (across, down) if 1 < across <= 1e5 and 1 < down <= 1e5 else None


def _without_orientation(data: bytes) -> bytes | None:
    """EXIF as `Picture.exif`; None if nothing else than an orientation is in it, or it cannot be read."""
    exif = Image.Exif()
    try:
        exif.load(data)
        exif.pop(_ORIENTATION, None)
        return exif.tobytes().removeprefix(_EXIF_START) if len(exif) or exif.get_ifd(0x8769) else None
    except Exception:  # Pillow raises almost any type on damaged EXIF, which is not worth losing a picture for
        return None
