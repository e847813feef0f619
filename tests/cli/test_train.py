"""`smalti train` on codes, and the command that it names at its end."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_codes import small_codes
from small_runs import settings, small_config, write_source

from smalti.cli.train import next_command
from smalti.config.kinds import KINDS
from smalti.data.codes import open_codes
from smalti.errors import ConfigError, DataError
from smalti.pipelines import base as api
from smalti.pipelines.base import Pipeline
from smalti.pipelines.code_codec import CodeCodec
from smalti.runtime.device import Machine
from smalti.training.loop import train


def test_a_training_on_other_codes_is_not_continued(smalti, tmp_path: Path) -> None:
    small_codes(tmp_path)
    words = ("train", "prior-nano", "--data", "codes", "--out", "run", *settings("prior-nano"))
    assert smalti(*words).code == 0
    small_codes(tmp_path, seed=5)
    done = smalti(*words, "--set", "train.images=96")
    assert done.code == 1
    assert "are not those run was trained on" in done.err


def test_codes_are_not_mirrored_while_they_are_learned(smalti, priors) -> None:
    for word in (("--flip",), ("--resize", "stretch")):
        done = smalti("train", "prior-nano", "--data", priors.codes, "--out", "run", *word, *settings("prior-nano"))
        assert done.code == 1
        assert "codes can be neither mirrored nor resized; give --flip and --resize to smalti encode" in done.err
    assert not Path("run").exists()
    assert not api.load(priors.plain).card.config.data.flip


def test_held_out_codes_must_have_what_the_condition_needs(tmp_path: Path) -> None:
    codes = small_codes(tmp_path)
    held_out = open_codes(tmp_path / "codes", "test")
    machine = Machine("cpu", "float32")
    for preset, change, said in (
        ("text-emoji", {"captions": None}, "have no captions, which model.condition=text needs"),
        ("prior-nano", {"classes": ("up", "down")}, "have the classes up, down, those to train on left, right"),
        (
            "prior-nano",
            {"codebook_sizes": (8, 8, 8)},
            "the number of planes of the held-out codes of discs is 3, of those",
        ),
        ("prior-nano", {"codebook_sizes": (9,)}, r"the alphabet of the held-out codes of discs is \(9,\), of those to"),
        ("prior-nano", {"grid": (2, 8)}, r"the grid of the held-out codes of discs is \(2, 8\), of those to train on"),
        ("prior-nano", {"tokenizer": "b" * 64}, "the tokenizer of the held-out codes of discs is bbbbbbbbbbbbbbbb, of"),
    ):
        about = dataclasses.replace(held_out.about, **change)
        other = type(held_out)(about, held_out.codes, held_out.labels, held_out.folder)
        config = small_config(preset, *(("model.condition=class",) if preset == "prior-nano" else ()))
        with pytest.raises(DataError, match=said):
            train(config, codes, tmp_path / preset, held_out=other, machine=machine)
    nameless = type(codes)(codes.about, codes.codes, None, codes.folder)
    with pytest.raises(ConfigError, match=r"model\.condition is class, but the codes have no labels"):
        train(small_config("prior-nano", "model.condition=class"), nameless, tmp_path / "y", machine=machine)
    about = dataclasses.replace(codes.about, codebook_sizes=(4,))
    with pytest.raises(DataError, match="does not fit its tokenizer"):
        train(small_config("prior-nano"), type(codes)(about, codes.codes, codes.labels, codes.folder), tmp_path / "x",
              machine=machine)  # fmt: skip


def test_codes_are_written_of_the_images_of_a_run(smalti, trained: SimpleNamespace, tmp_path: Path) -> None:
    words = ("train", "context", "--of", trained.vqvae, "--out", "run", *settings("context"))
    done = smalti(*words, "--quiet")
    assert done.code == 0, done.err
    model = api.load("run")
    assert isinstance(model, CodeCodec)
    assert model.card.tokenizer is not None
    assert model.card.tokenizer.digest == api.load(trained.vqvae).card.digest
    codes = model.tokenizer.encode(np.load(trained.source)["images"])
    assert np.array_equal(model.decompress_codes(model.compress_codes(codes), codes.shape[2:]), codes)
    done = smalti(*words, "--set", "train.images=96")
    assert done.code == 0, done.err
    assert f"encoding {trained.source} with {trained.vqvae}" in done.err
    assert "resuming run at 64 images" in done.err
    write_source(tmp_path / "new.npz", count=12, side=8)
    images = ("--data", "new.npz", "--held-out", trained.source, "--size", "16")
    done = smalti("train", "prior-nano", "--of", trained.vqvae, *images, "--out", "prior", *settings("prior-nano"))
    assert done.code == 0, done.err
    assert "12 codes of images of 16x16x3" in done.err
    assert "on 40 held-out images" in done.err


def test_what_gives_no_codes_is_refused(smalti, trained: SimpleNamespace, priors) -> None:
    for preset, words, said in (
        ("context", ("--of", trained.gan), "is a gan, which cannot reconstruct images"),
        ("context", ("--of", "nowhere"), "there is no nowhere; give a run folder or a .safetensors file"),
        ("context", ("--of", trained.vqvae, "--data", "nowhere"), "nowhere does not exist"),
        ("context", ("--of", trained.vqvae, "--data", priors.codes), "holds codes already; leave --of out, or give"),
        ("context", ("--data", trained.source), "holds images; write codes with smalti encode"),
        (
            "dcgan",
            ("--of", trained.vqvae),
            "is for the recipes that learn codes, prior and context, but gan learns images",
        ),
    ):
        done = smalti("train", preset, *words, "--out", "run", *settings(preset))
        assert done.code == 1
        assert said in done.err
        assert done.err.count("\n") <= 2
        assert not Path("run").exists()


def test_a_training_that_gets_no_better_ends_and_says_so(smalti, priors) -> None:
    words = settings("prior-nano", "model.patience=1", "train.images=640", "model.optimizer.learning_rate=0")
    done = smalti("train", "prior-nano", "--data", priors.codes, "--out", "run", *words)
    assert done.code == 0, done.err
    assert "it learned enough: 1 scores in a row were no better than the best one (model.patience)" in done.err
    assert api.load("run").card.images_seen < 640


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("gan", "generate runs/a b --out grid.png"),
        ("prior", "generate runs/a b --out grid.png"),
        ("vqvae", "reconstruct runs/a b IMAGES... --out FOLDER"),
        ("contrastive", "evaluate encoder runs/a b --on SOURCE"),
        ("codec", "compress runs/a b IMAGES... --out FOLDER"),
        (Pipeline, "info runs/a b"),
    ],
)
def test_the_next_command_is_what_the_pipeline_can_do(pipeline: str | type, expected: str) -> None:
    found = KINDS[pipeline].load_pipeline() if isinstance(pipeline, str) else pipeline
    words = next_command(found, Path("runs/a b"))
    assert " ".join(words) == expected
    assert "runs/a b" in words
