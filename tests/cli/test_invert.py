"""`smalti invert` as a user types it: what is found and written, and what is refused."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from command_line import one_line, refused
from drawn import apart, frames_of, save, tiles_of
from PIL import Image
from small_runs import pixels

from smalti.pipelines import base as api
from smalti.pipelines.gan import GAN
from smalti.report.pictures import read_png_text


def test_invert_writes_what_generate_takes_up(smalti, drawers, model: GAN) -> None:
    image = model.generate(1, seed=9)[0]
    save(image, "in/a b.png")
    done = smalti("invert", drawers.plain, "in", "--steps", 3, "--out", "found")
    assert done.code == 0
    assert sorted(os.listdir("found")) == ["a b.latent.json", "a b.pair.png", "a b.png"]
    about = json.loads(Path("found/a b.latent.json").read_text())
    assert (about["model"], about["label"], about["source"], about["steps"]) == (model.card.digest, None, "a b.png", 3)
    found = np.asarray(Image.open("found/a b.png"))
    assert about["psnr_db"] == pytest.approx(-10 * np.log10(np.square(found / 255 - image / 255).mean()), abs=0.006)
    assert f"{about['psnr_db']:.2f}" in done.out
    pair = tiles_of("found/a b.pair.png", 1)
    assert np.array_equal(pair[:, 0], [image, found])
    assert read_png_text("found/a b.png")["smalti.source"] == "a b.png"
    for words in (
        ("--interpolate", "found/a b.latent.json,3", "--count", 4, "--out", "walk.webp"),
        ("--interpolate", "3,found/a b.latent.json", "--count", 4, "--out", "walk.gif"),
        ("--interpolate", "found/a b.latent.json,3", "--count", 4, "--columns", 4, "--out", "walk.png"),
        ("--mix", "3,found/a b.latent.json", "--out", "mix.png"),
    ):
        assert smalti("generate", drawers.plain, *words).code == 0
    assert apart(frames_of("walk.webp")[0], found) <= 1
    assert apart(tiles_of("walk.png", 4)[0, 0], found) <= 1
    assert apart(tiles_of("mix.png", 2)[1, 1], found) <= 1
    assert len(frames_of("walk.gif")) == 6


def test_more_steps_come_nearer(smalti, drawers, model: GAN) -> None:
    save(model.generate(1, seed=9)[0], "a.png")
    decibels = []
    for steps in (0, 2, 6):
        assert smalti("invert", drawers.plain, "a.png", "--steps", steps, "--out", steps).code == 0
        decibels.append(json.loads(Path(f"{steps}/a.latent.json").read_text())["psnr_db"])
    assert decibels[0] < decibels[1] < decibels[2]


def test_the_next_command_that_invert_names_works(smalti, drawers, model: GAN) -> None:
    save(model.generate(1)[0], "a.png")
    said = smalti("invert", drawers.plain, "a.png", "--steps", 0, "--out", "found").err.strip().splitlines()[-1]
    assert said.startswith("next: smalti generate ")
    words = shlex.split(said.removeprefix("next: smalti "))
    assert smalti(*words).code == 0
    assert len(frames_of("walk.webp")) == 2 * 64 - 2


def test_invert_by_label_and_walk_on_with_it(smalti, drawers, labelled: GAN) -> None:
    save(labelled.generate(1, label="dog", seed=4)[0], "a.png")
    assert smalti("invert", drawers.labelled, "a.png", "--label", "dog", "--steps", 2, "--out", "found").code == 0
    assert json.loads(Path("found/a.latent.json").read_text())["label"] == "dog"
    words = ("--mix", "0,found/a.latent.json", "--out", "mix.png")  # image 0 would be a cat
    assert smalti("generate", drawers.labelled, *words).code == 0
    assert apart(tiles_of("mix.png", 2)[1, 1], np.asarray(Image.open("found/a.png"))) <= 1
    assert read_png_text("mix.png")["smalti.label"] == "dog"


def test_labels_that_are_missing_or_mean_nothing(smalti, trained, drawers) -> None:
    save(pixels(1)[0], "a.png")
    for run, words, said in (
        (drawers.labelled, (), "say which with --label; known: cat, dog"),
        (trained.labelled, (), "say which with --label; known: 0, 1"),
        (drawers.labelled, ("--label", "dgo"), "did you mean 'dog'"),
        (drawers.plain, ("--label", "dog"), "was trained without labels"),
    ):
        refused(smalti("invert", run, "a.png", *words, "--out", "found"), said)
    assert not Path("found").exists()


@pytest.mark.parametrize("steps", [-1, -100, 100_001])
def test_steps_out_of_range_are_one_line_however_many_images(smalti, drawers, steps: int) -> None:
    save(pixels(1)[0], "a.png")
    outcome = smalti("invert", drawers.plain, "a.png", "a.png", "none.png", "--steps", steps, "--out", "found")
    refused(outcome, f"steps is {steps}, but must be from 0 to 100000")
    assert not Path("found").exists()


@pytest.mark.parametrize(
    ("mode", "size", "found"), [("RGB", (24, 20), "20x24x3"), ("L", (16, 16), "16x16x1"), ("RGBA", (16, 16), "16x16x4")]
)
def test_another_size_or_mode_needs_resize(smalti, drawers, mode: str, size: tuple[int, int], found: str) -> None:
    Image.new(mode, size, 50 if mode == "L" else (200, 100, 50, 120)[: len(mode)]).save("a.png")
    outcome = smalti("invert", drawers.plain, "a.png", "--steps", 0, "--out", "found")
    assert outcome.code == 1
    assert f"a.png was left out: it is {found}, and the model makes 16x16x3; give --resize cover" in outcome.err
    assert "Traceback" not in outcome.err
    assert not Path("found").exists()
    for rule in ("cover", "contain", "stretch"):
        words = ("a.png", "--steps", 0, "--resize", rule, "--out", f"found-{rule}")
        assert smalti("invert", drawers.plain, *words).code == 0
        with Image.open(f"found-{rule}/a.png") as picture:
            assert (picture.size, picture.mode) == ((16, 16), "RGB")


@pytest.mark.parametrize("alpha", [255, 90])
def test_a_model_with_alpha_takes_pictures_with_and_without(smalti, drawers, alpha: int) -> None:
    image = api.load(drawers.clear).generate(1)[0]
    image[..., 3] = alpha
    save(image, "a.png")
    assert smalti("invert", drawers.clear, "a.png", "--steps", 0, "--out", "found").code == 0
    with Image.open("found/a.pair.png") as pair:
        assert np.array_equal(np.asarray(pair)[2:18, 2:18], image)


def test_bad_images_are_reported_and_the_rest_goes_on(smalti, drawers) -> None:
    first, second = pixels(2)
    good = save(first, "good.png")
    Path("cut.png").write_bytes(Path(good).read_bytes()[:60])
    Path("text.png").write_text("no image")
    save(second, "fine.png")
    save(pixels(1, side=20)[0], "large.png")
    images = ("cut.png", good, "text.png", "none.png", "large.png", "fine.png")
    outcome = smalti("invert", drawers.plain, *images, "--steps", 0, "--out", "found")
    assert outcome.code == 1
    assert len(os.listdir("found")) == 6
    assert [f"{name} was left out" in outcome.err for name in images] == [True, False, True, True, True, False]
    assert [name in outcome.out for name in images] == [False, True, False, False, False, True]
    assert "Traceback" not in outcome.err


def test_images_that_are_all_bad(smalti, drawers) -> None:
    Path("text.png").write_text("no image")
    outcome = smalti("invert", drawers.plain, "text.png", "--out", "found")
    assert (outcome.code, "no image could be inverted" in outcome.err) == (1, True)
    assert not Path("found").exists()


def test_inverted_images_of_one_name_get_numbers(smalti, drawers) -> None:
    first, second = pixels(2)
    for folder, image in (("a", first), ("b", second)):
        save(image, f"{folder}/x.png")
    assert smalti("invert", drawers.plain, "a", "b/x.png", "--steps", 0, "--out", "found").code == 0
    assert {"x.latent.json", "x-2.latent.json"} <= set(os.listdir("found"))


@pytest.mark.parametrize("name", ["a.png", "a.pair.png", "a.latent.json"])
def test_invert_overwrites_nothing_without_being_asked(smalti, drawers, name: str) -> None:
    save(pixels(1)[0], "in/a.png")
    Path("found").mkdir()
    (Path("found") / name).write_text("mine")
    command = ("invert", drawers.plain, "in/a.png", "--steps", 0, "--out", "found")
    refused(smalti(*command), "--overwrite")
    assert (os.listdir("found"), (Path("found") / name).read_text()) == ([name], "mine")
    assert smalti(*command, "--overwrite").code == 0
    assert (Path("found") / name).read_bytes() != b"mine"


def test_invert_never_replaces_the_image_itself(smalti, drawers) -> None:
    save(pixels(1)[0], "a.png")
    before = Path("a.png").read_bytes()
    refused(smalti("invert", drawers.plain, "a.png", "--out", ".", "--overwrite"), "one of the images")
    assert Path("a.png").read_bytes() == before


def test_invert_without_images_or_into_a_file(smalti, drawers) -> None:
    refused(smalti("invert", drawers.plain, "--out", "found"), "no images were named")
    save(pixels(1)[0], "a.png")
    refused(smalti("invert", drawers.plain, "a.png", "--out", "a.png"), "is a file; give --out a folder")
    assert "--out" in one_line(smalti("invert", drawers.plain, "a.png"))
    assert "MODEL" in one_line(smalti("invert", "--out", "found"))


@pytest.mark.parametrize("words", [("x.png", "none.png"), ("--steps", "-1", "--label", "cat")])
def test_a_model_that_draws_nothing_cannot_be_inverted(smalti, trained, words: tuple[str, ...]) -> None:
    save(pixels(1)[0], "x.png")
    outcome = smalti("invert", trained.vqvae, *words, "--out", "folder")
    refused(outcome, "is a vqvae, which draws no new images; give a model trained with a gan preset")
    assert len(outcome.err.splitlines()) == 1
    assert os.listdir() == ["x.png"]


def test_help_shows_examples(smalti) -> None:
    assert "Examples:\n  smalti invert" in smalti("invert", "--help").out
