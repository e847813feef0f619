"""`smalti restyle`, and trainings on pairs, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import pixels, settings

from smalti.checkpoint.file import read


def write_pairs(count: int = 12, side: int = 16, scale: int = 1) -> None:
    for number, image in enumerate(pixels(count, side=side)):
        for name, shown in (("bad", 255 - image[::scale, ::scale]), ("good", image)):
            Path(name).mkdir(exist_ok=True)
            Image.fromarray(shown).save(f"{name}/{number}.png")


def logged(run: str) -> list[dict]:
    return [json.loads(line) for line in Path(run, "log.jsonl").read_text().splitlines()]


def test_from_two_folders_to_restyled_pictures(smalti) -> None:
    write_pairs()
    Path("bad/11.png").unlink()
    words = ("train", "restyle-paired", "--data", "bad", "--targets", "good", "--out", "run")
    done = smalti(*words, *settings("restyle-paired"))
    assert done.code == 0, done.err
    assert "left out 1 images that are no pair or cannot be read: 11.png: has no partner in " in done.err
    assert "11 pairs of images of 16x16x3 from bad; recipe translate; run folder run" in done.err
    assert "next: smalti restyle run IMAGES... --out FOLDER" in done.err
    assert [line["name"] for line in logged("run") if "name" in line] == ["l1", "l1"]
    Path("in/deep").mkdir(parents=True)
    Image.fromarray(pixels(1, side=23)[0]).save("in/deep/a.jpg")
    Path("in/b.png").write_bytes(b"no picture")
    done = smalti("restyle", "run", "in", "--out", "out")
    assert done.code == 1
    assert "1 picture restyled, 1 left out: out" in done.err
    with Image.open("out/deep/a.jpg") as image:
        assert image.size == (23, 23)
    assert "1 there already" in smalti("restyle", "run", "in", "--out", "out").err
    assert "cannot restore pictures" in smalti("restore", "run", "in", "--out", "x").err
    done = smalti("restyle", "run", "in", "--out", "in/new")
    assert "is in the pictures' own folder" in done.err
    done = smalti("restyle", "run", "in/deep/a.jpg", "--out", "one.png", "--strength", "0.5", "--tile", "32")
    assert done.code == 0, done.err
    assert Path("one.png").exists()


def test_two_folders_without_pairs(smalti) -> None:
    write_pairs()
    for number in range(4):
        Path(f"bad/{number}.png").rename(f"bad/other{number}.png")
    words = ("train", "restyle-unpaired", "--data", "bad", "--targets", "good", "--out", "run", "--quiet")
    done = smalti(*words, *settings("restyle-unpaired"))
    assert done.code == 0, done.err
    assert [line["name"] for line in logged("run") if "name" in line] == ["kid_smalti-vit"] * 2
    assert smalti("restyle", "run", "bad", "--out", "out").code == 0


@pytest.mark.parametrize(("preset", "scale"), [("denoise", 1), ("super-x2", 2)])
def test_restorers_learn_from_pairs(smalti, preset: str, scale: int) -> None:
    write_pairs(scale=scale)
    # A cosine over 32 images and then one over 64 would be another training.
    constant = settings(preset, "data.crop=8", "model.optimizer.schedule=constant")
    words = ("train", preset, "--data", "bad", "--targets", "good", "--quiet", *constant)
    for out, images in (("whole", 64), ("parts", 32), ("parts", 64)):
        done = smalti(*words, "--out", out, "--images", images)
        assert done.code == 0, done.err
    (whole, card), (parts, _) = (read(Path(run, "last.safetensors")) for run in ("whole", "parts"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    assert card.config.data.targets == "good"
    done = smalti("restore", "whole", "bad", "--out", "out")
    assert done.code == 0, done.err
    with Image.open("out/0.png") as image:
        assert image.size == (16, 16)


def test_held_out_pairs_are_a_split_or_two_sources(smalti) -> None:
    write_pairs()
    for name in ("bad", "good"):
        for number in range(12):
            place = Path(f"split-{name}", "test" if number < 4 else "train")
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(Path(name, f"{number}.png").read_bytes())
    words = ("train", "restyle-paired", "--quiet", *settings("restyle-paired"))
    done = smalti(*words, "--data", "split-bad", "--targets", "split-good", "--out", "run")
    assert done.code == 0, done.err
    assert [(line["on"], line["images"]) for line in logged("run") if "name" in line] == [("held-out", 4)] * 2
    own = (*words, "--data", "split-bad/train", "--targets", "split-good/train")
    done = smalti(*own, "--held-out", "bad", "--held-out-targets", "good", "--out", "other")
    assert done.code == 0, done.err
    assert [(line["on"], line["images"]) for line in logged("other") if "name" in line] == [("held-out", 12)] * 2
    for more, said in (
        (("--held-out", "bad"), "--held-out bad needs its targets; give --held-out-targets SOURCE"),
        (("--held-out-targets", "good"), "but --held-out is missing"),
    ):
        done = smalti(*own, *more, "--out", "x")
        assert done.code == 1
        assert said in done.err


def test_mistakes_are_one_line(smalti) -> None:
    write_pairs()
    np.savez("discs.npz", images=pixels(4))
    for words, said in (
        (("vqvae", "--data", "bad", "--targets", "good"), "--targets good is for the recipes restore and translate"),
        (("restyle-paired", "--data", "bad"), "the recipe translate learns from two sources; give --targets SOURCE"),
        (("restyle-paired", "--data", "bad", "--targets", "nowhere"), "nowhere does not exist"),
        (("restyle-paired", "--data", "bad", "--targets", "discs.npz"), "no image of"),
        (("super-x2", "--data", "bad", "--targets", "good", "--size", "16"), "a target of exactly 2 times the sides"),
        (("super-x2", "--data", "bad", "--targets", "good", "--size", "15"), "must be a multiple of 2"),
        (("fill", "--data", "bad", "--targets", "good", "--size", "16"), "a model that fills holes makes them"),
        (("denoise", "--data", "bad", "--targets", "good", "--held-out-targets", "x"), "but --held-out is missing"),
        (("denoise", "--data", "bad", "--held-out", "good", "--held-out-targets", "x"), "but there are no pairs"),
    ):
        size = () if "--size" in words else ("--size", "16")
        done = smalti("train", *words, *size, "--set", "data.crop=null", "--out", "x")
        assert done.code == 1, words
        assert said in done.err, done.err
        assert done.err.count("\n") <= 3, done.err
    done = smalti("train", "restyle-paired", "--data", "bad", "--targets", "good", "--out", "good/run")
    assert "--out good/run lies inside the images of --targets good" in done.err
