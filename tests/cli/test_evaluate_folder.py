"""`smalti evaluate folder`: which images are measured."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import eye, folder, one_line
from PIL import Image


def test_a_split_is_that_of_the_sources_that_have_splits(smalti, trained: SimpleNamespace) -> None:
    """Plain folders are scored whole, and training images come from a training split, whatever --split says."""
    plain = folder(Path("plain"))
    for number, split in enumerate(("train", "test")):
        for kind in ("x", "y"):
            folder(Path("sorted") / split / kind, seed=number + 1)
    words = ("evaluate", "folder", plain, *eye(trained), "--against")
    done = smalti(*words, "sorted", "--split", "train", "--out", "a.json")
    assert done.code == 0, done.err
    record = json.loads(Path("a.json").read_text(encoding="utf-8"))
    assert (record["subject"]["split"], record["reference"]["split"]) == (None, "train")
    for training in ("plain", "sorted"):
        done = smalti(
            "evaluate", "folder", "sorted", "--against", "sorted", "--split", "test", "--training", training,
            *eye(trained), "--out", f"{training}.json",
        )  # fmt: skip
        assert done.code == 0, done.err
        record = json.loads(Path(f"{training}.json").read_text(encoding="utf-8"))
        assert record["protocol"]["training_fingerprint"] != record["protocol"]["reference_fingerprint"]
    assert "no split 'val'" in one_line(smalti(*words, "sorted", "--split", "val", "--out", "b.json"))


def test_a_broken_image_is_said_and_the_rest_is_measured(smalti, trained: SimpleNamespace) -> None:
    a = folder(Path("a"))
    (a / "broken.png").write_bytes((a / "000.png").read_bytes()[:40])
    done = smalti("evaluate", "folder", a, "--against", folder(Path("b"), seed=1), *eye(trained))
    assert done.code == 0, done.err
    assert "skipped 1 of 13 files of a: broken.png" in done.err
    assert json.loads(Path("evaluation.json").read_text(encoding="utf-8"))["protocol"]["judged_count"] == 12


def test_a_source_with_a_val_and_a_test_split_is_measured_on_test(smalti, trained: SimpleNamespace) -> None:
    for split, seed in (("val", 1), ("test", 2)):
        folder(Path("halves") / split, seed=seed, count=10 + seed)
    done = smalti("evaluate", "folder", folder(Path("a")), "--against", "halves", *eye(trained))
    assert done.code == 0, done.err
    reference = json.loads(Path("evaluation.json").read_text(encoding="utf-8"))["reference"]
    assert (reference["split"], reference["count"]) == ("test", 12)


def test_equal_images_everywhere_are_measured_without_a_fuss(smalti, trained: SimpleNamespace) -> None:
    """No variance at all: the distance is 0 and no figure is NaN."""
    place = Path("flat")
    place.mkdir()
    for number in range(6):
        Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(place / f"{number}.png")
    done = smalti("evaluate", "folder", place, "--against", place, *eye(trained), "--out", "flat.json")
    assert done.code == 0, done.err
    figures = {f["name"]: f["value"] for f in json.loads(Path("flat.json").read_text(encoding="utf-8"))["figures"]}
    assert figures["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert all(isinstance(value, float | int) for value in figures.values()), figures
