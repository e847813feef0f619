"""Pictures written as image files, with colour profile, EXIF and XMP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from smalti.data.pictures import Picture
from smalti.errors import ConfigError, DataError, did_you_mean
from smalti.files import output_errors, write_atomically

FORMATS = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}
"""Names of formats by what Pillow calls them. WebP is written lossless, JPEG with quality 95."""
EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpeg", "jpg": "jpeg"}


def format_of(path: Path) -> str:
    """The format that the name of a file asks for.

    Raises:
        ConfigError: it is none of `FORMATS`.
    """
    extension = path.suffix[1:].lower()
    if extension not in EXTENSIONS:
        raise ConfigError(
            f"{path} is no name of a picture file that can be written; {did_you_mean(extension, FORMATS)}"
        )
    return EXTENSIONS[extension]


def save_picture(path: Path, picture: Picture, *, format: str = "png") -> None:
    """Write a picture atomically; missing folders are created.

    Args:
        format: one of `FORMATS`. PNG keeps 16-bit grey; everything else is written with 8 bits.

    Raises:
        DataError: the format cannot hold the picture: JPEG has no alpha.
        OutputError: it cannot be written.
    """
    if format == "jpeg" and picture.pixels.shape[2] == 4:
        raise DataError("JPEG has no alpha; choose png or webp")
    image, options = picture.to_pil(), picture.info()
    if format != "png" and image.mode == "I;16":
        image = Image.fromarray(((picture.pixels[..., 0].astype(np.uint32) + 128) // 257).astype(np.uint8))
    xmp = options.get("xmp")
    if format == "png" and xmp:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode("utf-8", "replace"))
        options["pnginfo"] = text
    options |= _OPTIONS.get(format, {})
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: image.save(file, FORMATS[format], **options))


_OPTIONS: dict[str, dict[str, Any]] = {
    "webp": {"lossless": True, "quality": 100, "exact": True},
    "jpeg": {"quality": 95, "subsampling": 0},
}
