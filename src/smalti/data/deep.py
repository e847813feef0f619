"""Colours of 16 bits, which Pillow reads and writes with 8: PNG and TIFF in, PNG out, by the package imagecodecs.

It is the extra `smalti[formats]`. Without it such files are read with 8 bits.
"""

from __future__ import annotations

import importlib
import importlib.util
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from smalti.errors import ConfigError, DataError

NEEDS = "16-bit colours need the package imagecodecs: pip install 'smalti[formats]'"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _PHOTOMETRIC, _PLANAR = 258, 339, 262, 284  # tags of TIFF
_UNSIGNED, _RGB, _CONTIGUOUS = 1, 2, 1


def has_deep_colours(image: Image.Image, data: bytes) -> bool:
    """Whether a file, opened as this image, stores RGB, RGBA or grey with alpha in 16 bits."""
    if image.format == "PNG":
        return data[:8] == _SIGNATURE and data[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06")
    if image.format != "TIFF":
        return False
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, formats = tags.get(_BITS_PER_SAMPLE, ()), tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))
    return (
        tuple(bits) in ((16,) * 3, (16,) * 4)
        and tags.get(_PHOTOMETRIC) == _RGB
        and tags.get(_PLANAR, _CONTIGUOUS) == _CONTIGUOUS
        and set(formats) == {_UNSIGNED}
    )


def can_read_deep() -> bool:
    """Whether imagecodecs is there."""
    return importlib.util.find_spec("imagecodecs") is not None


def read_deep(data: bytes, image: Image.Image) -> np.ndarray:
    """(H, W, 3 or 4) uint16 of a file for which `has_deep_colours` is true, as stored: not turned.

    Args:
        image: the file as Pillow opened it: its size, which the caller has bounded, is the only one taken.

    Raises:
        DataError: it is cut short or damaged.
    """
    codecs: Any = importlib.import_module("imagecodecs")
    try:
        found = codecs.png_decode(data) if image.format == "PNG" else codecs.tiff_decode(data, index=0)
    except Exception as error:  # each format raises its own types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cut short or damaged ({reason})") from error
    found = np.asarray(found)
    if found.ndim == 3 and found.shape[2] == 2:  # grey and alpha
        found = found[..., [0, 0, 0, 1]]
    if found.shape not in ((image.height, image.width, count) for count in (3, 4)) or found.dtype != np.uint16:
        raise DataError(f"holds {found.dtype} pixels of shape {found.shape}, not the 16-bit colours that it declares")
    return found


def write_deep(
    pixels: np.ndarray,
    *,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """A PNG file of (H, W, 3 or 4) uint16 with its metadata.

    Raises:
        ConfigError: imagecodecs is not installed.
    """
    if not can_read_deep():
        raise ConfigError(NEEDS)
    coded: bytes = importlib.import_module("imagecodecs").png_encode(np.ascontiguousarray(pixels))
    chunks = []
    if icc is not None:
        chunks.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    if dpi is not None:
        per_metre = (round(value / 0.0254) for value in dpi)
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if exif is not None:
        chunks.append(_chunk(b"eXIf", exif))
    if xmp is not None:
        chunks.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    header = len(_SIGNATURE) + 25  # IHDR comes first and has 13 bytes of content
    return coded[:header] + b"".join(chunks) + coded[header:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
