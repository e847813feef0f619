"""Which images of a source an evaluation is taken on."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from small_runs import pixels, write_source

from smalti.errors import SplitError
from smalti.evaluation.sources import Reader


def folders(place: Path, *splits: str) -> str:
    for number, split in enumerate(splits):
        (place / split).mkdir(parents=True)
        for index, picture in enumerate(pixels(3 + number, seed=number)):
            Image.fromarray(picture).save(place / split / f"{index}.png")
    return str(place)


@pytest.mark.parametrize(
    ("splits", "expected"), [(("train", "val", "test"), "test"), (("train", "val"), "val"), (("train",), "train")]
)
def test_figures_are_taken_on_test_before_val_before_everything(
    tmp_path: Path, cache: Path, splits: tuple[str, ...], expected: str
) -> None:
    assert Reader(cache=cache).held_out(folders(tmp_path / "in", *splits)).split == expected


def test_a_split_that_is_asked_for_is_taken_or_refused(tmp_path: Path, cache: Path) -> None:
    source = folders(tmp_path / "in", "train", "test")
    assert Reader("train", cache=cache).held_out(source).split == "train"
    with pytest.raises(SplitError):
        Reader("val", cache=cache).held_out(source)


def test_only_the_split_that_is_needed_is_packed(tmp_path: Path, cache: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    source = folders(tmp_path / "in", "train", "test")
    Reader(cache=cache, progress=lambda *call: told.append(call)).held_out(source)
    assert {(what, total) for what, _, total in told} == {(f"packing {source}", 4)}


def test_the_shape_of_a_model_fills_in_what_was_left_open(tmp_path: Path, cache: Path) -> None:
    source = str(write_source(tmp_path / "discs.npz"))
    assert Reader(cache=cache).held_out(source, (1, 8, 12)).shape == (1, 8, 12)
    assert Reader(cache=cache).held_out(source, (1, None, None)).shape == (1, 16, 16)
    assert Reader(size=(4, 4), channels=3, cache=cache).held_out(source, (1, 8, 12)).shape == (3, 4, 4)


def test_judged_images_without_splits_are_judged_whole(tmp_path: Path, cache: Path) -> None:
    plain, split = str(write_source(tmp_path / "discs.npz")), folders(tmp_path / "in", "train", "test")
    reader = Reader("test", cache=cache)
    assert (reader.judged(plain).split, len(reader.judged(plain))) == (None, 40)
    assert reader.judged(split).split == "test"
    assert reader.judged(split, "train").split == "train"
    for other, wanted in ((Reader("val", cache=cache), None), (reader, "val")):
        with pytest.raises(SplitError):
            other.judged(split, wanted)
    with pytest.raises(SplitError):
        Reader(cache=cache).judged(plain, "test")


def test_training_images_have_the_shape_of_the_reference(tmp_path: Path, cache: Path) -> None:
    source = folders(tmp_path / "in", "train", "test")
    reader = Reader("test", cache=cache)
    reference = Reader("test", (8, 8), channels=1, cache=cache).held_out(source)
    found = reader.training(source, reference)
    assert (found.split, found.shape) == ("train", (1, 8, 8))
