"""`smalti generate` as a user types it: which pictures, which files, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import refused
from drawn import frames_of, tiles_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smalti.errors import ConfigError
from smalti.pipelines import base as api
from smalti.pipelines.gan import GAN
from smalti.report.pictures import read_png_text

# Image i of a seed


def test_an_image_is_the_same_to_the_bit_however_many_are_drawn(smalti, drawers) -> None:
    for count in (1, 18, 21):
        assert smalti("generate", drawers.plain, "--count", count, "--seed", 3, "--out", count).code == 0
        assert sorted(os.listdir(str(count))) == [f"{i:06d}.png" for i in range(count)]
    for name in os.listdir("18"):
        assert (Path("18") / name).read_bytes() == (Path("21") / name).read_bytes()
    assert Path("1/000000.png").read_bytes() == Path("21/000000.png").read_bytes()
    assert len({path.read_bytes() for path in Path("21").iterdir()}) == 21


def test_a_grid_holds_the_images_of_the_folder(smalti, drawers) -> None:
    smalti("generate", drawers.labelled, "--count", 6, "--columns", 3, "--out", "g.png")
    smalti("generate", drawers.labelled, "--count", 6, "--out", "folder")
    single = [np.asarray(Image.open(f"folder/{i:06d}.png")) for i in range(6)]
    assert np.array_equal(tiles_of("g.png", 3).reshape(6, 16, 16, 3), single)


@pytest.mark.parametrize("name", ["plain", "labelled", "clear"])
def test_from_python_it_does_not_matter_where_one_begins(drawers, name: str) -> None:
    model = api.load(getattr(drawers, name))
    whole = model.generate(50, seed=8)

    @settings(max_examples=15)
    @given(st.integers(0, 49), st.integers(1, 50))
    def law(first: int, count: int) -> None:
        count = min(count, 50 - first)
        assert np.array_equal(model.generate(count, seed=8, first=first), whole[first : first + count])

    law()


def test_generate_is_draw_of_latents_and_labels(labelled: GAN) -> None:
    numbers = range(16)
    drawn = labelled.synthesize(labelled.sample_latents(numbers, seed=2), labels=labelled.labels(numbers))
    assert np.array_equal(drawn, labelled.generate(16, seed=2))
    assert labelled.labels([0, 1, 2, 7]) == [0, 1, 0, 1]
    assert labelled.labels([0, 1], "dog") == [1, 1]


@pytest.mark.parametrize("count", [1, 5, 15, 17, 40])
def test_a_picture_is_the_same_to_the_bit_beside_any_others(labelled: GAN, count: int) -> None:
    z, labels = labelled.sample_latents(range(40), seed=2), [number % 2 for number in range(40)]
    whole = labelled.synthesize(z, labels=labels)
    assert np.array_equal(labelled.synthesize(z[-count:], labels=labels[-count:]), whole[-count:])


def test_nothing_drawn_is_no_pictures(model: GAN, labelled: GAN) -> None:
    assert model.sample_latents([]).shape == (0, 8)
    assert model.synthesize(model.sample_latents([])).shape == (0, 16, 16, 3)
    assert labelled.synthesize(labelled.sample_latents([]), labels=[]).shape == (0, 16, 16, 3)


@pytest.mark.parametrize(
    "settings", [{"count": 0}, {"count": -2}, {"first": -1}, {"seed": -1}, {"truncation": 2}, {"label": "cat"}]
)
def test_numbers_that_make_no_pictures_are_refused(model: GAN, settings: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        model.generate(**{"count": 2, **settings})


def test_latents_and_labels_that_do_not_fit_are_refused(model: GAN, labelled: GAN) -> None:
    z = model.sample_latents(range(3))
    for drawing, points, labels in (
        (model, z[0], None),
        (model, z[:, :5], None),
        (model, z, [0, 0, 0]),
        (labelled, z, None),
        (labelled, z, []),
        (labelled, z, [0, 1]),
        (labelled, z, [0, 1, 2]),
        (labelled, z, [0, -1, 1]),
    ):
        with pytest.raises(ConfigError, match=r"latents|label"):
            drawing.synthesize(points, labels=labels)


# --truncation


def test_truncation_to_nothing_draws_one_picture_again_and_again(smalti, drawers) -> None:
    words = ("--count", 20, "--truncation", 0, "--columns", 20, "--out", "g.png")
    assert smalti("generate", drawers.plain, *words).code == 0
    tiles = tiles_of("g.png", 20)[0]
    assert (tiles == tiles[0]).all()
    assert read_png_text("g.png")["smalti.truncation"] == "0.0"


def test_less_truncation_varies_more_and_one_changes_nothing(smalti, drawers, model: GAN) -> None:
    spread = [model.generate(32, truncation=share).std(axis=0).mean() for share in (0, 0.3, 0.7, 1)]
    assert spread == sorted(spread)
    assert spread[-1] > 2 * spread[1]
    smalti("generate", drawers.plain, "--count", 2, "--truncation", "1", "--out", "whole")
    smalti("generate", drawers.plain, "--count", 2, "--out", "plain")
    assert Path("whole/000001.png").read_bytes() == Path("plain/000001.png").read_bytes()


@pytest.mark.parametrize("share", ["-0.1", "1.5", "nan", "inf", "-inf"])
@pytest.mark.parametrize("words", [("--out", "g.png"), ("--out", "folder"), ("--interpolate", "1,2", "--out", "w.gif")])
def test_truncation_out_of_range(smalti, drawers, share: str, words: tuple[str, ...]) -> None:
    said = f"truncation is {share}, but must be from 0, the mean image, to 1"
    refused(smalti("generate", drawers.plain, "--count", 3, "--truncation", share, *words), said)
    assert not Path(words[-1]).exists()


# --label


def test_one_label_or_all_in_turn(smalti, trained, drawers) -> None:
    for label in ("cat", "dog"):
        words = ("--count", 4, "--columns", 4, "--label", label)
        assert smalti("generate", drawers.labelled, *words, "--out", f"{label}.png").code == 0
        assert read_png_text(f"{label}.png")["smalti.label"] == label
    assert smalti("generate", drawers.labelled, "--count", 4, "--columns", 4, "--out", "both.png").code == 0
    cats, dogs, both = (tiles_of(f"{name}.png", 4)[0] for name in ("cat", "dog", "both"))
    assert np.array_equal(both[::2], cats[::2])
    assert np.array_equal(both[1::2], dogs[1::2])
    assert not np.array_equal(cats, dogs)
    assert smalti("generate", trained.labelled, "--count", 2, "--label", "1", "--out", "ones.png").code == 0


@pytest.mark.parametrize("words", [(), ("--interpolate", "1,2"), ("--mix", "1,2")])
def test_a_label_that_means_nothing_to_the_model(smalti, trained, drawers, words: tuple[str, ...]) -> None:
    for run in (trained.gan, drawers.plain):
        refused(smalti("generate", run, *words, "--label", "1", "--out", "g.png"), "was trained without labels")
    refused(smalti("generate", drawers.labelled, *words, "--label", "dgo", "--out", "g.png"), "did you mean 'dog'")
    assert not Path("g.png").exists()


# Limits


@pytest.mark.parametrize(
    ("words", "out"),
    [(("--count", 5), "g.png"), (("--interpolate", "1,2", "--count", 5), "w.png"),
     (("--interpolate", "1,2", "--count", 3), "w.webp"), (("--mix", "1,2,3"), "m.png")],
)  # fmt: skip
def test_more_pixels_than_one_file_holds(smalti, drawers, model: GAN, monkeypatch, words: tuple, out: str) -> None:
    _, height, width = model.card.image.shape
    monkeypatch.setattr("smalti.pipelines.limits.PIXEL_LIMIT", 4 * height * width)
    refused(smalti("generate", drawers.plain, *words, "--out", out), "million, 4 pictures; draw fewer, or generate a")
    assert not Path(out).exists()


@pytest.mark.parametrize("words", [(), ("--interpolate", "1,2"), ("--mix", "1,2")])
def test_a_seed_below_zero(smalti, drawers, words: tuple[str, ...]) -> None:
    refused(smalti("generate", drawers.plain, *words, "--seed", -1, "--out", "g.png"), "seed is -1")


# --out


@pytest.mark.parametrize(
    ("words", "out", "said"),
    [
        (("--interpolate", "1,2"), "walk", ".png, .webp or .gif"),
        (("--interpolate", "1,2"), "walk.jpg", ".png, .webp or .gif"),
        (("--interpolate", "1,2"), "walk.mp4", ".png, .webp or .gif"),
        (("--interpolate", "1,2"), ".gif", ".png, .webp or .gif"),
        (("--mix", "1,2"), "table", "ends in .png"),
        (("--mix", "1,2"), "table.webp", "ends in .png"),
        (("--mix", "1,2"), "table.txt", "ends in .png"),
        ((), "grid.webp", ".webp and .gif are for --interpolate"),
        ((), "grid.JPG", "ends in .png, or a folder"),
    ],
)
def test_a_name_of_the_wrong_kind(smalti, drawers, words: tuple[str, ...], out: str, said: str) -> None:
    refused(smalti("generate", drawers.plain, *words, "--count", 3, "--out", out), said)
    assert os.listdir() == []


def test_a_folder_may_have_a_dot_in_its_name(smalti, drawers) -> None:
    assert smalti("generate", drawers.plain, "--count", 2, "--out", "samples.v2").code == 0
    assert len(os.listdir("samples.v2")) == 2
    refused(smalti("generate", drawers.plain, "--count", 10**9, "--out", "samples.v3"), "must be from 1 to 10000000")


@pytest.mark.parametrize("columns", [0, -1, 10_001, 10**18])
def test_columns_out_of_range(smalti, drawers, columns: int) -> None:
    said = f"--columns is {columns}, but must be from 1 to 10000"
    refused(smalti("generate", drawers.plain, "--columns", columns, "--out", "g.png"), said)


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("--interpolate", "1,2", "--count", 3), "w.png"),
        (("--interpolate", "1,2", "--count", 3), "w.webp"),
        (("--interpolate", "1,2", "--count", 3), "w.gif"),
        (("--mix", "1,2"), "m.png"),
    ],
)
def test_nothing_is_overwritten_without_being_asked(smalti, drawers, words: tuple[Any, ...], out: str) -> None:
    Path(out).write_text("mine")
    command = ("generate", drawers.plain, *words, "--out", out)
    refused(smalti(*command), "--overwrite")
    assert Path(out).read_text() == "mine"
    assert smalti(*command, "--overwrite").code == 0
    assert len(frames_of(out)) >= 1


def test_a_place_that_cannot_be_written_is_one_line(smalti, drawers) -> None:
    Path("file").write_text("mine")
    Path("folder.gif").mkdir()
    for out in ("file/w.gif", "file/w.png", "folder.gif", "x" * 300 + ".webp"):
        words = ("--interpolate", "1,2", "--count", 3, "--out", out, "--overwrite")
        refused(smalti("generate", drawers.plain, *words), "cannot write")
    refused(smalti("generate", drawers.plain, "--count", 3, "--out", "file"), "cannot write")
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ("--out", "g.png"),
        ("--out", "folder"),
        ("--interpolate", "1,2", "--out", "g.png"),
        ("--interpolate", "x.json,2", "--out", "g.gif"),
        ("--mix", "1,2", "--out", "g.png"),
        ("--label", "cat", "--out", "g.png"),
    ],
)
def test_a_model_that_draws_nothing(smalti, trained, words: tuple[str, ...]) -> None:
    Path("x.json").write_text("{}")
    outcome = smalti("generate", trained.vqvae, *words)
    refused(outcome, "is a vqvae, which draws no new images; give a model trained with a gan preset")
    assert len(outcome.err.splitlines()) == 1
    assert os.listdir() == ["x.json"]


def test_help_names_the_options(smalti) -> None:
    listed = smalti("generate", "--help").out
    for option in ("--label", "--truncation", "--interpolate", "--mix"):
        assert option in listed


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--mix", "1,2", "--count", 9, "--out", "t.png"), "--count is not for --mix"),
        (("--mix", "1,2", "--columns", 1, "--out", "t.png"), "--columns is for a grid"),
        (("--interpolate", "1,2", "--columns", 3, "--out", "t.webp"), "--columns is for a grid"),
        (("--columns", 3, "--out", "t"), "--columns is for a grid"),
    ],
)
def test_options_that_would_do_nothing(smalti: Any, drawers: Any, words: tuple[Any, ...], answer: str) -> None:
    refused(smalti("generate", drawers.plain, *words), answer)
    assert not Path("t").exists()
