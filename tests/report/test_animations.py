"""Animations, read back with Pillow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import frames_of
from PIL import Image

from smalti.errors import DataError, OutputError
from smalti.report.animations import ANIMATED, IMAGE_DESCRIPTION, write_animation

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def some(count: int = 5, height: int = 6, width: int = 9, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def about(path: Path) -> Any:
    with Image.open(path) as opened:
        return json.loads(opened.info["comment"] if path.suffix == ".gif" else opened.getexif()[IMAGE_DESCRIPTION])


@pytest.mark.parametrize("kind", ANIMATED)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_frame_comes_back_as_it_was(tmp_path: Path, kind: str, channels: int, count: int) -> None:
    frames = some(count, channels=channels)  # 54 pixels: a GIF has room for all their colours
    write_animation(tmp_path / f"a.{kind}", frames)
    assert np.array_equal(frames_of(tmp_path / f"a.{kind}", MODES[channels]), frames)


def test_a_webp_keeps_transparency(tmp_path: Path) -> None:
    frames = some(channels=4)
    frames[:, :2, :, 3], frames[3, ..., 3] = 0, 0  # one is fully transparent
    write_animation(tmp_path / "a.webp", frames)
    found = frames_of(tmp_path / "a.webp", "RGBA")
    assert np.array_equal(found[..., 3], frames[..., 3])
    seen = frames[..., 3] > 0
    assert np.array_equal(found[seen], frames[seen])


def test_a_gif_has_transparency_laid_over_white(tmp_path: Path) -> None:
    frames = some(channels=4)
    frames[:, :2, :, 3], frames[3, ..., 3], frames[4, ..., 3] = 0, 0, 255
    write_animation(tmp_path / "a.gif", frames)
    found = frames_of(tmp_path / "a.gif", "RGBA").astype(int)
    share = frames[..., 3:] / 255
    assert abs(found[..., :3] - (share * frames[..., :3] + (1 - share) * 255)).max() <= 1
    assert (found[..., 3] == 255).all()


def test_more_colours_than_a_gif_holds_are_brought_near(tmp_path: Path) -> None:
    ramp = np.mgrid[:64, :64].transpose(1, 2, 0) * 4
    frames = np.stack([np.dstack([ramp, np.full((64, 64), blue)]) for blue in (0, 120, 255)]).astype(np.uint8)
    write_animation(tmp_path / "a.gif", frames)
    found = frames_of(tmp_path / "a.gif", "RGB")
    assert found.shape == frames.shape
    assert abs(found.astype(int) - frames).mean() < 8


@pytest.mark.parametrize("kind", ANIMATED)
def test_it_plays_without_end_at_the_speed_asked_for(tmp_path: Path, kind: str) -> None:
    write_animation(tmp_path / f"a.{kind}", some(4), frame_ms=130)
    with Image.open(tmp_path / f"a.{kind}") as opened:
        assert (opened.n_frames, opened.info["loop"]) == (4, 0)
        for number in range(4):
            opened.seek(number)
            opened.load()
            assert opened.info["duration"] == 130


@pytest.mark.parametrize("kind", ANIMATED)
@pytest.mark.parametrize("count", [1, 4])
def test_the_text_comes_back(tmp_path: Path, kind: str, count: int) -> None:
    text = {"smalti.model": "abc", "smalti.source": "żółw 🐢\nb \x00 \udcff", "long": "x" * 3000, "empty": ""}
    write_animation(tmp_path / f"a.{kind}", some(count), text)
    assert about(tmp_path / f"a.{kind}") == text
    write_animation(tmp_path / f"b.{kind}", some(count))
    assert about(tmp_path / f"b.{kind}") == {}


@pytest.mark.parametrize("kind", ANIMATED)
def test_frames_that_are_all_the_same_are_one_picture(tmp_path: Path, kind: str) -> None:
    write_animation(tmp_path / f"a.{kind}", some(1).repeat(100, axis=0), {"a": "b"}, frame_ms=6000)
    found = frames_of(tmp_path / f"a.{kind}", "RGB")
    assert np.array_equal(found[0], some(1)[0])
    assert about(tmp_path / f"a.{kind}") == {"a": "b"}


@pytest.mark.parametrize("kind", ANIMATED)
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, kind: str) -> None:
    for name in ("a", "b"):
        write_animation(tmp_path / f"{name}.{kind}", some(), {"seed": "7"})
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_folders_are_made_capitals_do_not_matter_and_an_older_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "A.GIF"
    for count in (3, 2):
        write_animation(path, some(count)[:, ::-1, ::2])
        assert len(frames_of(path, "RGB")) == count
    assert os.listdir(path.parent) == ["A.GIF"]


@pytest.mark.parametrize("name", ["a.png", "a.mp4", "a", "a.webp.txt", ".gif"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"an animation is a \.webp or a \.gif, not .*" + name):
        write_animation(tmp_path / name, some())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((2, 0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 2), np.uint8),
        np.zeros((2, 4, 4, 5), np.uint8),
        np.zeros((2, 4, 4, 3), np.float32),
    ],
    ids=lambda frames: f"{frames.shape} {frames.dtype}",
)
def test_what_are_no_frames_is_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(DataError, match=f"not {frames.dtype} of shape"):
        write_animation(tmp_path / "a.webp", frames)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ANIMATED)
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / f"folder.{kind}").mkdir()
    for path in (tmp_path / "file" / f"a.{kind}", tmp_path / f"folder.{kind}", tmp_path / f"{'x' * 300}.{kind}"):
        with pytest.raises(OutputError, match="cannot write"):
            write_animation(path, some(2))
    assert sorted(os.listdir(tmp_path)) == ["file", f"folder.{kind}"]
