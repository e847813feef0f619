"""Decoding: parity with Pillow called directly, the stated rules, and files that are broken on purpose."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageOps

from smalti.data import images
from smalti.errors import ConfigError, DataError


def save(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Something smooth with edges, so that JPEG and resizing have work to do."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 120 * np.sin(x / 9 + k) * np.cos(y / 7 - k) for k in range(3)]
    image = Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))
    ImageDraw.Draw(image).rectangle((width // 4, height // 4, width // 2, height // 2), fill=(250, 10, 30))
    return image.convert(mode)


pixel_arrays = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4])), elements=st.integers(0, 255)
)


def png(array: np.ndarray) -> bytes:
    return save(images.as_image(array))


@given(pixel_arrays)
def test_png_keeps_every_pixel(array: np.ndarray) -> None:
    assert np.array_equal(images.decode(png(array), channels=array.shape[2]), array)


def test_grey_pixels_need_no_channel_axis() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(images.decode(png(array)), array[:, :, None])


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.float32), np.zeros(4, np.uint8)]
)
def test_pixels_that_are_no_picture_say_what_they_are(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected uint8"):
        images.as_image(array)


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("LA", 1), ("I;16", 1)]
)
def test_opaque_pictures_have_the_channels_that_their_mode_says(mode: str, channels: int) -> None:
    assert images.decode(save(photo(8, 6, mode))).shape == (6, 8, channels)


def test_a_transparent_pixel_makes_four_channels() -> None:
    for mode, channels in (("RGBA", 4), ("LA", 4)):
        image = photo(8, 6, mode)
        image.putpixel((0, 0), (9, 9, 9, 0) if mode == "RGBA" else (9, 0))
        assert images.decode(save(image)).shape == (6, 8, channels)


def test_transparent_palette_colour_becomes_alpha() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    data = save(image, transparency=0)
    assert images.decode(data).tolist() == [[[255, 0, 0, 0], [0, 0, 255, 255]]]
    assert images.decode(data, channels=3).tolist() == [[[255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_other_colour_spaces_become_rgb(mode: str) -> None:
    image = photo(16, 16, mode)
    data = save(image, "TIFF")
    assert np.array_equal(images.decode(data), np.asarray(image.convert("RGB")))


def test_grey_is_repeated_and_colour_becomes_luma_601() -> None:
    grey = photo(8, 8, "L")
    assert np.array_equal(images.decode(save(grey), channels=3), np.repeat(np.asarray(grey)[:, :, None], 3, axis=2))
    colour = np.asarray(photo(8, 8)).astype(np.float64)
    luma = colour @ [0.299, 0.587, 0.114]
    assert np.abs(images.decode(save(photo(8, 8)), channels=1)[:, :, 0] - luma).max() <= 1


def test_alpha_is_laid_over_white_and_opaque_alpha_is_added() -> None:
    image = Image.new("RGBA", (1, 1), (0, 100, 200, 128))
    expected = np.array([0, 100, 200]) * 128 / 255 + 255 * (1 - 128 / 255)
    assert np.abs(images.decode(save(image), channels=3)[0, 0] - expected).max() <= 1
    assert images.decode(save(photo(2, 2)), channels=4)[..., 3].tolist() == [[255, 255], [255, 255]]


def test_sixteen_bit_grey_is_rounded_not_cut() -> None:
    values = np.array([[0, 128, 129, 256, 32768, 65406, 65407, 65535]], np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    assert np.array_equal(images.decode(save(Image.fromarray(values)))[:, :, 0], expected)
    assert np.array_equal(images.decode(save(Image.fromarray(values), "TIFF"))[:, :, 0], expected)


def test_32_bit_integers_are_clipped_to_16_bits() -> None:
    values = np.array([[-5, 0, 65535, 70000]], np.int32)
    assert images.decode(save(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 0, 255, 255]


def test_float_grey_is_scaled_from_one_kept_from_255_and_refused_beyond() -> None:
    def decoded(*values: float) -> list[int]:
        return images.decode(save(Image.fromarray(np.array([values], np.float32)), "TIFF"))[0, :, 0].tolist()

    assert decoded(0.0, 0.5, 1.0) == [0, 128, 255]
    assert decoded(0.0, 99.6, 255.0) == [0, 100, 255]
    for wrong in (-1.0, 300.0, float("nan")):
        with pytest.raises(DataError, match=r"expected \[0, 1\] or \[0, 255\]"):
            decoded(0.0, wrong)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(Image.fromarray(array), "PNG", exif=exif.tobytes())
    flipped = array.transpose(1, 0, 2)
    turned = {
        1: array, 2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1],
        5: flipped, 6: flipped[:, ::-1], 7: flipped[::-1, ::-1], 8: flipped[::-1],
    }  # fmt: skip
    decoded = images.decode(data)
    assert np.array_equal(decoded, turned[orientation])
    header = images.probe(data)
    assert (header.height, header.width) == decoded.shape[:2]


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        data = save(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert images.decode(data, channels=3)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(32, 32), (20, 48), (64, 64), (97, 13)])
def test_resizing_equals_pillow_called_directly(size: tuple[int, int]) -> None:
    height, width = size
    image = photo(60, 40)
    data = save(image)
    lanczos = Image.Resampling.LANCZOS
    cover = ImageOps.fit(image, (width, height), method=lanczos)
    assert np.array_equal(images.decode(data, size=size, resize="cover"), np.asarray(cover))
    stretch = image.resize((width, height), lanczos)
    assert np.array_equal(images.decode(data, size=size, resize="stretch"), np.asarray(stretch))
    contain = ImageOps.pad(image, (width, height), method=lanczos, color="white")
    assert np.array_equal(images.decode(data, size=size, resize="contain"), np.asarray(contain))


def test_contain_pads_white_or_transparent() -> None:
    data = save(Image.new("RGB", (8, 4), "red"))
    assert images.decode(data, size=(8, 8), resize="contain")[0, 0].tolist() == [255, 255, 255]
    assert images.decode(data, size=(8, 8), resize="contain", channels=4)[0, 0].tolist() == [0, 0, 0, 0]
    assert images.decode(data, size=(8, 8), resize="contain", channels=1)[0, 0].tolist() == [255]


@pytest.mark.parametrize("rule", images.RESIZE_RULES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_of_the_size_is_not_touched(rule: str, channels: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (7, 9, channels), dtype=np.uint8)
    data = png(array)
    assert np.array_equal(images.decode(data, channels=channels, size=(7, 9), resize=rule), array)


def test_transparent_pixels_lend_no_colour_when_resized() -> None:
    array = np.zeros((8, 8, 4), np.uint8)
    array[:, :4] = (255, 0, 0, 0)  # invisible red
    array[:, 4:] = (0, 0, 255, 255)
    small = images.decode(png(array), size=(4, 4))
    visible = small[small[..., 3] > 16]
    assert visible[:, 0].max() <= 2
    assert visible[:, 2].min() >= 253


@pytest.mark.parametrize("orientation", range(1, 9))
def test_large_jpeg_shrunk_while_decoding_looks_like_one_shrunk_after(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(photo(700, 500), "JPEG", quality=95, exif=exif.tobytes())
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened)
    for size in ((48, 64), (64, 40)):
        for rule in images.RESIZE_RULES:
            reference = np.asarray(images.fit(image, size, resize=rule)).astype(float)
            decoded = images.decode(data, size=size, resize=rule).astype(float)
            assert decoded.shape == reference.shape
            assert np.sqrt(np.mean((decoded - reference) ** 2)) < 4


def test_changing_pixels_equals_changing_files() -> None:
    array = np.asarray(photo(20, 12, "RGBA"))
    for channels in (1, 3, 4):
        for size in (None, (8, 8)):
            changed = images.change(array, channels=channels, size=size)
            assert np.array_equal(changed, images.decode(png(array), channels=channels, size=size))


def png_declaring(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8300, 12_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    with pytest.raises(DataError, match="declares"):
        images.decode(png_declaring(side, side))


def test_the_pixel_limit_can_be_set() -> None:
    data = save(photo(10, 10))
    assert images.decode(data, pixel_limit=100).shape == (10, 10, 3)
    with pytest.raises(DataError, match="10x10 pixels, the limit is 99"):
        images.decode(data, pixel_limit=99)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_a_file_that_is_cut_short_is_refused(kind: str) -> None:
    data = save(photo(64, 48), kind)
    for fraction in (0.1, 0.5, 0.9):
        with pytest.raises(DataError, match=r"cut short|not an image|damaged"):
            images.decode(data[: int(len(data) * fraction)])


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(1000)])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="not an image"):
        images.decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@settings(max_examples=40, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=6))
def test_damaged_bytes_give_pixels_or_a_data_error(kind: str, flips: list[tuple[int, int]]) -> None:
    data = bytearray(save(photo(12, 10), kind))
    for place, bits in flips:
        data[place % len(data)] ^= bits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata; that is not what is tested here
        try:
            decoded = images.decode(bytes(data), channels=3, size=(8, 8))
        except DataError:
            return
    assert decoded.shape == (8, 8, 3)


def test_unknown_options_say_what_there_is() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cover'"):
        images.decode(save(photo(4, 4)), size=(2, 2), resize="covr")
    with pytest.raises(ConfigError, match="channels is 2"):
        images.decode(save(photo(4, 4)), channels=2)


def test_decoding_in_threads_leaves_warnings_and_limits_as_they_were() -> None:
    data = save(photo(16, 16))
    before, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    threads = [threading.Thread(target=lambda: [images.decode(data) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
    assert limit == Image.MAX_IMAGE_PIXELS
