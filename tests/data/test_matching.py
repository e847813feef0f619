"""Matching of two sources by name: which images are pairs, and why others are not."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import pixels

from smalti.data import load_pairs
from smalti.data.matching import partner_keys
from smalti.errors import DataError


def write(folder: Path, names: dict[str, tuple[int, int]]) -> Path:
    """Pictures of these (width, height), each of one colour of its own."""
    for number, (name, size) in enumerate(names.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number, 100, 200)).save(folder / name)
    return folder


def square(*names: str, side: int = 12) -> dict[str, tuple[int, int]]:
    return dict.fromkeys(names, (side, side))


@pytest.mark.parametrize(
    ("inputs", "targets", "keys"),
    [
        (["1.png", "2.jpg"], ["1.webp", "2.png"], (["1", "2"], ["1", "2"])),
        (["bad/1.png", "bad/2.png"], ["good/1.png"], (["1", "2"], ["1"])),
        (["bad/x/1.png"], ["good/x/1.png", "good/y/1.png"], (["x/1"], ["x/1", "y/1"])),
        (["a.b.png", "c.txt"], ["a.b.png"], (["a.b", "c.txt"], ["a.b"])),
        (["cat/1.png"], ["cat/1.png"], (["cat/1"], ["cat/1"])),
    ],
)
def test_partners_have_the_same_key(inputs: list[str], targets: list[str], keys: tuple[list[str], list[str]]) -> None:
    assert partner_keys(inputs, targets) == keys


def test_folders_match_whatever_the_format_and_order(tmp_path: Path, cache: Path) -> None:
    bad = write(tmp_path / "bad", square("b/10.png", "b/9.png", "a/1.bmp"))
    good = write(tmp_path / "good", square("a/1.png", "b/9.webp", "b/10.png"))
    pairs = load_pairs(bad, good, cache=cache)
    assert (len(pairs), pairs.skipped, pairs.spec.shape) == (3, (), (3, 12, 12))
    batch = pairs.take(np.arange(3))
    # The colours are those that were written: a/1, b/9, b/10.
    assert batch.images[:, 0, 0, 0].tolist() == [2, 1, 0]
    assert batch.targets[::2, 0, 0, 0].tolist() == [0, 2]


def test_archives_and_folders_match(tmp_path: Path, cache: Path) -> None:
    bad = write(tmp_path / "bad", square("1.png", "2.png"))
    write(tmp_path / "good", square("1.png", "2.png"))
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as archive:
        for name in ("2.png", "1.png"):
            archive.write(tmp_path / "good" / name, f"good/{name}")
    pairs = load_pairs(bad, tmp_path / "good.zip", cache=cache)
    taken = pairs.take(np.arange(2))
    assert np.array_equal(taken.images, taken.targets)


def test_what_is_no_pair_is_left_out_with_its_reason(tmp_path: Path, cache: Path) -> None:
    names = [f"{number}.png" for number in range(9)]
    bad = write(tmp_path / "bad", square(*names, "alone.png") | {"0.png": (12, 11)})
    good = write(tmp_path / "good", square(*names, "other.png", "1.bmp"))
    (good / "2.png").write_bytes(b"no picture")
    for _ in range(2):  # the second time from the cache
        pairs = load_pairs(bad, good, size=12, cache=cache)
        reasons = dict(pairs.skipped)
        assert "has no partner in" in reasons["alone.png"]
        assert "has no partner in" in reasons["other.png"]
        assert "another image has the same name" in reasons["1.bmp"]
        assert "pixels and its partner" in reasons["0.png"]
        assert "2.png" in reasons
        assert len(pairs) == 6
        taken = pairs.take(np.arange(6))
        assert np.array_equal(taken.images[:, 0, 0, 0], taken.targets[:, 0, 0, 0])
        assert taken.images[:, 0, 0, 0].tolist() == [3, 4, 5, 6, 7, 8]


def test_a_changed_partner_is_noticed(tmp_path: Path, cache: Path) -> None:
    bad, good = (write(tmp_path / name, square("1.png", "2.png", "3.png")) for name in ("bad", "good"))
    assert len(load_pairs(bad, good, cache=cache)) == 3
    (good / "3.png").unlink()
    pairs = load_pairs(bad, good, cache=cache)
    assert (len(pairs), pairs.skipped[0][0]) == (2, "3.png")


@pytest.mark.parametrize(
    ("inputs", "targets", "scale", "said"),
    [
        (
            square("1.png"),
            square("2.png"),
            1,
            r"no image of .*bad has a partner in .*good; .* here are 1.png and 2.png",
        ),
        (square("1.png", "2.png", "3.png"), square("1.png"), 1, "2 of the 3 images of .*bad are no pair with one of"),
        (square("1.png"), square("1.png", side=24), 1, "1 of the 1 images .* has 12x12 pixels and its partner 24x24"),
        (square("1.png"), square("1.png"), 2, "a target of exactly 2 times the sides"),
        (square("1.png"), square("1.png", side=25), 2, "its partner 25x25"),
        (square("train/1.png", "test/1.png"), square("1.png"), 1, "pairs need the same"),
        ({"1.png": (9, 9), "2.png": (8, 8)}, {"1.png": (9, 9), "2.png": (8, 8)}, 1, "images of several sizes"),
    ],
)
def test_sources_that_are_no_pairs(
    tmp_path: Path, cache: Path, inputs: dict, targets: dict, scale: int, said: str
) -> None:
    bad, good = write(tmp_path / "bad", inputs), write(tmp_path / "good", targets)
    with pytest.raises(DataError, match=said):
        load_pairs(bad, good, scale=scale, cache=cache)


def test_channels_are_those_that_both_need(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "good", square("1.png", "2.png"))
    for number in (1, 2):
        (tmp_path / "bad").mkdir(exist_ok=True)
        Image.new("L", (12, 12), number).save(tmp_path / "bad" / f"{number}.png")
    pairs = load_pairs(tmp_path / "bad", tmp_path / "good", cache=cache)
    assert pairs.spec.channels == 3


def test_blocks_of_pixels_match_by_number(tmp_path: Path, cache: Path) -> None:
    images = pixels(5)
    np.savez(tmp_path / "a.npz", images=images)
    np.savez(tmp_path / "b.npz", images=255 - images[:3])
    pairs = load_pairs(tmp_path / "a.npz", tmp_path / "b.npz", cache=cache)
    assert (len(pairs), len(pairs.skipped)) == (3, 2)
    taken = pairs.take(np.arange(3))
    assert np.array_equal(taken.images, 255 - taken.targets)
