"""Animations: every frame whole, with its time; written again without loss."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import pixels

from smalti.data.animations import Animation, read_animation
from smalti.data.pictures import Picture, read_picture
from smalti.errors import DataError
from smalti.report.picture_files import save_animation

FRAMES = pixels(3)[:, :12]
TIMES = [40, 100, 260]


def file_of(frames: list[Image.Image], format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    options = {"duration": TIMES, "loop": 3} | ({"lossless": True} if format == "WEBP" else {}) | options
    frames[0].save(file, format, save_all=True, append_images=frames[1:], **options)
    return file.getvalue()


def images(mode: str = "RGB") -> list[Image.Image]:
    return [Image.fromarray(frame).convert(mode) for frame in FRAMES]


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF"])
def test_frames_and_times_are_read(format: str) -> None:
    found = read_animation(file_of(images(), format))
    assert found is not None
    assert list(found.durations_ms) == TIMES
    assert found.loops == 3
    for frame, wanted in zip(found.frames, FRAMES, strict=True):
        if format == "GIF":  # 256 colours
            assert np.abs(frame.pixels[..., :3].astype(int) - wanted).mean() < 8
        else:
            assert np.array_equal(frame.pixels, wanted)


@pytest.mark.parametrize("format", ["png", "webp"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_written_is_read_again(format: str, channels: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    frames = [generator.integers(1, 255, (6, 8, channels)).astype(np.uint8) for _ in range(3)]
    given = Animation(tuple(Picture(frame) for frame in frames), (50.0, 60.0, 70.0), 0)
    save_animation(tmp_path / "x", given, format=format)
    found = read_animation((tmp_path / "x").read_bytes())
    assert found is not None
    assert (found.durations_ms, found.loops) == (given.durations_ms, 0)
    for one, wanted in zip(found.frames, frames, strict=True):
        assert np.array_equal(one.pixels, np.repeat(wanted, 3, axis=2) if one.pixels.shape[2] > channels else wanted)


def test_a_single_picture_is_no_animation(tmp_path: Path) -> None:
    for format in ("PNG", "WEBP", "GIF", "TIFF"):
        file = io.BytesIO()
        images()[0].save(file, format)
        assert read_animation(file.getvalue()) is None
    pages = io.BytesIO()
    images()[0].save(pages, "TIFF", save_all=True, append_images=images()[1:])
    assert read_animation(pages.getvalue()) is None


def test_metadata_belong_to_the_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "discs"
    found = read_animation(file_of(images(), "WEBP", exif=exif))
    assert found is not None
    assert found.frames[0].exif is not None
    for format in ("png", "webp"):
        save_animation(tmp_path / "x", found, format=format)
        assert read_picture(tmp_path / "x").exif is not None


def test_opaque_frames_get_the_alpha_of_others() -> None:
    clear = [image.convert("RGBA") for image in images()]
    clear[1].putalpha(90)
    found = read_animation(file_of(clear, "WEBP", exact=True))
    assert found is not None
    assert [frame.pixels.shape[2] for frame in found.frames] == [4, 4, 4]
    assert [int(frame.pixels[0, 0, 3]) for frame in found.frames] == [255, 90, 255]


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    data = file_of(images(), "GIF")
    with pytest.raises(DataError, match=r"3 frames of 12x16 pixels, the limit for all of them is 400"):
        read_animation(data, pixel_limit=400)
    with pytest.raises(DataError):
        read_animation(b"no picture")
    for format in ("PNG", "WEBP"):
        whole = file_of(images(), format)
        with pytest.raises(DataError):
            read_animation(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match="JPEG has no animations"):
        save_animation(tmp_path / "x", Animation((Picture(FRAMES[0]),), (1.0,), 0), format="jpeg")
