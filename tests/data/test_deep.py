"""16-bit colours: read as stored, written with their metadata, bounded and refused where damaged."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from small_codecs import exif

from smalti.data.deep import write_deep
from smalti.data.pictures import Picture, read_picture
from smalti.errors import ConfigError, DataError
from smalti.report.picture_files import save_picture

imagecodecs = pytest.importorskip("imagecodecs")

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def deep(channels: int, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 65536, (height, width, channels)).astype(np.uint16)


def big_endian_tiff(pixels: np.ndarray) -> bytes:
    """An uncompressed TIFF of one strip, written from the specification (TIFF 6.0)."""
    height, width, channels = pixels.shape
    content = pixels.astype(">u2").tobytes()
    bits = 8 + len(content)
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, bits), (259, 3, 1, 1 << 16),
               (262, 3, 1, 2 << 16), (273, 4, 1, 8), (277, 3, 1, channels << 16), (278, 4, 1, height),
               (279, 4, 1, len(content))]  # fmt: skip
    entries += [(338, 3, 1, 2 << 16)] * (channels == 4)
    directory = struct.pack(">H", len(entries)) + b"".join(struct.pack(">HHII", *entry) for entry in entries)
    head = b"MM\0*" + struct.pack(">I", bits + 2 * channels)
    return head + content + struct.pack(f">{channels}H", *[16] * channels) + directory + b"\0\0\0\0"


@pytest.mark.parametrize("channels", [3, 4])
def test_png_and_tiff_give_every_bit(channels: int, tmp_path: Path) -> None:
    pixels = deep(channels)
    for data in (imagecodecs.png_encode(pixels), big_endian_tiff(pixels)):
        found = read_picture(data)
        assert found.pixels.dtype == np.uint16
        assert np.array_equal(found.pixels, pixels)
        assert not found.rounded
        save_picture(tmp_path / "x.png", found)
        assert np.array_equal(read_picture(tmp_path / "x.png").pixels, pixels)


def test_grey_with_alpha_becomes_colours_with_alpha() -> None:
    pixels = deep(2)
    assert np.array_equal(read_picture(imagecodecs.png_encode(pixels)).pixels, pixels[..., [0, 0, 0, 1]])


def test_metadata_is_written_as_pillow_reads_it(tmp_path: Path) -> None:
    about, xmp = exif(description="a disc"), b"<x:xmpmeta>\xc3\xa9</x:xmpmeta>"
    given = Picture(deep(3), PROFILE, about.removeprefix(b"Exif\0\0"), xmp, (300.0, 150.0))
    save_picture(tmp_path / "x.png", given)
    with Image.open(tmp_path / "x.png") as image:
        image.load()
        assert image.info["icc_profile"] == PROFILE
        assert image.getexif()[0x010E] == "a disc"
        assert image.info["dpi"] == pytest.approx((300, 150), abs=0.1)
    found = read_picture(tmp_path / "x.png")
    assert (found.icc, found.xmp) == (PROFILE, xmp)
    assert found.dpi == pytest.approx((300, 150), abs=0.1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_once(orientation: int, tmp_path: Path) -> None:
    pixels = deep(3)
    tag = exif(orientation=orientation, description="a disc").removeprefix(b"Exif\0\0")
    (tmp_path / "x.png").write_bytes(write_deep(pixels, exif=tag))
    found = read_picture(tmp_path / "x.png")
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    for channel in range(3):
        plane = Image.fromarray(pixels[..., channel])
        wanted = plane if turned is None else plane.transpose(Image.Transpose(turned))
        assert np.array_equal(found.pixels[..., channel], np.asarray(wanted))
    save_picture(tmp_path / "y.png", found)
    assert np.array_equal(read_picture(tmp_path / "y.png").pixels, found.pixels)


def test_damage_is_named(tmp_path: Path) -> None:
    data = imagecodecs.png_encode(deep(3, 40, 40))
    with pytest.raises(DataError, match="cut short or damaged"):
        read_picture(data[: len(data) // 2])
    with pytest.raises(DataError, match="40x40 pixels, the limit is 100"):
        read_picture(data, pixel_limit=100)
    tiff = big_endian_tiff(deep(3, 40, 40))
    with pytest.raises(DataError):
        read_picture(tiff[:-40])


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    data = imagecodecs.png_encode(deep(3))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    found = read_picture(data)
    assert found.rounded
    assert found.pixels.dtype == np.uint8
    with pytest.raises(ConfigError, match=r"pip install 'smalti\[formats\]'"):
        write_deep(deep(3))


def test_other_files_of_16_bits_are_left_to_pillow() -> None:
    grey = io.BytesIO()
    Image.fromarray(deep(1)[..., 0]).save(grey, "TIFF")
    assert np.array_equal(read_picture(grey.getvalue()).pixels, deep(1))
