"""Pictures written as image files, with colour profile, EXIF and XMP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, PngImagePlugin

from smalti.data.animations import Animation
from smalti.data.deep import write_deep
from smalti.data.pictures import Picture, eight_bits
from smalti.errors import ConfigError, DataError, did_you_mean
from smalti.files import output_errors, write_atomically

FORMATS = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}
"""Names of formats by what Pillow calls them. WebP is written lossless, JPEG with quality 95."""
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _INCH = 0x011A, 0x011B, 0x0128, 2  # tags of EXIF
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
        format: one of `FORMATS`. PNG keeps 16 bits, of colours by data/deep.py; WebP and JPEG have 8. WebP has no place
            for the resolution but EXIF, where it is written if EXIF has none.

    Raises:
        DataError: the format cannot hold the picture: JPEG has no alpha.
        OutputError: it cannot be written.
    """
    if format == "jpeg" and picture.pixels.shape[2] == 4:
        raise DataError("JPEG has no alpha; choose png or webp")
    if format == "png" and picture.bit_depth == 16 and picture.pixels.shape[2] > 1:
        data = write_deep(picture.pixels, icc=picture.icc, exif=picture.exif, xmp=picture.xmp, dpi=picture.dpi)
        _write(path, lambda file: file.write(data))
        return
    image, options = picture.to_pil(), picture.info()
    if format != "png" and image.mode == "I;16":
        image = Image.fromarray(eight_bits(picture.pixels[..., 0]))
    xmp = options.get("xmp")
    if format == "png" and xmp:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode("utf-8", "replace"))
        options["pnginfo"] = text
    if format == "webp" and picture.dpi is not None:
        options["exif"] = _with_resolution(picture.exif, picture.dpi)
    options |= _OPTIONS.get(format, {})
    _write(path, lambda file: image.save(file, FORMATS[format], **options))


def save_animation(path: Path, animation: Animation, *, format: str = "png") -> None:
    """Write an animation atomically, without loss: APNG or WebP, with the metadata of its first frame.

    Raises:
        DataError: the format is JPEG, which has no animations.
        OutputError: it cannot be written.
    """
    if format == "jpeg":
        raise DataError("JPEG has no animations; choose png or webp")
    images, options = [frame.to_pil() for frame in animation.frames], animation.frames[0].info()
    if images[0].mode == "I;16":
        images = [replace(frame, pixels=eight_bits(frame.pixels)).to_pil() for frame in animation.frames]
    options.pop("xmp", None)  # Pillow cannot write it into an APNG
    options |= {"duration": list(animation.durations_ms), "loop": animation.loops} | _OPTIONS.get(format, {})
    if format == "webp":
        options["duration"] = [round(duration) for duration in animation.durations_ms]
        images = [image.convert("RGB") if image.mode == "L" else image for image in images]
    _write(path, lambda file: images[0].save(file, FORMATS[format], save_all=True, append_images=images[1:], **options))


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def _with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    found = Image.Exif()
    if exif is not None:
        found.load(exif)
    if _X_RESOLUTION not in found:
        found[_X_RESOLUTION], found[_Y_RESOLUTION], found[_RESOLUTION_UNIT] = *dpi, _INCH
    return found.tobytes()


_OPTIONS: dict[str, dict[str, Any]] = {
    "webp": {"lossless": True, "quality": 100, "exact": True},
    "jpeg": {"quality": 95, "subsampling": 0},
}
