"""Sources that are missing, broken or not what was asked for: one line that says what to do, and no harm done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import refusal
from picture_files import make_array, make_file, pictures, write_files, write_tar, write_zip
from PIL import Image

from smalti.cli.inspect import first_command
from smalti.data import inspect, load
from smalti.errors import ConfigError, DataError


@pytest.mark.parametrize(("word", "meant"), [("cifra10", "cifar10"), ("emojis", "emoji"), ("CIFAR-10", "cifar10")])
def test_a_misspelt_word_is_understood(cache: Path, word: str, meant: str) -> None:
    assert f"did you mean '{meant}'?" in refusal(word, cache)


def test_a_misspelt_path_is_understood(tmp_path: Path, cache: Path) -> None:
    write_files(tmp_path / "pictures", pictures(2))
    said = refusal(tmp_path / "pictuers", cache)
    assert "does not exist" in said
    assert str(tmp_path / "pictures") in said
    assert "cifar10, emoji" in refusal(tmp_path / "qqqqqqqqqqqqqqq" / "wwwwwwwwwwwwww", cache)


def test_an_empty_folder_and_one_without_images(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no images (0 other files)" in refusal(tmp_path / "empty", cache)
    write_files(tmp_path / "texts", {"a.txt": b"1", "b.csv": b"2"})
    assert "holds no images (2 other files)" in refusal(tmp_path / "texts", cache)
    assert "holds no images" in refusal(write_zip(tmp_path / "a.zip", {}), cache)
    assert "holds no images" in refusal(write_tar(tmp_path / "a.tar", {"notes.txt": b"1"}), cache)


def test_a_file_that_holds_no_images(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.doc").write_bytes(b"hello" * 1000)
    assert "expected a folder, zip, tar, npz, IDX, CIFAR-10 or .smt file" in refusal(tmp_path / "a.doc", cache)
    (tmp_path / "empty.tar").write_bytes(b"")
    assert "holds no set of images" in refusal(tmp_path / "empty.tar", cache)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_for(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(4))
    os.mkfifo(folder / "cat/pipe.png")
    packed = load(folder, cache=cache)
    assert packed.skipped == (("cat/pipe.png", "not a regular file"),)
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file or folder" in refusal(tmp_path / "pipe", tmp_path / "other")


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ([(40, 40)], ""),
        ([(300, 300)], " --size 64"),
        ([(64, 90), (200, 70), (80, 80), (500, 40)], " --size 64"),
        ([(64, 90), (200, 70), (40, 80), (500, 40)], " --size 32"),
        ([(8, 8), (9, 9)], " --size 32"),
    ],
)
def test_the_suggested_size_is_one_that_most_pictures_fill(
    tmp_path: Path, cache: Path, sides: list[tuple[int, int]], said: str
) -> None:
    (tmp_path / "in").mkdir()
    for number, size in enumerate(sides):
        Image.new("RGB", size).save(tmp_path / "in" / f"{number}.png")
    assert first_command(tmp_path / "in", inspect(tmp_path / "in", cache=cache)).endswith(f"runs/first{said}")


def test_the_home_of_a_user_is_understood_and_that_of_nobody_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "a.png")
    assert inspect("~/in", cache="~/cache").images == len(load("~/in", cache="~/cache")) == 1
    assert (tmp_path / "cache" / "packed").is_dir()
    for look in (inspect, load):
        with pytest.raises(DataError, match="nobody here"):
            look("~nosuchuser/in", cache=tmp_path)
        with pytest.raises(DataError, match="nobody here"):
            look(tmp_path / "in", cache="~nosuchuser/cache")


def test_an_unknown_split_names_the_splits(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(4, prefix="train/") | pictures(4, prefix="val/"))
    assert "no split 'test'; it has train, val" in refusal(folder, cache, split="test")
    flat = write_files(tmp_path / "flat", pictures(4))
    assert "has no splits" in refusal(flat, cache, split="train")
    two = write_files(tmp_path / "two", pictures(4, prefix="test/") | pictures(4, prefix="val/"))
    assert "choose one of val, test" in refusal(two, cache)
    assert "no split 'val'" in refusal("emoji", cache, split="val")


def test_several_sizes_are_listed(tmp_path: Path, cache: Path) -> None:
    sizes = [(4, 6)] * 3 + [(6, 4)] * 2 + [(5, 5)]
    files = {f"{i}.png": make_file(make_array(i, height=h, width=w)) for i, (h, w) in enumerate(sizes)}
    said = refusal(write_files(tmp_path / "in", files), cache)
    assert "found 4x6 (3), 6x4 (2) and 5x5 (1); give `size`, for example `size=64`" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "1 to 16384"), ({"size": (8, -1)}, "1 to 16384"), ({"channels": 2}, "channels is 2"),
        ({"resize": "squeeze"}, "resize is 'squeeze'"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(tmp_path: Path, cache: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(write_files(tmp_path / "in", pictures(2)), cache=cache, **options)


def test_up_to_half_of_the_files_may_be_broken(tmp_path: Path, cache: Path) -> None:
    files = pictures(8)
    names = list(files)
    files[names[0]], files[names[3]], files[names[7]] = b"", files[names[3]][:50], b"hello"
    for source in (
        write_files(tmp_path / "in", files), write_zip(tmp_path / "a.zip", files), write_tar(tmp_path / "a.tar", files)
    ):  # fmt: skip
        packed = load(source, cache=cache)
        assert [name for name, _ in packed.skipped] == sorted([names[0], names[3], names[7]])
        assert all(reason for _, reason in packed.skipped)
        assert len(packed) == len(packed.names) == 5
        assert packed.labels is not None
        for i, name in enumerate(packed.names):
            assert np.array_equal(packed.images[i], make_array(int(Path(name).stem)))
            assert packed.classes[packed.labels[i]] == name.split("/")[0]
        again = load(source, cache=cache)
        assert (again.skipped, again.fingerprint) == (packed.skipped, packed.fingerprint)


def test_captions_stay_with_their_images_when_others_are_skipped(tmp_path: Path, cache: Path) -> None:
    files = {f"{i}.png": make_file(make_array(i)) for i in range(5)} | {
        f"{i}.txt": f"text {i}".encode() for i in range(5)
    }
    files["1.png"] = b"broken"
    packed = load(write_files(tmp_path / "in", files), cache=cache)
    assert packed.captions is not None
    assert list(packed.captions) == ["text 0", "text 2", "text 3", "text 4"]


def test_more_than_half_broken_is_an_error_with_the_first_three(tmp_path: Path, cache: Path) -> None:
    files = {f"{i}.png": b"broken" for i in range(5)} | {f"{i}.png": make_file(make_array(i)) for i in range(5, 9)}
    said = refusal(write_files(tmp_path / "in", files), cache)
    assert "5 of 9 files" in said
    assert "0.png: not an image" in said
    assert "2.png" in said
    assert "and 2 more" in said
    assert "3.png" not in said
    all_broken = dict.fromkeys(files, b"broken")
    assert "none of the 9 files" in refusal(write_files(tmp_path / "all", all_broken), cache)
    assert "9 of 9 files" in refusal(tmp_path / "all", cache, size=8, channels=3)


def test_one_image_is_enough(tmp_path: Path, cache: Path) -> None:
    packed = load(write_files(tmp_path / "in", {"a.png": make_file(make_array(0))}), cache=cache)
    assert packed.batch(0, 0, 3).indices.tolist() == [0, 0, 0]


def test_a_metadata_file_that_is_not_json_names_its_line(tmp_path: Path, cache: Path) -> None:
    files = pictures(2) | {"metadata.jsonl": b'{"file_name": "a", "text": "b"}\n{"file_name'}
    assert "line 2 of metadata.jsonl is not JSON" in refusal(write_files(tmp_path / "in", files), cache)


def test_inspect_of_bad_data_is_a_data_error_too(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        inspect(tmp_path / "nowhere", cache=cache)
    write_files(tmp_path / "in", {"a.png": b"broken", "b.png": make_file(make_array(0))})
    assert inspect(tmp_path / "in", cache=cache).broken[0][0] == "a.png"
