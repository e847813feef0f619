"""`to_array`: Pillow images of every mode, paths and arrays, against the rules at the top of images.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smalti.data import images
from smalti.data.images import to_array
from smalti.errors import ConfigError, DataError

GREYS = np.array([[0, 85, 170], [200, 30, 255]], np.uint8)
COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [200, 100, 50], [255, 255, 255]]], np.uint8)
ALPHA = np.array([[255, 255, 255], [255, 255, 0]], np.uint8)
LUMA = np.array([0.299, 0.587, 0.114])

# Every mode of Pillow: an image, its colours by the rules, its alpha if it has any, and how far off they may be.
GREY3 = np.repeat(GREYS[:, :, None], 3, axis=2)
SIXTEEN_BIT = GREYS.astype(np.uint16) * 257


def colour(mode: str) -> Image.Image:
    return Image.fromarray(COLOURS).convert(mode)


def with_alpha(mode: str) -> Image.Image:
    image = colour("RGB").convert("RGBA")
    image.putalpha(Image.fromarray(ALPHA))
    return image.convert(mode)


def grey_with_alpha() -> Image.Image:
    return Image.merge("LA", (Image.fromarray(GREYS), Image.fromarray(ALPHA)))


def bilevel() -> Image.Image:
    return Image.fromarray(GREYS).point(lambda value: 255 * (value > 127), "1")


def sixteen_bit(mode: str) -> Image.Image:
    order = ">" if mode == "I;16B" else "<"
    return Image.frombytes(mode, (3, 2), SIXTEEN_BIT.astype(f"{order}u2").tobytes())


MODES = {
    "1": (bilevel(), np.where(GREY3 > 127, 255, 0), None, 0),
    "L": (Image.fromarray(GREYS), GREY3, None, 0),
    "LA": (grey_with_alpha(), GREY3, ALPHA, 0),
    "La": (grey_with_alpha().convert("La"), GREY3, ALPHA, 0),
    "P": (colour("RGB").quantize(6), COLOURS, None, 0),
    "PA": (colour("RGB").quantize(6).convert("PA"), COLOURS, None, 0),
    "RGB": (colour("RGB"), COLOURS, None, 0),
    "RGBA": (with_alpha("RGBA"), COLOURS, ALPHA, 0),
    "RGBa": (with_alpha("RGBa"), COLOURS, ALPHA, 0),
    "RGBX": (colour("RGBX"), COLOURS, None, 0),
    "CMYK": (colour("CMYK"), COLOURS, None, 0),
    "YCbCr": (colour("YCbCr"), COLOURS, None, 2),
    "HSV": (colour("HSV"), COLOURS, None, 6),
    "LAB": (colour("LAB"), COLOURS, None, 24),  # saturated colours leave the range of 8-bit a and b
    "I": (Image.fromarray(SIXTEEN_BIT.astype(np.int32)), GREY3, None, 0),
    "F": (Image.fromarray(GREYS.astype(np.float32)), GREY3, None, 0),
    **{mode: (sixteen_bit(mode), GREY3, None, 0) for mode in ("I;16", "I;16L", "I;16B", "I;16N")},
}


def test_every_mode_of_pillow_is_covered() -> None:
    assert set(Image.MODES) <= set(MODES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_becomes_the_channels_asked_for(mode: str, channels: int) -> None:
    image, colours, alpha, off = MODES[mode]
    assert image.mode == mode
    before = image.tobytes()
    array = to_array(image, channels=channels)
    assert array.shape == (2, 3, channels)
    assert array.dtype == np.uint8
    assert array.flags.writeable
    assert image.mode == mode
    assert image.tobytes() == before
    opaque = np.ones((2, 3), bool) if alpha is None else alpha == 255
    if channels == 4:
        assert np.array_equal(array[:, :, 3], 255 * opaque)
        assert np.abs(array[opaque][:, :3].astype(int) - colours[opaque]).max() <= off
        return
    composited = np.where(opaque[:, :, None], colours, 255).astype(float)
    expected = composited if channels == 3 else composited @ LUMA[:, None]
    assert np.abs(array - expected).max() <= off + (channels == 1)


@pytest.mark.parametrize("mode", MODES)
def test_channels_are_kept_when_none_are_asked_for(mode: str) -> None:
    image, colours, alpha, _ = MODES[mode]
    grey = np.array_equal(colours, GREY3) or mode == "1"
    assert to_array(image).shape[2] == (4 if alpha is not None else 1 if grey else 3)


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB", "P"])
def test_a_declared_transparent_colour_becomes_alpha(mode: str, tmp_path: Path) -> None:
    image = MODES[mode][0]
    first = image.getpixel((0, 0))
    image.save(tmp_path / "a.png", transparency=first)
    with Image.open(tmp_path / "a.png") as opened:
        array = to_array(opened, channels=4)
        assert to_array(opened).shape[2] == 4
        assert to_array(opened, channels=3)[0, 0].tolist() == [255, 255, 255]
    assert array[0, 0, 3] == 0
    assert array[1, 2, 3] == 255
    assert np.array_equal(to_array(tmp_path / "a.png"), array)


def test_transparency_that_a_mode_cannot_have_is_passed_over() -> None:
    image = Image.fromarray(GREYS.astype(np.float32))
    image.info["transparency"] = 0
    assert to_array(image).shape == (2, 3, 1)


@pytest.mark.parametrize("values", [(0.0, -1.0), (0.0, 300.0), (0.0, float("nan"))])
def test_float_pixels_outside_the_rule_are_refused(values: tuple[float, float]) -> None:
    with pytest.raises(DataError, match=r"expected \[0, 1\] or \[0, 255\]"):
        to_array(Image.fromarray(np.array([values], np.float32)), channels=3)


def test_float_pixels_up_to_one_are_multiplied_by_255() -> None:
    image = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert to_array(image, channels=1)[0, :, 0].tolist() == [0, 128, 255]


def test_the_exif_orientation_is_applied_to_a_copy() -> None:
    image = colour("RGB")
    image.getexif()[0x0112] = 6  # turned clockwise to be upright
    assert np.array_equal(to_array(image, channels=3), np.rot90(COLOURS, -1))
    assert image.size == (3, 2)
    assert image.getexif()[0x0112] == 6


def test_a_path_is_decoded_like_any_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with_alpha("RGBA").save(path)
    for channels in (None, 1, 3, 4):
        expected = images.decode(path, channels=channels)
        assert np.array_equal(to_array(path, channels=channels), expected)
        assert np.array_equal(to_array(str(path), channels=channels), expected)
        with Image.open(path) as opened:
            assert np.array_equal(to_array(opened, channels=channels), expected)


@pytest.mark.parametrize("array", [GREYS, GREYS[:, :, None], COLOURS, np.dstack([COLOURS, ALPHA])])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_an_array_is_converted_like_the_image_it_came_from(array: np.ndarray, channels: int | None) -> None:
    own = 1 if array.ndim == 2 else array.shape[2]
    image = images.as_image(array)
    converted = to_array(array, channels=channels)
    assert np.array_equal(converted, to_array(image, channels=channels or own))
    assert not np.shares_memory(converted, array)


def test_an_array_in_any_memory_order_will_do() -> None:
    array = COLOURS[::-1, :, ::-1]
    array.flags.writeable = False
    assert np.array_equal(to_array(array, channels=3), array)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (COLOURS.astype(np.float32), "pixels are float32"),
        (COLOURS[None], "expected uint8"),
        (COLOURS[:, :, :2], "expected uint8"),
        (np.zeros((0, 4, 3), np.uint8), "0x4 pixels .* is empty"),
        (Image.new("F", (0, 2)), "2x0 pixels .* is empty"),
        (COLOURS.tolist(), "image is a list; expected a Pillow image, a path, or a uint8 array"),
    ],
)
def test_what_holds_no_pixels_is_refused(bad: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_array(bad, channels=3)  # type: ignore[arg-type]


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.png: cannot be read: No such file"):
        to_array(tmp_path / "missing.png", channels=3)
    path = tmp_path / "cut.png"
    colour("RGB").resize((64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"cut\.png: cut short or damaged"):
        to_array(path, channels=3)
    with Image.open(path) as opened, pytest.raises(DataError, match="cut short or damaged"):
        to_array(opened, channels=3)


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="channels is 2"):
        to_array(COLOURS, channels=2)
