"""Degradations of one picture, with numpy and Pillow; the steps are those of `smalti.config.degradation`.

With x in levels from 0 to 255 (16-bit pixels / 257), n ~ N(0, 1) for each value, or for each pixel with `grey`:

    noise(S)        x + S n
    poisson(S)      x + S sqrt(x / 127.5) n      normal approximation of shot noise; S is its deviation at mid grey
    speckle(S)      x + S x / 255 n
    blur(R)         sum_d g(d) x(p - d), g ~ exp(-|d|^2 / 2R^2), cut off beyond 4R along each axis, sum_d g(d) = 1
    blur(R1,R2,a)   g ~ exp(-u^2 / 2R1^2 - v^2 / 2R2^2), d = u along a, v across
    motion(L,a)     g ~ clip((L + 1) / 2 - |u|) clip(1 - |v|), clip to [0, 1]: an antialiased line of L > 1 pixels
    defocus(R)      g ~ clip(R + 1/2 - |d|)
    down, up        Pillow's resize, not rounded; a side of s pixels becomes round(s * factor), at least 1
    resize, back    the same; at the end a picture gets the size that it would have had without `resize`
    jpeg, webp      written and read by Pillow, in 8 bits; colours of JPEG at half resolution (4:2:0)
    grey            0.299 R + 0.587 G + 0.114 B in all channels
    mask            pixels in the hole become mid grey, 127.5
    scratches       x + o (t - x) along curves, t bright or dark, o from 0.55 to 1

a is in degrees, anticlockwise from the right. Beyond its border a picture is mirrored. Everything is computed on the
stored values, without gamma, and rounded and clipped once at the end, apart from what jpeg and webp round. Alpha is not
changed; where the size changes it is resized too, and colours count as much as they can be seen.
Source: Foi et al. 2008, doi:10.1109/TIP.2008.2001399 (noise that depends on the signal).
Layout: (H, W, C) outside, planes (C, H, W) float32 inside.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smalti.data.image_files import PIXEL_LIMIT
from smalti.errors import DataError
from smalti.runtime.hashing import hash_integer

if TYPE_CHECKING:
    from smalti.config.degradation import Degradation, Step

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
MID_GREY, BRIGHT, DARK = 127.5, 240.0, 15.0  # levels of holes and of scratches
CUT_OFF = 4  # deviations at which a Gaussian ends
TOUCHED = 1e-3  # a resized pixel with a larger share of the hole belongs to the hole
CODEC_SIDES = {"jpeg": 65500, "webp": 16383}  # pixels that their files can have
FILTERS = {name: Image.Resampling[name.upper()] for name in ("bicubic", "box", "bilinear", "lanczos", "nearest")}


class Degraded(NamedTuple):
    """A degraded picture.

    Attributes:
        image: (H, W, C) of the type of the picture.
        hole: (H, W) bool, true where pixels are missing; None if the degradation has no `mask`.
        applied: the steps that were applied, with their numbers, in pixels. Applied to the same picture with the same
            seed and number it gives the same result.
    """

    image: np.ndarray
    hole: np.ndarray | None
    applied: Degradation


@dataclass
class _Picture:
    """A picture between two steps; sizes are (height, width)."""

    planes: np.ndarray  # (C, H, W) float32 in levels, without alpha
    alpha: np.ndarray | None  # (H, W) float32 in levels
    hole: np.ndarray | None
    original: tuple[int, int]
    base: tuple[int, int]  # what the size would be without `resize`
    factor: Fraction = Fraction(1)  # base / original

    @property
    def size(self) -> tuple[int, int]:
        return self.planes.shape[1], self.planes.shape[2]


def degrade(image: np.ndarray, degradation: Degradation, *, seed: int, number: int = 0) -> Degraded:
    """Degrade one picture; the same seed and number give the same result.

    Args:
        image: (H, W, C) uint8 or uint16, C = 1, 3 or 4.
        degradation: from `smalti.config.degradation.parse_degradation`.
        seed: of a whole collection of pictures.
        number: of this picture in it.

    Raises:
        DataError: it is no such picture, or would become too large, for memory or for the files of a step.
    """
    if image.dtype not in (np.uint8, np.uint16) or image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise DataError(
            f"the picture is {image.dtype} of shape {image.shape}; expected uint8 or uint16 (height, width, 1, 3 or 4)"
        )
    depth = 1 if image.dtype == np.uint8 else 257
    levels = np.moveaxis(image, 2, 0).astype(np.float32) / np.float32(depth)
    alpha = levels[3] if len(levels) == 4 else None
    size = (image.shape[0], image.shape[1])
    hole = np.zeros(size, bool) if degradation.has_hole else None
    picture = _Picture(np.ascontiguousarray(levels[:3]), alpha, hole, size, size)
    applied = []
    for place, step in enumerate(degradation.drawn(_generator(seed, number, 0).random).steps, 1):
        step = step.in_pixels(min(picture.size))
        STEPS[step.name](picture, step, _generator(seed, number, place))
        applied.append(step)
    _resize(picture, picture.base, "bicubic")
    planes = picture.planes if picture.alpha is None else np.concatenate([picture.planes, picture.alpha[None]])
    pixels = np.rint(np.clip(planes, 0, 255) * np.float32(depth)).astype(image.dtype)
    return Degraded(np.moveaxis(pixels, 0, 2).copy(), picture.hole, replace(degradation, steps=tuple(applied)))


def _generator(*words: int) -> np.random.Generator:
    seed = functools.reduce(lambda state, word: hash_integer(state + word), words, 0)
    return np.random.Generator(np.random.PCG64(seed))


# Noise


def _noise(picture: _Picture, step: Step, rng: np.random.Generator) -> None:
    planes = picture.planes
    field = rng.standard_normal((1, *picture.size) if step.words == ("grey",) else planes.shape, np.float32)
    deviation = np.float32(step.numbers[0].low)
    picture.planes = planes + deviation * NOISES[step.name](planes) * field


NOISES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "noise": np.ones_like,
    "poisson": lambda planes: np.sqrt(np.maximum(planes, 0) / np.float32(127.5)),
    "speckle": lambda planes: planes / np.float32(255),
}
"""The deviation of each kind of noise as a share of its S."""


# Blur


def _blur(picture: _Picture, step: Step, rng: np.random.Generator) -> None:
    kernel = KERNELS[step.name](*(number.low for number in step.numbers))
    picture.planes = _convolved(picture.planes, (kernel / kernel.sum()).astype(np.float32))


def _gaussian(first: float, second: float | None = None, angle: float = 0.0) -> np.ndarray:
    deviations = [max(value, 0.05) for value in (first, first if second is None else second)]
    u, v = _offsets(math.ceil(CUT_OFF * max(deviations)), angle)
    weights: np.ndarray = np.exp(-((u / deviations[0]) ** 2 + (v / deviations[1]) ** 2) / 2)
    return weights


def _line(length: float, angle: float) -> np.ndarray:
    u, v = _offsets(math.ceil(length / 2 + 1), angle)
    weights: np.ndarray = np.clip((length + 1) / 2 - np.abs(u), 0, 1) * np.clip(1 - np.abs(v), 0, 1)
    return weights if length > 1 else np.ones((1, 1))


def _disc(radius: float) -> np.ndarray:
    u, v = _offsets(math.ceil(radius + 1), 0)
    weights: np.ndarray = np.clip(max(radius, 0.5) + 0.5 - np.hypot(u, v), 0, 1)
    return weights


KERNELS: dict[str, Callable[..., np.ndarray]] = {"blur": _gaussian, "motion": _line, "defocus": _disc}
"""The weights of each blur before they are normalised."""


def _offsets(radius: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the pixels of a square from its centre, along a direction and across."""
    down, right = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return right * cosine - down * sine, right * sine + down * cosine


def _convolved(planes: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve planes with a square kernel, in the frequency domain."""
    radius = len(kernel) // 2
    height, width = planes.shape[1:]
    size = (fast_length(height + 2 * radius), fast_length(width + 2 * radius))
    spectrum = np.fft.rfft2(kernel, size)
    found = np.empty_like(planes)
    for plane, target in zip(planes, found, strict=True):
        whole = np.fft.irfft2(np.fft.rfft2(np.pad(plane, radius, mode="symmetric"), size) * spectrum, size)
        target[:] = whole[2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]
    return found


def fast_length(count: int) -> int:
    """The smallest number from `count` on without prime factors above 5, for Fourier transforms."""
    while 30**32 % count:  # up to 2^32 such a number divides 30^32, and no other does
        count += 1
    return count


# Size


def sized(side: int, factor: Fraction) -> int:
    """A side in pixels times a factor, rounded, halves up, and at least 1."""
    return max(1, (2 * side * factor.numerator + factor.denominator) // (2 * factor.denominator))


def _scale(picture: _Picture, step: Step, rng: np.random.Generator) -> None:
    """`down` and `up`: the size without `resize` is that of the original times the factor so far."""
    times = int(step.numbers[0].low)
    before = picture.base
    picture.factor *= Fraction(times) if step.name == "up" else Fraction(1, times)
    picture.base = (sized(picture.original[0], picture.factor), sized(picture.original[1], picture.factor))
    height, width = (
        sized(side, Fraction(new, old)) for side, new, old in zip(picture.size, picture.base, before, strict=True)
    )
    _resize(picture, (height, width), step.words[0])


def _resize_by(picture: _Picture, step: Step, rng: np.random.Generator) -> None:
    factor = Fraction(step.numbers[0].low).limit_denominator(10**6)
    height, width = (sized(side, factor) for side in picture.size)
    _resize(picture, (height, width), step.words[0])


def _back(picture: _Picture, step: Step, rng: np.random.Generator) -> None:
    _resize(picture, picture.base, step.words[0])


def _resize(picture: _Picture, size: tuple[int, int], filter: str) -> None:
    if size == picture.size:
        return
    if math.prod(size) > max(PIXEL_LIMIT, math.prod(picture.size)):
        raise DataError(f"the picture would become {size[0]}x{size[1]} pixels, the limit is {PIXEL_LIMIT:,}")
    weights = 1 if picture.alpha is None else picture.alpha / 255
    planes = _resized(picture.planes * weights, size, filter)
    if picture.alpha is not None:
        picture.alpha = np.clip(_resized(picture.alpha[None], size, filter)[0], 0, 255)
        planes = np.clip(planes * 255 / np.maximum(picture.alpha, 0.5), 0, 255) * (picture.alpha >= 0.5)
    picture.planes = planes
    if picture.hole is not None:
        picture.hole = _resized(picture.hole[None].astype(np.float32), size, "box")[0] > TOUCHED


def _resized(planes: np.ndarray, size: tuple[int, int], filter: str) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(plane).resize(size[::-1], FILTERS[filter])) for plane in planes])


# Files


def _recompress(picture: _Picture, step: Step, rng: np.random.Generator) -> None:
    pixels = np.rint(np.clip(picture.planes, 0, 255)).astype(np.uint8)
    found = round_trip(np.moveaxis(pixels, 0, 2), step.name, int(step.numbers[0].low))
    picture.planes = np.ascontiguousarray(np.moveaxis(found, 2, 0), np.float32)


def round_trip(pixels: np.ndarray, format: str, quality: int) -> np.ndarray:
    """Pixels written to a file and read back.

    Args:
        pixels: (H, W, C) uint8, C = 1 or 3.
        format: "jpeg" or "webp".
        quality: from 1 to 100.

    Raises:
        DataError: the format has no files of this size.
    """
    height, width, channels = pixels.shape
    if max(height, width) > CODEC_SIDES[format]:
        raise DataError(f"the picture has {height}x{width} pixels, but {format} at most {CODEC_SIDES[format]} a side")
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels))
    file = io.BytesIO()
    (image.convert("RGB") if format == "webp" else image).save(file, format.upper(), quality=quality)
    with Image.open(file) as written:
        found = np.asarray(written.convert(image.mode))
    return found.reshape(height, width, channels)


# Colour, holes, scratches


def _grey(picture: _Picture, step: Step, rng: np.random.Generator) -> None:
    if len(picture.planes) == 3:
        luma = np.tensordot(np.array(LUMA, np.float32), picture.planes, axes=1)
        picture.planes = np.repeat(luma[None], 3, axis=0)


def _mask(picture: _Picture, step: Step, rng: np.random.Generator) -> None:
    hole = draw_hole(*picture.size, step.words[0], step.numbers[0].low, rng)
    picture.planes = np.where(hole, np.float32(MID_GREY), picture.planes)
    picture.hole = hole if picture.hole is None else picture.hole | hole


def _scratch(picture: _Picture, step: Step, rng: np.random.Generator) -> None:
    opacities = draw_scratches(*picture.size, int(step.numbers[0].low), rng)
    for opacity, tone in zip(opacities, (BRIGHT, DARK), strict=True):
        picture.planes = picture.planes + opacity * (np.float32(tone) - picture.planes)


def draw_hole(height: int, width: int, kind: str, share: float, rng: np.random.Generator) -> np.ndarray:
    """A random hole: (H, W) bool.

    Args:
        kind: "boxes", "strokes" (of a round brush) or "text" (words).
        share: of the area; it is met to within 3 % of itself, or in small pictures to within a few pixels.
    """
    canvas = Image.new("L", (width, height))
    wanted, covered, most = share * height * width, 0, math.inf
    tolerance = max(0.5, 0.03 * wanted)
    for _ in range(300):
        if wanted - covered <= tolerance:
            break
        area = (wanted - covered) / (1 - covered / (height * width))  # a part of it falls on what is covered
        area = min(area * rng.uniform(0.4, 1), most, LARGEST_PART[kind] * wanted)
        trial = canvas.copy()
        draw = ImageDraw.Draw(trial)
        draw.fontmode = "1"
        PAINTERS[kind](draw, height, width, area, rng)
        found = trial.histogram()[255]
        if found > wanted + tolerance:  # too much: try smaller ones
            most = area / 2
            continue
        canvas, covered, most = trial, found, 2 * most
    return np.asarray(canvas) > 0


def _paint_box(draw: ImageDraw.ImageDraw, height: int, width: int, area: float, rng: np.random.Generator) -> None:
    side, stretch = math.sqrt(area), math.exp(rng.uniform(-0.7, 0.7))
    high = min(height, max(1, round(side / stretch)))
    wide = min(width, max(1, round(side * stretch)))
    top, left = rng.integers(height - high + 1), rng.integers(width - wide + 1)
    draw.rectangle((int(left), int(top), int(left + wide - 1), int(top + high - 1)), fill=255)


def _paint_stroke(draw: ImageDraw.ImageDraw, height: int, width: int, area: float, rng: np.random.Generator) -> None:
    thick = max(1, round(min(math.sqrt(area) * rng.uniform(0.12, 0.4), 0.15 * min(height, width))))
    parts = max(1, min(16, round(area / thick / (2 * thick))))
    angles = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.uniform(-0.8, 0.8, parts))
    steps = area / thick / parts * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    points += (rng.random(2) - points.mean(axis=0) / (width, height)) * (width, height)
    draw.line([(float(x), float(y)) for x, y in points], fill=255, width=thick, joint="curve")
    if thick > 2:
        for x, y in points[[0, -1]].tolist():
            draw.circle((x, y), thick / 2, fill=255)


def _paint_word(draw: ImageDraw.ImageDraw, height: int, width: int, area: float, rng: np.random.Generator) -> None:
    count = int(rng.integers(3, 10))
    ink = 0.2  # of a letter, in squares of the font size
    while count > 1 and area < ink * count * 36:
        count -= 1
    font = _font(max(5, min(round(math.sqrt(area / (ink * count))), height // 3)))
    word = "".join("etaoinshrdlucmfwypvbgk"[int(22 * place**1.5)] for place in rng.random(count).tolist())
    word = word.capitalize() if rng.random() < 0.3 else word
    _, top, right, bottom = font.getbbox(word)
    place = (rng.random() * width - right / 2, rng.random() * height - (top + bottom) / 2)
    draw.text(place, word, font=font, fill=255)


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


PAINTERS = {"boxes": _paint_box, "strokes": _paint_stroke, "text": _paint_word}
LARGEST_PART = {"boxes": 0.5, "strokes": 0.3, "text": 0.25}  # of the hole that one box, stroke or word has


def draw_scratches(height: int, width: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Thin curved lines: opacities of the bright and of the dark ones, (H, W) float32 each."""
    finer = 2 if height * width <= 2**24 else 1
    layers = [Image.new("L", (finer * width, finer * height)) for _ in range(2)]
    shorter = min(height, width)
    along = np.linspace(-0.5, 0.5, 24)[:, None]
    for _ in range(count):
        angle, length = rng.uniform(0, math.pi), shorter * rng.uniform(0.3, 1.2)
        direction, normal = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
        bend = rng.uniform(-0.5, 0.5) * (0.25 - along**2) + rng.uniform(-0.3, 0.3) * along**3
        points = rng.random(2) * (width, height) + length * (along * direction + bend * normal)
        thick = max(1, round(finer * max(0.75, shorter / 300) * rng.uniform(0.6, 1.4)))
        layer = ImageDraw.Draw(layers[int(rng.random() < 0.4)])
        opacity = round(255 * rng.uniform(0.55, 1))
        layer.line([(finer * float(x), finer * float(y)) for x, y in points], fill=opacity, width=thick, joint="curve")
    bright, dark = (np.asarray(layer.reduce(finer), np.float32) / 255 for layer in layers)
    return bright, dark


STEPS: Mapping[str, Callable[[_Picture, Step, np.random.Generator], None]] = {
    **dict.fromkeys(NOISES, _noise),
    **dict.fromkeys(KERNELS, _blur),
    **dict.fromkeys(("down", "up"), _scale),
    "resize": _resize_by,
    "back": _back,
    **dict.fromkeys(CODEC_SIDES, _recompress),
    "grey": _grey,
    "mask": _mask,
    "scratches": _scratch,
}
"""What each step does to a picture."""
