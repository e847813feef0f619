"""Convert image files, Pillow images and arrays to pixels and back: uint8, height x width x channels, sRGB as stored.

The rules are the same for every input:

    orientation    the EXIF orientation is applied
    palette        converted to RGB, or to RGBA if the palette has transparent colours
    transparent    a grey level or colour declared transparent (PNG tRNS, GIF) becomes alpha 0
    CMYK, YCbCr, LAB, HSV   converted to RGB
    premultiplied  (modes RGBa and La) divided by alpha, then treated like RGBA and LA
    bilevel        0 and 255
    16-bit grey    v / 257, rounded (65535 -> 255)
    32-bit grey    clipped to [0, 65535], then the same
    float grey     values in [0, 1] are multiplied by 255, values in [0, 255] rounded, anything else is refused
    to 1 channel   luma = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), after compositing alpha over white
    to 3 channels  grey is repeated; alpha is composited over white
    to 4 channels  alpha 255 is added to opaque images
    animation      the first frame

Resizing is Lanczos with antialiasing; colours are weighted by their alpha. An image that already has the requested size
is left untouched.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from smalti.data.image_files import PIXEL_LIMIT, loaded, orientation_of, unopened
from smalti.errors import ConfigError, DataError, did_you_mean

ImageLike = Image.Image | str | os.PathLike[str] | np.ndarray
"""What `to_array` accepts: a Pillow image, the path of an image file, or a uint8 array."""

Frame = tuple[float, float, float, float]
RESIZE_RULES = ("cover", "contain", "stretch", "crop")
_GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_TURNED_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass(frozen=True)
class Probe:
    """The header of an image file: size in pixels after applying the EXIF orientation, Pillow's mode, transparency."""

    width: int
    height: int
    mode: str
    transparent: bool

    @property
    def grey(self) -> bool:
        return self.mode in _GREY_MODES


def decode(
    data: bytes | Path,
    *,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    resize: str = "cover",
    pixel_limit: int = PIXEL_LIMIT,
) -> np.ndarray:
    """Decode an image file to pixels.

    Args:
        data: the contents of the file, or its path.
        channels: 1, 3 or 4; None keeps what the image has: 4 if any pixel is transparent, else 1 for grey, else 3.
        size: (height, width) in pixels to resize to; None keeps the size.
        resize: "cover" fills the size and crops the centre, "contain" fits inside it and pads (white, or
            transparent with 4 channels), "stretch" ignores the aspect ratio, "crop" keeps the resolution: the centre
            of the image, turned by a quarter if it then fits better, and scaled up only if it is too small.
        pixel_limit: images with more pixels are refused before decoding.

    Returns:
        (H, W, C) uint8, writable.

    Raises:
        DataError: the file is not an image, or is truncated, damaged or too large.
        ConfigError: `channels` or `resize` is unknown.
    """
    check_options(channels=channels, resize=resize)
    frame = None
    with unopened(data, pixel_limit) as image:
        if size is not None and image.format == "JPEG" and resize != "crop":
            frame = _draft(image, size, resize)
        whole = loaded(image)
    picture = convert(whole, channels or _channels_of(whole))
    if size is not None:
        picture = fit(picture, size, resize=resize, frame=frame)
    return as_array(picture)


def to_array(image: ImageLike, *, channels: int | None = None) -> np.ndarray:
    """Convert an image in any of its usual Python forms to pixels, by the rules at the top of this file.

    Args:
        image: a Pillow image of any mode (its current frame; it is not modified), the path of an image file, or a
            uint8 array (H, W) or (H, W, C) with C = 1, 3 or 4.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA). None keeps what the image has: 1 for grey, 4 if any pixel of a file
            or Pillow image is transparent, else 3; an array keeps its own.

    Returns:
        (H, W, C) uint8, a writable copy.

    Raises:
        DataError: the file cannot be read or is damaged, or a rule refuses the pixels: float values outside
            [0, 255], an array of another dtype or shape, an image without pixels, an object of another type.
        ConfigError: `channels` is not 1, 3, 4 or None.
    """
    check_options(channels=channels, resize="cover")
    if isinstance(image, str | os.PathLike):
        try:
            return decode(Path(image), channels=channels)
        except DataError as error:
            raise DataError(f"{os.fspath(image)}: {error.message}") from error
    if isinstance(image, np.ndarray):
        picture = as_image(image)
        channels = channels or (1 if image.ndim == 2 else image.shape[2])
    elif isinstance(image, Image.Image):
        _check_not_empty(image.size)
        picture = loaded(image, copy=True)
        channels = channels or _channels_of(picture)
    else:
        raise DataError(
            f"image is a {type(image).__name__}; expected a Pillow image, a path, or a uint8 array (height, width) or "
            "(height, width, 1, 3 or 4 channels)"
        )
    return as_array(convert(picture, channels))


def probe(data: bytes | Path, *, pixel_limit: int = PIXEL_LIMIT, look_at_alpha: bool = False) -> Probe:
    """Read the size and mode of an image file from its header.

    Args:
        data: the contents of the file, or its path.
        pixel_limit: images with more pixels are refused.
        look_at_alpha: decode images with an alpha channel to find out whether any pixel is transparent. Otherwise
            `transparent` only means that there is such a channel.

    Raises:
        DataError: the file is not an image, or is too large.
    """
    with unopened(data, pixel_limit) as image:
        width, height = image.size
        if orientation_of(image) in _TURNED_SIDEWAYS:
            width, height = height, width
        mode = image.mode
        transparent = image.has_transparency_data
        if transparent and look_at_alpha:
            transparent = _is_transparent(loaded(image))
        return Probe(width, height, mode, transparent)


def convert(image: Image.Image, channels: int) -> Image.Image:
    """Convert a Pillow image to mode L, RGB or RGBA by the rules at the top of this file.

    Raises:
        DataError: float pixels outside [0, 255], or a colour space that Pillow cannot convert to RGB.
    """
    if image.mode not in ("L", "RGB", "RGBA") or "transparency" in image.info:
        image = _plain(image)
    if channels == 4:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def fit(image: Image.Image, size: tuple[int, int], *, resize: str = "cover", frame: Frame | None = None) -> Image.Image:
    """Resize an image of mode L, RGB or RGBA; an image that already has the size is returned unchanged.

    Pillow weights colours by alpha when it resizes RGBA, so transparent pixels do not bleed into their neighbours.

    Args:
        image: mode L, RGB or RGBA.
        size: (height, width) in pixels.
        resize: "cover", "contain", "stretch" or "crop".
        frame: (left, top, right, bottom) of the region to use, in fractional pixels; None means the whole image.
    """
    height, width = size
    if image.size == (width, height) and frame is None:
        return image
    left, top, right, bottom = frame or (0, 0, image.width, image.height)
    wide, high = right - left, bottom - top
    if resize == "contain":
        scale = min(width / wide, height / high)
        inside = (max(1, round(wide * scale)), max(1, round(high * scale)))
        scaled = image.resize(inside, Image.Resampling.LANCZOS, box=frame)
        padded = Image.new(image.mode, (width, height), (0, 0, 0, 0) if image.mode == "RGBA" else "white")
        padded.paste(scaled, (round((width - inside[0]) / 2), round((height - inside[1]) / 2)))
        return padded
    if resize == "crop":
        if (image.width < image.height) != (width < height) and width != height:
            image = image.transpose(Image.Transpose.ROTATE_90)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        if min(left, top) < 0:
            return fit(image, size, resize="cover")
        return image.crop((left, top, left + width, top + height))
    if resize == "cover":
        kept_wide, kept_high = min(wide, high * width / height), min(high, wide * height / width)
        left, top = left + (wide - kept_wide) / 2, top + (high - kept_high) / 2
        right, bottom = min(left + kept_wide, right), min(top + kept_high, bottom)
    return image.resize((width, height), Image.Resampling.LANCZOS, box=(left, top, right, bottom))


def as_array(image: Image.Image) -> np.ndarray:
    """Convert an image of mode L, RGB or RGBA to a writable (H, W, C) uint8 array."""
    array = np.array(image, dtype=np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def as_image(array: np.ndarray) -> Image.Image:
    """Convert (H, W, C) uint8 with C = 1, 3 or 4, or (H, W), to a Pillow image of mode L, RGB or RGBA.

    Raises:
        DataError: the array has another shape or dtype, or no pixels.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    colours = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype != np.uint8 or not (array.ndim == 2 or colours):
        raise DataError(
            f"pixels are {array.dtype} of shape {array.shape}; expected uint8 (height, width, 1, 3 or 4 channels)"
        )
    _check_not_empty(array.shape[1::-1])
    return Image.fromarray(np.ascontiguousarray(array))


def change(array: np.ndarray, *, channels: int, size: tuple[int, int] | None, resize: str = "cover") -> np.ndarray:
    """Convert (H, W, C) uint8 pixels to other channels and another size, by the same rules as files."""
    if array.shape[2] == channels and (size is None or array.shape[:2] == size):
        return array
    picture = convert(as_image(array), channels)
    return as_array(picture if size is None else fit(picture, size, resize=resize))


def check_options(*, channels: int | None, resize: str) -> None:
    """Raise ConfigError if channels is not None, 1, 3 or 4, or the resize rule is unknown."""
    if channels not in (None, 1, 3, 4):
        raise ConfigError(f"channels is {channels!r}; expected 1 (grey), 3 (colour) or 4 (colour and alpha)")
    if resize not in RESIZE_RULES:
        raise ConfigError(f"resize is {resize!r}; {did_you_mean(resize, RESIZE_RULES)}")


def _draft(image: Image.Image, size: tuple[int, int], resize: str) -> Frame | None:
    """Let libjpeg shrink the image by 2, 4 or 8 while decoding, to no less than twice the requested size.

    Returns:
        The region of the shrunk, upright image that the original covers, or None if it was not shrunk. For example,
        700 pixels shrunk by 8 are 87.5 pixels, stored in 88.
    """
    height, width = size
    orientation = orientation_of(image)
    if orientation in _TURNED_SIDEWAYS:
        height, width = width, height
    scales = (width / image.width, height / image.height)
    scale = min(scales) if resize == "contain" else max(scales)
    if scale >= 0.5:
        return None
    drafted = image.draft(None, (round(2 * scale * image.width) + 1, round(2 * scale * image.height) + 1))
    if drafted is None:
        return None
    _, (_, _, wide, high) = drafted
    stored_wide, stored_high = image.size
    if orientation in _TURNED_SIDEWAYS:
        wide, high, stored_wide, stored_high = high, wide, stored_high, stored_wide
    left = stored_wide - wide if orientation in (2, 3, 6, 7) else 0  # orientations that move the right edge to the left
    top = stored_high - high if orientation in (3, 4, 7, 8) else 0
    return left, top, left + wide, top + high


def _check_not_empty(size: tuple[int, ...]) -> None:
    """Raise DataError if an image of this (width, height) has no pixels."""
    if 0 in size:
        raise DataError(f"an image of {size[1]}x{size[0]} pixels (height x width) is empty")


def _channels_of(image: Image.Image) -> int:
    """The channels to keep when none are asked for."""
    return 4 if _is_transparent(image) else 1 if image.mode in _GREY_MODES else 3


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    plain = image if image.mode in ("RGBA", "LA") else _plain(image)
    if "A" not in plain.getbands():
        return False
    lowest, _ = plain.getchannel("A").getextrema()
    return float(lowest) < 255  # type: ignore[arg-type]


def _plain(image: Image.Image) -> Image.Image:
    """Convert any mode to L, RGB or RGBA; RGBA if the image has transparency data."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
        if not image.has_transparency_data:
            return grey
        alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        return Image.merge("LA", (grey, Image.fromarray(alpha))).convert("RGBA")
    if image.mode == "F":
        return Image.fromarray(_from_float(np.asarray(image)))
    try:
        if image.mode == "La":
            image = image.convert("LA")  # the only conversion of this mode that Pillow has
        if image.mode in _ALPHA_MODES or image.has_transparency_data:
            return image.convert("RGBA")
        return image.convert("L" if image.mode in ("1", "L") else "RGB")
    except (ValueError, OSError) as error:
        raise DataError(f"cannot convert mode {image.mode} to RGB ({error}); convert it first") from error


def _from_float(values: np.ndarray) -> np.ndarray:
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= 0 and highest <= 255):  # NaN fails this too
        raise DataError(f"float pixels from {lowest:g} to {highest:g}; expected [0, 1] or [0, 255]; rescale it first")
    levels: np.ndarray = np.rint(values * 255 if highest <= 1 else values).astype(np.uint8)
    return levels
