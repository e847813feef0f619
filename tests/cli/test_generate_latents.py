"""`smalti generate --interpolate` and `--mix`: walks, tables, and points that are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from command_line import refused
from drawn import apart, frames_of, tiles_of
from PIL import Image

from smalti.pipelines import base as api
from smalti.pipelines.gan import GAN
from smalti.report.animations import IMAGE_DESCRIPTION
from smalti.report.pictures import read_png_text


def test_a_walk_between_two_numbers_as_a_grid(smalti, drawers, model: GAN) -> None:
    words = ("--interpolate", "3,17", "--seed", 5, "--count", 7, "--columns", 7, "--out", "walk.png")
    assert "7 frames from 3 to 17: walk.png" in smalti("generate", drawers.plain, *words).err
    walked, images = tiles_of("walk.png", 7)[0], model.generate(18, seed=5)
    assert apart(walked[0], images[3]) <= 1
    assert apart(walked[-1], images[17]) <= 1
    steps = [abs(a.astype(int) - b).mean() for a, b in zip(walked[:-1], walked[1:].astype(int), strict=True)]
    assert min(steps) > 0
    assert max(steps) < abs(walked[0].astype(int) - walked[-1]).mean()
    text = read_png_text("walk.png")
    assert (text["smalti.interpolate"], text["smalti.count"], text["smalti.seed"]) == ("3,17", "7", "5")


@pytest.mark.parametrize("kind", ["webp", "gif", "GIF"])
def test_a_moving_walk_goes_there_and_back(smalti, drawers, model: GAN, kind: str) -> None:
    out = f"walk.{kind}"
    assert smalti("generate", drawers.plain, "--interpolate", "3,17", "--count", 6, "--out", out).code == 0
    frames, images = frames_of(out), model.generate(18)
    assert frames.shape == (10, 16, 16, 3)
    assert np.array_equal(frames[6:], frames[4:0:-1]), "back over the same frames, each end shown once"
    near = 1 if kind == "webp" else 40  # a GIF has 256 colours
    assert apart(frames[0], images[3]) <= near
    assert apart(frames[5], images[17]) <= near
    with Image.open(out) as opened:
        assert opened.info["loop"] == 0
        text = json.loads(opened.getexif()[IMAGE_DESCRIPTION] if kind == "webp" else opened.info["comment"])
    assert text["smalti.interpolate"] == "3,17"
    assert text["smalti.model"] == model.card.digest


def test_a_walk_of_clear_pictures_keeps_their_alpha(smalti, drawers) -> None:
    assert smalti("generate", drawers.clear, "--interpolate", "0,1", "--count", 4, "--out", "w.webp").code == 0
    with Image.open("w.webp") as opened:
        first = np.asarray(opened.convert("RGBA"))
    expected = api.load(drawers.clear).generate(1)[0]
    assert apart(first[..., 3], expected[..., 3]) <= 1
    assert expected[..., 3].min() < 255
    assert smalti("generate", drawers.clear, "--interpolate", "0,1", "--count", 4, "--out", "w.gif").code == 0
    assert len(frames_of("w.gif")) == 6


@pytest.mark.parametrize("count", [3, 4, 9])
def test_a_walk_over_three_passes_through_all(smalti, drawers, model: GAN, count: int) -> None:
    words = ("--interpolate", " 1 , 2,3 ", "--count", count, "--columns", count, "--out", "walk.png")
    assert smalti("generate", drawers.plain, *words).code == 0
    walked = tiles_of("walk.png", count)[0]
    for image in model.generate(4)[1:]:
        assert min(apart(frame, image) for frame in walked) <= 1


def test_a_walk_keeps_to_one_label(smalti, drawers, labelled: GAN) -> None:
    for words, label in (((), 1), (("--label", "cat"), 0)):
        given = ("--interpolate", "3,4", "--count", 3, "--columns", 3, *words, "--out", "w.png", "--overwrite")
        assert smalti("generate", drawers.labelled, *given).code == 0
        expected = labelled.synthesize(labelled.sample_latents([3, 4]), labels=[label, label])
        assert apart(tiles_of("w.png", 3)[0][[0, 2]], expected) <= 1
        assert read_png_text("w.png")["smalti.label"] == ("cat", "dog")[label]


@pytest.mark.parametrize("option", ["--interpolate", "--mix"])
@pytest.mark.parametrize("spec", ["3", "", ",", "3,", ",3", "3,,4", " , ", ",".join(["1"] * 101)])
def test_points_that_are_no_list(smalti, drawers, option: str, spec: str) -> None:
    said = f"{option} is {spec!r}, but must be from 2 to 100 image numbers or latent files, as in 3,17"
    refused(smalti("generate", drawers.plain, option, spec, "--out", "g.png"), said)


@pytest.mark.parametrize("option", ["--interpolate", "--mix"])
@pytest.mark.parametrize("spec", ["x.json,2", "2,-1", "1.5,2", "²,3", "٣,3", "9" * 19 + ",1", ".,1", "x" * 300 + ",2"])
def test_points_that_are_not_there(smalti, drawers, option: str, spec: str) -> None:
    refused(smalti("generate", drawers.plain, option, spec, "--out", "g.png"), "cannot read ")
    assert not Path("g.png").exists()


def test_a_file_named_like_a_number_in_other_digits_is_a_file(smalti, drawers) -> None:
    for name in ("²", "٣"):
        Path(name).write_text("no latent")
        refused(smalti("generate", drawers.plain, "--mix", f"{name},1", "--out", "g.png"), "is no latent file")


def test_large_numbers_are_images_too(smalti, drawers) -> None:
    assert smalti("generate", drawers.plain, "--mix", f"{'9' * 18},007", "--seed", 10**25, "--out", "g.png").code == 0


HOSTILE = {
    "not JSON": "a cat",
    "another kind": '{"kind": "smalti card"}',
    "NaN": '{"kind": "smalti latent", "model": "m", "label": null, "values": [NaN]}',
    "beyond float32": '{"kind": "smalti latent", "model": "m", "label": null, "values": [1e39]}',
    "nested deeply": "[" * 100_000,
    "huge": " " * 5 * 2**20,
    "a label that is a number": '{"kind": "smalti latent", "model": "m", "label": 3, "values": [1]}',
    "a model nested deeply": '{"kind": "smalti latent", "label": null, "values": [1], "model": '
    + ("[" * 500 + "]" * 500 + "}"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_latent_file_is_one_line(smalti, drawers, content: str) -> None:
    Path("bad.json").write_text(content)
    outcome = smalti("generate", drawers.plain, "--interpolate", "1,bad.json", "--out", "walk.webp")
    refused(outcome, "bad.json is no latent file; smalti invert writes them")
    assert len(outcome.err.splitlines()) == 1
    assert os.listdir() == ["bad.json"]


def test_a_latent_file_of_another_model_or_changed(smalti, drawers, model: GAN) -> None:
    plain = {"kind": "smalti latent", "model": "\x1b[31m" + "e" * 60, "label": None, "values": [0.5] * 8}
    Path("a.json").write_text(json.dumps(plain))
    outcome = smalti("generate", drawers.plain, "--mix", "a.json,1", "--out", "g.png")
    refused(outcome, f"not of {model.card.digest[:12]}; invert the image with this model")
    assert "\x1b" not in outcome.err
    Path("a.json").write_text(json.dumps(plain | {"model": model.card.digest, "values": [1, 2]}))
    refused(smalti("generate", drawers.plain, "--mix", "a.json,1", "--out", "g.png"), "holds 2 values")
    Path("a.json").write_text(json.dumps(plain | {"model": model.card.digest, "label": "cat"}))
    refused(smalti("generate", drawers.plain, "--mix", "a.json,1", "--out", "g.png"), "trained without labels")


@pytest.mark.parametrize(("spec", "count"), [("1,2", 1), ("1,2,3", 2), ("1,2", 0), ("1,2", 5001), ("1,2", -4)])
def test_too_few_or_too_many_frames(smalti, drawers, spec: str, count: int) -> None:
    words = ("--interpolate", spec, "--count", count, "--out", "walk.gif")
    refused(smalti("generate", drawers.plain, *words), f"--count is {count}, but ")
    assert not Path("walk.gif").exists()


@pytest.mark.parametrize(("spec", "numbers"), [("4,9", [4, 9]), ("0,1,2,20", [0, 1, 2, 20])])
def test_a_table_of_mixtures_has_the_images_on_its_diagonal(
    smalti, drawers, model: GAN, spec: str, numbers: list[int]
) -> None:
    outcome = smalti("generate", drawers.plain, "--mix", spec, "--seed", 2, "--out", "mix.png")
    assert f"{len(numbers)} images mixed with each other" in outcome.err
    table, images = tiles_of("mix.png", len(numbers)), model.generate(21, seed=2)[numbers]
    assert len(table) == len(numbers)
    for i, image in enumerate(images):
        assert apart(table[i, i], image) <= 1
        for j in range(i):
            assert apart(table[i, j], table[j, i]) <= 1
            assert apart(table[i, j], image) > 1
    assert read_png_text("mix.png")["smalti.mix"] == spec


def test_a_walk_and_a_table_at_once(smalti, drawers) -> None:
    words = ("--interpolate", "1,2", "--mix", "1,2", "--out", "g.png")
    refused(smalti("generate", drawers.plain, *words), "--interpolate and --mix")
