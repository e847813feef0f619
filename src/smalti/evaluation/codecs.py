"""Rate-distortion curves of codecs on the same pictures: ours, and JPEG, WebP, AVIF and JPEG XL.

    curve    (bytes an image, PSNR in dB) at several qualities: whole files with their headers; the squared error is
             pooled over all pixels of all images, of RGBA with premultiplied colours

Every encoder is run at settings that are good for PSNR: of several variants the best points are kept. Small pictures
are also joined to mosaics, because one file of many is what a general codec offers for them; its rival is our archive.
Images are (H, W, C) uint8 with one C in 1, 3, 4.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import PIL
from PIL import Image, features

from smalti._version import __version__
from smalti.codec.image_codec import squared_error
from smalti.codec.image_file import Coded, write_picture
from smalti.config.codec import CodecConfig
from smalti.data.pictures import Picture
from smalti.errors import ConfigError, DataError, did_you_mean
from smalti.metrics.distortion import psnr_db
from smalti.metrics.rate_distortion import Curve, bytes_at, frontier, psnr_at
from smalti.pipelines.codec import EFFORT, Codec

__all__ = [
    "MOSAIC",
    "PEERS",
    "CodecComparison",
    "Curve",
    "bytes_at",
    "codec_curve",
    "compare_codecs",
    "frontier",
    "mosaics",
    "peer_curve",
    "psnr_at",
]

Progress: TypeAlias = Callable[[str, int, int | None], None]
Options: TypeAlias = Mapping[str, Any]

MOSAIC = 100  # images in one
SMALL = 64  # pixels a side, up to which mosaics are measured
BATCH = 256
EXACT = 100.0  # dB of images without any error
QUALITIES = 7  # of ours, over the range that the model was trained for


@dataclass(frozen=True)
class Peer:
    """A codec to compare with.

    Attributes:
        title: its name.
        settings: of its encoder, in words.
        qualities: its settings of quality, the smallest files first.
        encode: (image, quality, options) to a file.
        decode: the inverse, with the same channels.
        variants: further options by the number of channels, of which the best points count; no entry: it cannot.
        needs: module of Python, or feature of Pillow, without which it cannot be measured.
    """

    title: str
    settings: str
    qualities: tuple[float, ...]
    encode: Callable[[np.ndarray, float, Options], bytes]
    decode: Callable[[bytes, int], np.ndarray]
    variants: Mapping[int, tuple[Options, ...]]
    needs: str = ""

    @property
    def missing(self) -> str:
        """Why it cannot be measured here; empty if it can."""
        if not self.needs:
            return ""
        if self.needs in features.modules:
            return "" if features.check(self.needs) else f"this Pillow was built without {self.needs}"
        return "" if importlib.util.find_spec(self.needs) else f"{self.needs} is not installed"


def _pillow(format: str, **fixed: Any) -> Callable[[np.ndarray, float, Options], bytes]:
    def encode(image: np.ndarray, quality: float, options: Options) -> bytes:
        file = io.BytesIO()
        pixels = image[..., 0] if image.shape[2] == 1 else image
        Image.fromarray(pixels).save(file, format, **{"quality": int(quality), **fixed, **options})
        return file.getvalue()

    return encode


def _opened(data: bytes, channels: int) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    return pixels[..., None] if channels == 1 else pixels


def _encode_jxl(image: np.ndarray, distance: float, options: Options) -> bytes:
    codecs = importlib.import_module("imagecodecs")
    pixels = image[..., 0] if image.shape[2] == 1 else image
    return bytes(codecs.jpegxl_encode(np.ascontiguousarray(pixels), distance=distance, **options))


def _decode_jxl(data: bytes, channels: int) -> np.ndarray:
    pixels = np.asarray(importlib.import_module("imagecodecs").jpegxl_decode(data))
    return pixels.reshape(*pixels.shape[:2], channels)


_SUBSAMPLINGS: tuple[Options, ...] = ({"subsampling": 2}, {"subsampling": 0})
_ALPHAS: tuple[Options, ...] = tuple({"alpha_quality": quality} for quality in (100, 60, 20))
_PERCENT = (1, 8, 18, 30, 43, 57, 70, 80, 90)
_PLAIN: tuple[Options, ...] = ({},)

PEERS: dict[str, Peer] = {
    "jpeg": Peer(
        "JPEG",
        "progressive, optimised tables, the better of 4:2:0 and 4:4:4",
        _PERCENT,
        _pillow("JPEG", optimize=True, progressive=True),
        _opened,
        {1: _PLAIN, 3: _SUBSAMPLINGS},
    ),
    "webp": Peer(
        "WebP",
        "lossy, method 6, with alpha the best of three alpha qualities",
        (0, *_PERCENT[1:]),
        _pillow("WEBP", method=6),
        _opened,
        {1: _PLAIN, 3: _PLAIN, 4: _ALPHAS},
        "webp",
    ),
    "avif": Peer(
        "AVIF",
        "speed 4, 4:4:4, tune=psnr",
        (8, 16, 24, 33, 43, 54, 65, 76, 87),
        _pillow("AVIF", speed=4, subsampling="4:4:4", advanced={"tune": "psnr"}),
        _opened,
        {1: _PLAIN, 3: _PLAIN, 4: _PLAIN},
        "avif",
    ),
    "jxl": Peer(
        "JPEG XL",
        "effort 9, alpha lossless",
        (15, 11, 8, 6, 4.3, 3, 2, 1.3, 0.8),
        _encode_jxl,
        _decode_jxl,
        dict.fromkeys((1, 3, 4), ({"effort": 9},)),
        "imagecodecs",
    ),
}
MOSAICS = ("avif", "jxl")
"""The peers that are also measured on mosaics."""


def peer_curve(
    name: str,
    images: Sequence[np.ndarray],
    qualities: Sequence[float] | None = None,
    *,
    mosaic: int = 1,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Curve:
    """The curve of another codec.

    Args:
        name: in `PEERS`.
        images: with one number of channels; for a mosaic, of one size.
        qualities: its settings of quality; None: those of `PEERS`.
        mosaic: images that are joined to one file.
        options: of the encoder, beside or instead of those of `PEERS`: a speed, an effort.
        progress: called with (name, files done, files in all).

    Raises:
        ConfigError: there is no such codec, it is not installed, or does not know these channels.
        DataError: there are no images, or images of a mosaic differ in size.
    """
    if name not in PEERS:
        raise ConfigError(f"no codec {name!r} is known here; {did_you_mean(name, PEERS)}")
    peer, channels = PEERS[name], _channels(images)
    if peer.missing or channels not in peer.variants:
        raise ConfigError(f"{peer.title} cannot be measured: {peer.missing or f'it has no {channels} channels'}")
    groups = mosaics(images, mosaic) if mosaic > 1 else [(image, [image]) for image in images]
    steps = [(quality, variant) for variant in peer.variants[channels] for quality in qualities or peer.qualities]
    points = []
    for number, (quality, variant) in enumerate(steps):
        size, error, values = 0, 0.0, 0
        for done, (sheet, parts) in enumerate(groups, 1):
            data = peer.encode(sheet, quality, {**variant, **(options or {})})
            size += len(data)
            found = peer.decode(data, channels)
            for place, image in enumerate(parts):
                error += squared_error(_cut(found, place, image), image) * image.size
                values += image.size
            if progress is not None:
                progress(name, number * len(groups) + done, len(steps) * len(groups))
        points.append((size / len(images), _decibels(error, values)))
    return frontier(points)


def codec_curve(
    codec: Codec,
    images: Sequence[np.ndarray],
    qualities: Sequence[int],
    *,
    effort: int = EFFORT,
    archive: bool = False,
    progress: Progress | None = None,
) -> Curve:
    """Our own curve, of single files or of one archive of all images.

    Args:
        qualities: 1 to 100.
        effort: rounds of the search.
        progress: called with (name, qualities done, qualities in all).

    Raises:
        DataError: there are no images.
    """
    _channels(images)
    points = []
    for done, quality in enumerate(qualities, 1):
        size, found = (_archived if archive else _singly)(codec, images, quality, effort)
        error = sum(squared_error(one, image) * image.size for one, image in zip(found, images, strict=True))
        points.append((size / len(images), _decibels(error, sum(image.size for image in images))))
        if progress is not None:
            progress("archive" if archive else "smalti", done, len(qualities))
    return frontier(points)


def _singly(codec: Codec, images: Sequence[np.ndarray], quality: int, effort: int) -> tuple[int, list[np.ndarray]]:
    """Bytes of all files, and the decoded images; images of the native size are searched together."""
    model, size, found = codec.model, 0, dict[int, np.ndarray]()
    native = [number for number, image in enumerate(images) if image.shape == model.native]
    for start in range(0, len(native), BATCH):
        numbers = native[start : start + BATCH]
        codes = model.engine.codes_of(np.stack([images[number] for number in numbers]), quality, effort=effort)
        for number, own in zip(numbers, codes, strict=True):
            size += len(write_picture(model, Coded(own, quality, Picture(images[number]))))
        height, width, _ = model.native
        found |= dict(zip(numbers, model.engine.pixels_of(codes, quality, height, width), strict=True))
    for number in set(range(len(images))) - set(native):
        data = codec.compress(Picture(images[number]), quality=quality, effort=effort)
        size += len(data)
        found[number] = codec.decompress(data)
    return size, [found[number] for number in range(len(images))]


def _archived(codec: Codec, images: Sequence[np.ndarray], quality: int, effort: int) -> tuple[int, list[np.ndarray]]:
    """Bytes of the archive, and the decoded images."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.smt"
        with codec.write_archive(path, quality=quality, effort=effort, named=False) as archive:
            for image in images:
                archive.add(Picture(image))
        with codec.open_archive(path) as read:
            return path.stat().st_size, [picture.pixels for _, pictures in read.blocks() for picture in pictures]


def mosaics(images: Sequence[np.ndarray], count: int = MOSAIC) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Join images of one size to sheets of at most `count`, about square: (sheet, its images).

    Raises:
        DataError: the images differ in size.
    """
    if len({image.shape for image in images}) != 1:
        raise DataError("the images of a mosaic must have one size, but these differ")
    sheets = []
    for start in range(0, len(images), count):
        parts = list(images[start : start + count])
        height, width, channels = parts[0].shape
        columns = _columns(len(parts))
        rows = -(-len(parts) // columns)
        sheet = np.empty((rows * height, columns * width, channels), np.uint8)
        sheet[:] = np.round(parts[-1].mean(axis=(0, 1)))
        for place, part in enumerate(parts):
            _cut(sheet, place, part, columns)[:] = part
        sheets.append((sheet, parts))
    return sheets


def _columns(count: int) -> int:
    return math.isqrt(count - 1) + 1


def _cut(sheet: np.ndarray, place: int, image: np.ndarray, columns: int | None = None) -> np.ndarray:
    """The part of a sheet where an image is."""
    height, width = image.shape[:2]
    row, column = divmod(place, columns or sheet.shape[1] // width)
    return sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]


def _decibels(error: float, values: int) -> float:
    """Pooled PSNR; `EXACT` where nothing differs."""
    return min(psnr_db(error, values), EXACT)


def _channels(images: Sequence[np.ndarray]) -> int:
    found = {image.shape[2] for image in images}
    if len(found) != 1:
        raise DataError(
            f"the images have {' and '.join(map(str, sorted(found))) or 'no'} channels, expected one number"
        )
    return int(found.pop())


@dataclass(frozen=True)
class CodecComparison:
    """Curves of codecs on the same images.

    Attributes:
        images: how many.
        pixels: of all of them.
        channels: of each.
        files: curve of each codec with a file for each image, by its title; ours is the first.
        archives: the same for archives and mosaics; empty where the images are not small and of one size.
        left_out: titles of codecs that were not measured, and why.
        protocol: how it was measured, for the record.
    """

    images: int
    pixels: int
    channels: int
    files: Mapping[str, Curve]
    archives: Mapping[str, Curve] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As values that JSON can express."""
        return {
            "record": "codec-comparison", "format": 1, "images": self.images, "pixels": self.pixels,
            "channels": self.channels, "files": dict(self.files), "archives": dict(self.archives),
            "left_out": dict(self.left_out), "protocol": dict(self.protocol),
        }  # fmt: skip


OURS, OUR_ARCHIVE = "smalti", "smalti archive"


def compare_codecs(
    codec: Codec, images: Sequence[np.ndarray], *, effort: int = EFFORT, progress: Progress | None = None
) -> CodecComparison:
    """Measure a codec and its peers on the same images.

    Args:
        images: (H, W, C) uint8 with the channels of the codec.
        effort: rounds of our search.
        progress: called with (name of the codec, done, in all).

    Raises:
        DataError: there are no images.
    """
    channels, config = _channels(images), codec.card.config.model
    assert isinstance(config, CodecConfig)
    low, high = config.quality_low, config.quality_high
    qualities = sorted({int(quality) for quality in np.linspace(low, high, QUALITIES).round()})
    files = {OURS: codec_curve(codec, images, qualities, effort=effort, progress=progress)}
    archives, left_out = dict[str, Curve](), dict[str, str]()
    small = len({image.shape for image in images}) == 1 and max(images[0].shape[:2]) <= SMALL
    if small:
        archives[OUR_ARCHIVE] = codec_curve(codec, images, qualities, effort=effort, archive=True, progress=progress)
    for name, peer in PEERS.items():
        if peer.missing or channels not in peer.variants:
            left_out[peer.title] = peer.missing or "it has no alpha"
            continue
        files[peer.title] = peer_curve(name, images, progress=progress)
        if small and name in MOSAICS:
            title = f"{peer.title} mosaic"
            archives[title] = peer_curve(name, images, mosaic=MOSAIC, progress=progress)
    protocol = {
        "psnr": "pooled over all pixels of all images" + (", colours premultiplied" if channels == 4 else ""),
        "bytes": "whole files, headers included", "effort": effort, "qualities": qualities,
        "model": codec.card.digest, "preset": codec.card.config.preset, "smalti": __version__,
        "mosaic": f"up to {MOSAIC} images in a file",
        "settings": {PEERS[name].title: PEERS[name].settings for name in PEERS},
        "pillow": PIL.__version__, "encoders": _versions(),
    }  # fmt: skip
    pixels = sum(image.shape[0] * image.shape[1] for image in images)
    return CodecComparison(len(images), pixels, channels, files, archives, left_out, protocol)


def _versions() -> dict[str, str]:
    """Versions of the encoders, as far as they tell."""
    found = {name: features.version(name) for name in ("jpg", "libjpeg_turbo", "webp", "avif")}
    if importlib.util.find_spec("imagecodecs"):
        found["jxl"] = importlib.import_module("imagecodecs").jpegxl_version()
    return {name: str(version) for name, version in found.items() if version}
