"""Pictures with their metadata: what is kept, what is dropped, and the orientation once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_codecs import exif
from small_runs import pixels

from smalti.data.pictures import Picture, read_picture
from smalti.errors import DataError

RGB, GREY, CMYK = (b"x" * 16 + space + b"x" * 20 for space in (b"RGB ", b"GRAY", b"CMYK"))
COLOUR = Image.fromarray(pixels(1)[0][:12])  # 16 wide, 12 high


def file_of(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["path", "bytes", "image", "picture"])
def test_every_form_gives_the_same(form: str, tmp_path: Path) -> None:
    data = file_of(COLOUR, icc_profile=RGB, exif=exif(description="a disc"))
    (tmp_path / "x.png").write_bytes(data)
    given: Any = {"path": tmp_path / "x.png", "bytes": data, "image": Image.open(io.BytesIO(data))}.get(form)
    picture = read_picture(given if form != "picture" else read_picture(data))
    assert np.array_equal(picture.pixels, np.asarray(COLOUR))
    assert picture.icc == RGB
    assert picture.exif is not None
    assert picture.exif[:2] in (b"MM", b"II")
    plain = read_picture(given if form != "picture" else picture, metadata=False)
    assert plain.info() == {}


def test_arrays_keep_their_depth() -> None:
    deep = np.arange(48, dtype=np.uint16).reshape(4, 4, 3) * 1000
    assert read_picture(deep).bit_depth == 16
    assert np.array_equal(read_picture(deep[..., 0]).pixels[..., 0], deep[..., 0])
    assert read_picture(deep).to_pil().mode == "RGB"
    assert read_picture(deep[..., 0]).to_pil().mode == "I;16"
    with pytest.raises(DataError, match="uint16"):
        read_picture(deep[..., :2])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["bytes", "image"])
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_the_orientation_is_applied_once(orientation: int, form: str, mode: str) -> None:
    image = COLOUR if mode == "RGB" else Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16))
    data = file_of(image, exif=exif(orientation=orientation, description="a disc"))
    picture = read_picture(data if form == "bytes" else Image.open(io.BytesIO(data)))
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    wanted = image if turned is None else image.transpose(Image.Transpose(turned))
    assert np.array_equal(np.asarray(picture.to_pil()), np.asarray(wanted))
    found = Image.Exif()
    found.load(picture.info()["exif"])
    assert dict(found) == {0x010E: "a disc"}
    only = read_picture(file_of(image, exif=exif(orientation=orientation)))
    assert only.exif is None


def test_an_orientation_in_the_xmp_goes_too() -> None:
    for inner in (b'<a tiff:Orientation="6"/>', b"<a><tiff:Orientation>6</tiff:Orientation></a>"):
        for own in ({}, {"exif": exif(orientation=1, description="upright")}):
            picture = read_picture(file_of(COLOUR, "JPEG", xmp=b"<x>" + inner + b"</x>", **own))
            assert picture.xmp is not None
            assert b"Orientation" not in picture.xmp
            again = read_picture(file_of(picture.to_pil(), "JPEG", **picture.info()))
            assert again.pixels.shape == picture.pixels.shape


@pytest.mark.parametrize(
    ("image", "profile", "kept"),
    [
        (COLOUR, RGB, True),
        (COLOUR, GREY, False),
        (COLOUR.convert("L"), GREY, True),
        (COLOUR.convert("L"), RGB, False),
        (COLOUR.convert("CMYK"), CMYK, False),
    ],
)
def test_a_profile_for_other_colours_is_dropped(image: Image.Image, profile: bytes, kept: bool) -> None:
    assert (read_picture(file_of(image, "JPEG", icc_profile=profile)).icc is not None) == kept


def test_damaged_exif_is_not_worth_a_picture() -> None:
    image = COLOUR.copy()
    image.info["exif"] = b"Exif\0\0II*\0\xff\xff\xff\xff"
    image.info["icc_profile"] = "no bytes"
    try:
        picture = read_picture(image)
    except DataError:
        return  # Pillow's own transposition refuses it, with a reason
    assert (picture.exif, picture.icc) == (None, None)


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.png: not an image"):
        read_picture(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"^not an image"):
        read_picture(b"no picture")
    with pytest.raises(DataError, match="is empty"):
        read_picture(Image.new("RGB", (0, 3)))
    with pytest.raises(DataError, match="the limit is 100"):
        read_picture(file_of(COLOUR), pixel_limit=100)


def test_what_pillow_calls_the_metadata() -> None:
    picture = Picture(pixels(1)[0], exif=b"II*\0", xmp=b"<x/>")
    assert picture.info() == {"exif": b"Exif\0\0II*\0", "xmp": b"<x/>"}
    assert picture.to_pil().info["exif"] == b"Exif\0\0II*\0"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_the_resolution_is_read(format: str) -> None:
    found = read_picture(file_of(COLOUR, format, dpi=(300, 150)))
    assert found.dpi == pytest.approx((300, 150), abs=0.1)
    assert found.bare
    assert read_picture(file_of(COLOUR, format)).dpi is None


@pytest.mark.parametrize("value", [(0, 0), "300", (float("nan"), 3.0), (1e9, 1e9), (300,)])
def test_a_resolution_that_makes_no_sense_is_dropped(value: Any) -> None:
    image = COLOUR.copy()
    image.info["dpi"] = value
    assert read_picture(image).dpi is None


def test_cmyk_becomes_srgb_by_its_profile() -> None:
    # Of the profiles that littleCMS can make itself none is of CMYK, so one that is of no use must do no harm.
    cmyk = COLOUR.convert("CMYK")
    found = read_picture(file_of(cmyk, "TIFF", icc_profile=CMYK))
    assert np.array_equal(found.pixels, np.asarray(cmyk.convert("RGB")))
    assert found.icc is None
