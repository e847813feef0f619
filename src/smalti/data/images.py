"""Image files to pixels and back: uint8, height x width x channels, sRGB as stored.

Rules, the same for every file:

    turned        the EXIF orientation is applied
    palette       to RGB, or RGBA where the palette is transparent;  CMYK, YCbCr: to RGB
    16-bit grey   v/257 rounded (65535 -> 255);  32-bit integer grey: clipped to 16 bits, then the same
    float grey    values in [0, 1] times 255, values in [0, 255] rounded, anything else refused
    to 1 channel  luma = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601);  transparency laid over white first
    to 3 channels grey repeated;  transparency laid over white
    to 4 channels alpha 255 added where there is none
    animated      the first frame

Resizing is Lanczos with antialiasing; colours are weighted by their alpha. A picture that has the size already is not
touched.
"""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from smalti.data.archives import bytes_of
from smalti.errors import ConfigError, DataError, did_you_mean

PIXEL_LIMIT = 64 * 2**20
"""Pixels in one image above which it is refused before it is decoded: a few bytes can declare gigabytes."""

Frame = tuple[float, float, float, float]
RESIZE_RULES = ("cover", "contain", "stretch")
_GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_TURNED_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112

# warnings.catch_warnings changes the process, so only one thread at a time may be inside it.
_warnings_lock = threading.Lock()


@dataclass(frozen=True)
class Probe:
    """What the header of an image file says: width and height in pixels after the EXIF turn, Pillow's mode."""

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
    """One image file as pixels.

    Args:
        data: the contents of the file, or its path.
        channels: 1, 3 or 4; None keeps what is there: 1 for grey, 4 where a pixel is transparent, else 3.
        size: (height, width) in pixels to resize to; None keeps the size.
        resize: "cover" fills the size and crops the middle, "contain" fits inside it and pads (white, or
            transparent with 4 channels), "stretch" ignores the proportions.
        pixel_limit: pixels above which the image is refused before decoding.

    Returns:
        (H, W, C) uint8, writable.

    Raises:
        DataError: not an image, cut short, damaged or too large.
        ConfigError: `channels` or `resize` is unknown.
    """
    check_options(channels=channels, resize=resize)
    frame = None
    with _open(data, pixel_limit) as image:
        if size is not None and image.format == "JPEG":
            frame = _draft(image, size, resize)
        loaded = _loaded(image)
    if channels is None:
        channels = 4 if _is_transparent(loaded) else 1 if loaded.mode in _GREY_MODES else 3
    picture = convert(loaded, channels)
    if size is not None:
        picture = fit(picture, size, resize=resize, frame=frame)
    return as_array(picture)


def probe(data: bytes | Path, *, pixel_limit: int = PIXEL_LIMIT, look_at_alpha: bool = False) -> Probe:
    """Size and mode of one image file from its header.

    Args:
        data: the contents of the file, or its path.
        pixel_limit: pixels above which the image is refused.
        look_at_alpha: decode images that have an alpha channel, to see whether any pixel is transparent; without
            it, `transparent` only says that the file has such a channel.

    Raises:
        DataError: not an image, or too large.
    """
    with _open(data, pixel_limit) as image:
        width, height = image.size
        if _orientation(image) in _TURNED_SIDEWAYS:
            width, height = height, width
        mode = image.mode
        transparent = image.has_transparency_data
        if transparent and look_at_alpha:
            transparent = _is_transparent(_loaded(image))
        return Probe(width, height, mode, transparent)


def convert(image: Image.Image, channels: int) -> Image.Image:
    """A Pillow image as mode L, RGB or RGBA by the rules at the head of this file.

    Raises:
        DataError: float pixels outside [0, 255], or a colour space that Pillow cannot turn into RGB.
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
    """Resize an L, RGB or RGBA image to (height, width); an image of that size is returned as it is.

    Pillow weights colours by alpha when it resizes RGBA, so transparent pixels lend no colour to their neighbours.

    Args:
        image: mode L, RGB or RGBA.
        size: (height, width) in pixels.
        resize: "cover", "contain" or "stretch".
        frame: (left, top, right, bottom) of the part that counts, in fractions of pixels; None: all of it.
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
    if resize == "cover":
        kept_wide, kept_high = min(wide, high * width / height), min(high, wide * height / width)
        left, top = left + (wide - kept_wide) / 2, top + (high - kept_high) / 2
        right, bottom = min(left + kept_wide, right), min(top + kept_high, bottom)
    return image.resize((width, height), Image.Resampling.LANCZOS, box=(left, top, right, bottom))


def as_array(image: Image.Image) -> np.ndarray:
    """An L, RGB or RGBA image as (H, W, C) uint8, writable."""
    array = np.array(image, dtype=np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def as_image(array: np.ndarray) -> Image.Image:
    """(H, W, C) uint8 with C of 1, 3 or 4, or (H, W), as a Pillow image.

    Raises:
        DataError: another shape or type.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    colours = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype != np.uint8 or not (array.ndim == 2 or colours):
        raise DataError(
            f"pixels are {array.dtype} of shape {array.shape}; expected uint8 (height, width, 1, 3 or 4 channels)"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def change(array: np.ndarray, *, channels: int, size: tuple[int, int] | None, resize: str = "cover") -> np.ndarray:
    """Pixels (H, W, C) uint8 with other channels and another size, by the same rules as files."""
    if array.shape[2] == channels and (size is None or array.shape[:2] == size):
        return array
    picture = convert(as_image(array), channels)
    return as_array(picture if size is None else fit(picture, size, resize=resize))


def check_options(*, channels: int | None, resize: str) -> None:
    """Raise ConfigError for channels other than None, 1, 3, 4 or an unknown resize rule."""
    if channels not in (None, 1, 3, 4):
        raise ConfigError(f"channels is {channels!r}; expected 1 (grey), 3 (colour) or 4 (colour and alpha)")
    if resize not in RESIZE_RULES:
        raise ConfigError(f"resize is {resize!r}; {did_you_mean(resize, RESIZE_RULES)}")


def _open(data: bytes | Path, pixel_limit: int) -> Image.Image:
    """Read the header only and refuse what is too large; the pixels are not decoded yet."""
    contents = io.BytesIO(bytes_of(data))
    try:
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(contents)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"declares more than {pixel_limit:,} pixels; shrink it first") from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged headers
        raise DataError(_reason(error, "not an image, or its header is damaged")) from error
    width, height = image.size
    if width * height > pixel_limit:
        image.close()
        raise DataError(f"declares {height}x{width} pixels, the limit is {pixel_limit:,}; shrink it first")
    return image


def _loaded(image: Image.Image) -> Image.Image:
    """The decoded pixels, turned as EXIF says; DataError when the file is cut short or damaged."""
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # as above: the reader of each format has its own exceptions
        raise DataError(_reason(error, "cut short or damaged")) from error
    return image


def _reason(error: Exception, what: str) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return what
    return f"{what} ({' '.join(str(error).split()) or type(error).__name__})"


def _orientation(image: Image.Image) -> int:
    # PngImageFile.getexif decodes the whole picture in search of a late eXIf chunk; an early one is in info already
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about orientation; decoding decides whether the file is usable
        return 1


def _draft(image: Image.Image, size: tuple[int, int], resize: str) -> Frame | None:
    """Let libjpeg shrink by 2, 4 or 8 while it decodes, staying at twice the wanted size or above.

    Returns:
        Where the picture lies in the turned, shrunk one: 700 pixels shrunk by 8 are 87.5, stored in 88.
    """
    height, width = size
    orientation = _orientation(image)
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
    left = stored_wide - wide if orientation in (2, 3, 6, 7) else 0  # these turn the right edge to the left
    top = stored_high - high if orientation in (3, 4, 7, 8) else 0
    return left, top, left + wide, top + high


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    alpha = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    lowest, _ = alpha.getchannel("A").getextrema()
    return float(lowest) < 255  # type: ignore[arg-type]


def _plain(image: Image.Image) -> Image.Image:
    """Any mode as L, RGB or RGBA."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(_from_float(np.asarray(image)))
    try:
        if image.mode in _ALPHA_MODES or image.has_transparency_data:
            return image.convert("RGBA")
        return image.convert("L" if image.mode == "1" else "RGB" if image.mode != "L" else "L")
    except (ValueError, OSError) as error:
        raise DataError(f"cannot turn mode {image.mode} into RGB; convert it first ({error})") from error


def _from_float(values: np.ndarray) -> np.ndarray:
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= 0 and highest <= 255):  # NaN fails this too
        raise DataError(f"float pixels from {lowest:g} to {highest:g}; expected [0, 1] or [0, 255]; rescale it first")
    return np.rint(values * 255 if highest <= 1 else values).astype(np.uint8)
