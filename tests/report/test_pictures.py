"""Contact sheets and PNG files."""

from __future__ import annotations

import errno
import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smalti.errors import DataError, OutputError
from smalti.report import pictures


def some(count: int = 5, height: int = 4, width: int = 4, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


# Sheets


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grid_holds_each_image_in_reading_order(channels: int) -> None:
    images = some(5, 4, 6, channels)
    sheet = pictures.grid(images, columns=3, padding=2)
    assert sheet.shape == (2 + 2 * (4 + 2), 2 + 3 * (6 + 2), channels)
    for i, image in enumerate(images):
        top, left = 2 + (i // 3) * 6, 2 + (i % 3) * 8
        assert np.array_equal(sheet[top : top + 4, left : left + 6], image)


@pytest.mark.parametrize(("channels", "expected"), [(1, 255), (3, 255), (4, 0)])
def test_the_default_background_is_white_or_transparent(channels: int, expected: int) -> None:
    sheet = pictures.grid(some(3, channels=channels), columns=2)
    assert (sheet[:2] == expected).all()
    assert (sheet[-6:-2, -6:-2] == expected).all()  # the position of the missing fourth image


def test_background_is_one_value_or_one_a_channel() -> None:
    assert (pictures.grid(some(), background=7)[0, 0] == 7).all()
    assert pictures.grid(some(), background=(1, 2, 3))[0, 0].tolist() == [1, 2, 3]


def test_scale_repeats_pixels_and_leaves_the_padding() -> None:
    images = some(1, 2, 3)
    sheet = pictures.grid(images, scale=4, padding=1)
    assert sheet.shape == (2 * 4 + 2, 3 * 4 + 2, 3)
    assert np.array_equal(sheet[1:-1:4, 1:-1:4], images[0])
    assert np.array_equal(sheet[4:-1:4, 4:-1:4], images[0])


@pytest.mark.parametrize(
    ("count", "height", "width", "columns"), [(1, 8, 8, 1), (2, 8, 8, 2), (9, 8, 8, 3), (64, 32, 32, 8), (16, 8, 32, 2)]
)
def test_the_default_sheet_is_about_square(count: int, height: int, width: int, columns: int) -> None:
    sheet = pictures.grid(some(count, height, width), padding=0)
    assert sheet.shape[1] == columns * width


def test_no_padding_is_a_plain_mosaic() -> None:
    images = some(4)
    assert np.array_equal(
        pictures.grid(images, columns=2, padding=0),
        np.vstack([np.hstack([images[0], images[1]]), np.hstack([images[2], images[3]])]),
    )


def test_side_by_side_puts_after_under_before() -> None:
    before, after = some(5), 255 - some(5)
    sheet = pictures.side_by_side(before, after, columns=3, padding=2, scale=1)
    assert sheet.shape == (2 + (4 + 2 + 4) + 8 + (4 + 2 + 4) + 2, 2 + 3 * (4 + 2), 3)
    assert np.array_equal(sheet[2:6, 8:12], before[1])
    assert np.array_equal(sheet[8:12, 8:12], after[1])
    assert np.array_equal(sheet[20:24, 2:6], before[3])
    assert np.array_equal(sheet[26:30, 2:6], after[3])


def test_side_by_side_names_both_shapes_when_they_differ() -> None:
    with pytest.raises(DataError, match=r"\(5, 4, 4, 3\) and \(4, 4, 4, 3\)"):
        pictures.side_by_side(some(5), some(4))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((2, 0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.float32),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images: np.ndarray) -> None:
    with pytest.raises(DataError, match="shape"):
        pictures.grid(images)


@pytest.mark.parametrize(
    "settings", [{"columns": 0}, {"padding": -1}, {"scale": 0}, {"background": 256}, {"background": (1, 2)}]
)
def test_numbers_that_make_no_sheet_are_refused(settings: dict) -> None:
    with pytest.raises(DataError, match=r"column|padding|scale|background"):
        pictures.grid(some(), **settings)


def test_checker_shows_through_where_alpha_is_low() -> None:
    images = np.zeros((2, 8, 8, 4), np.uint8)
    images[1] = (10, 20, 30, 255)
    images[0, 0, 0] = (255, 0, 0, 128)
    seen = pictures.over_checker(images, cell=4, light=255, dark=200)
    assert seen.shape == (2, 8, 8, 3)
    assert (seen[0, 1:4, 1:4] == 255).all()
    assert (seen[0, :4, 4:] == 200).all()
    assert (seen[0, 4:, 4:] == 255).all()
    assert (seen[1] == (10, 20, 30)).all()
    assert seen[0, 0, 0].tolist() == [255, 127, 127]
    assert pictures.over_checker(images[0]).shape == (8, 8, 3)


def test_checker_wants_alpha() -> None:
    with pytest.raises(DataError, match="4 channels"):
        pictures.over_checker(some())
    with pytest.raises(DataError, match="at least 1 pixel"):
        pictures.over_checker(some(channels=4), cell=0)


# PNG files


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_png_keeps_pixels_and_text(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    text = {"model": "sha256:abc", "settings": '{"seed": 1}', "title": "żółw 🐢\nsecond line", "empty": ""}
    path = tmp_path / "new" / "folders" / "picture.png"
    pictures.write_png(path, image, text)
    with Image.open(path) as opened:
        assert np.array_equal(np.asarray(opened).reshape(shape), image)
        opened.load()
        assert {key: str(value) for key, value in opened.text.items()} == text
    assert pictures.read_png_text(path) == text
    assert os.listdir(path.parent) == ["picture.png"]


def test_png_takes_sliced_arrays_and_replaces_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    image = some(1)[0][::-1, ::2]
    pictures.write_png(str(path), image)
    assert np.array_equal(np.asarray(Image.open(path)), image)
    assert pictures.read_png_text(path) == {}


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pictures.write_png(tmp_path / name, some(1)[0], {"seed": "7"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    pictures.write_png(tmp_path / "a.png", some(1)[0])
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("keyword", ["", "x" * 80, " lead", "a\nb", "clé", "\0"])
def test_keywords_png_cannot_hold_are_refused(tmp_path: Path, keyword: str) -> None:
    with pytest.raises(DataError, match="keyword"):
        pictures.write_png(tmp_path / "a.png", some(1)[0], {keyword: "value"})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_values_png_cannot_hold_are_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(DataError, match="keyword 'key'"):
        pictures.write_png(tmp_path / "a.png", some(1)[0], {"key": value})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "image", [np.zeros((2, 2, 3), np.float32), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(DataError, match="picture"):
        pictures.write_png(tmp_path / "a.png", image)


# Errors while writing


def test_a_folder_in_the_place_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match=r"taken \(it is a folder\)"):
        pictures.write_png(tmp_path / "taken", some(1)[0])
    assert os.listdir(tmp_path) == ["taken"]


def test_a_file_where_a_folder_should_be_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OutputError, match="cannot write"):
        pictures.write_png(tmp_path / "file" / "a.png", some(1)[0])


def test_a_name_that_is_too_long_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        pictures.write_png(tmp_path / ("x" * 300), some(1)[0])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_failed_write_keeps_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError) as caught:
        pictures.write_png(path, some(1)[0])
    assert f"cannot write {path} ({os.strerror(number)})" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pictures.write_png(tmp_path / "a.png", some(1)[0])
    assert os.listdir(tmp_path) == []


# Errors while reading


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def test_all_three_kinds_of_text_are_read_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(
        png(
            chunk(b"tEXt", b"plain\0caf\xe9"),
            chunk(b"IDAT", b"never decoded"),
            chunk(b"zTXt", b"small\0\0" + zlib.compress(b"folded")),
            chunk(b"iTXt", b"wide\0\0\0en\0\0" + "żółw".encode()),
            chunk(b"iTXt", b"both\0\x01\0\0\0" + zlib.compress("żółw".encode())),
        )
    )
    assert pictures.read_png_text(tmp_path / "a.png") == {
        "plain": "café",
        "small": "folded",
        "wide": "żółw",
        "both": "żółw",
    }


DAMAGED = {
    "empty": b"",
    "a GIF": b"GIF89a",
    "no end": png(chunk(b"IDAT", b"x"))[:-12],
    "cut in the text": b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"key\0value")[:-6],
    "wrong checksum": png(chunk(b"tEXt", b"key\0value")[:-1] + b"?"),
    "not deflate": png(chunk(b"zTXt", b"key\0\0value")),
    "a bomb": png(chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2**25)))),
    "a false length": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 2**32 - 1, b"tEXt"),
    "a false length elsewhere": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 2**32 - 1, b"IDAT"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError) as caught:
        pictures.read_png_text(tmp_path / "a.png")
    assert "a.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_small_bombs_share_one_limit(tmp_path: Path) -> None:
    body = b"key\0\0" + zlib.compress(bytes(9 * 2**20))
    (tmp_path / "a.png").write_bytes(png(chunk(b"zTXt", body), chunk(b"zTXt", body)))
    with pytest.raises(DataError, match="more than 16 MiB"):
        pictures.read_png_text(tmp_path / "a.png")


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        pictures.read_png_text(tmp_path / "none.png")
    with pytest.raises(DataError, match="cannot read"):
        pictures.read_png_text(tmp_path)
