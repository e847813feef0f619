"""What people may ask of a GAN that cannot be, as they type it: one clear line, exit code 1, no traceback."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import settings, small_config, small_data, write_source

from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.errors import ConfigError
from smalti.runtime.device import Machine
from smalti.training.loop import train


def refused(smalti: Any, tmp_path: Path, *words: Any, side: int = 16, count: int = 40, labels: bool = True) -> str:
    """The one line that a training is answered with."""
    source = write_source(tmp_path / "discs.npz", side=side, count=count, labels=labels)
    done = smalti("train", "gan-nano", "--data", source, "--out", tmp_path / "run", *settings("gan-nano"), *words)
    assert done.code == 1
    assert "Traceback" not in done.err
    lines = [line for line in done.err.splitlines() if line.startswith("smalti: error:")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ("model.penalty.gamma=-1", "model.penalty.gamma is -1, but must be from 0 to 1e+09"),
        ("model.penalty.gamma=lots", "model.penalty.gamma is 'lots', but must be a number or auto"),
        ("model.loss=relativstic", "did you mean 'relativistic'?"),
        ("model.network.architecture=stylegan", "(one of r3gan, sngan, dcgan)"),
        ("model.network.patch=3", "patch is 3, but must be a power of two"),
        ("model.augmentation.probability=1.5", "probability is 1.5, but must be from 0 to 1"),
        ("train.batch=0", "batch is 0, but must be from 1"),
    ],
)
def test_settings_that_make_no_sense(smalti: Any, tmp_path: Path, setting: str, answer: str) -> None:
    assert answer in refused(smalti, tmp_path, "--set", setting)


def test_images_that_are_too_small(smalti: Any, tmp_path: Path) -> None:
    line = refused(smalti, tmp_path, side=8)
    assert "images of 8x8 are smaller than 16 pixels along a side" in line
    assert line.endswith("give for example --size 16x16")


def test_sizes_that_no_doubling_reaches(smalti: Any, tmp_path: Path) -> None:
    line = refused(smalti, tmp_path, side=18)
    assert "shorter sides that can be reached are 16, 20, 24, 28, 32" in line
    assert line.endswith("give for example --size 20x20")
    words = ("train", "gan-nano", "--data", tmp_path / "discs.npz", "--out", tmp_path / "run", *settings("gan-nano"))
    assert smalti(*words, "--size", "20x20").code == 0  # what the line said, and nothing else


def test_one_image(smalti: Any, tmp_path: Path) -> None:
    assert "holds 1 image; a training needs at least 2" in refused(smalti, tmp_path, count=1)


def test_labels_that_are_not_there(smalti: Any, tmp_path: Path) -> None:
    line = refused(smalti, tmp_path, "--set", "model.conditional=true", labels=False)
    assert "the data has no labels; put each class's images in a folder of its own" in line


def test_labels_of_one_class(smalti: Any, tmp_path: Path) -> None:
    source = tmp_path / "one.npz"
    np.savez(source, images=np.zeros((8, 16, 16, 3), np.uint8), labels=np.zeros(8, np.int64))
    words = ("train", "gan-nano", "--data", source, "--out", tmp_path / "run", *settings("gan-nano"))
    done = smalti(*words, "--set", "model.conditional=true")
    assert done.code == 1
    assert "the data has one class" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", ["gan-nano", "sngan", "dcgan"])
def test_a_batch_of_one_trains(name: str, tmp_path: Path) -> None:
    config = small_config(name, "train.batch=1", "train.images=8", "train.log_every=4", "train.save_every=8")
    machine = Machine(device="cpu", precision="float32")
    assert train(config, small_data(tmp_path), tmp_path / "run", machine=machine).images_seen == 8


def test_images_that_are_all_alike_are_learned_without_a_division_by_nothing(tmp_path: Path) -> None:
    """Their variance is 0, and so is gamma; their spread is 0, over which the diversity is taken."""
    source = tmp_path / "grey.npz"
    np.savez(source, images=np.full((8, 16, 16, 3), 128, np.uint8))
    from smalti.data import load

    data = load(source, cache=tmp_path / "cache")
    machine = Machine(device="cpu", precision="float32")
    result = train(small_config("gan-nano"), data, tmp_path / "run", machine=machine, on_collapse="continue")
    assert result.reason == "finished"
    assert math.isfinite(result.score["value"])


@pytest.mark.parametrize(
    ("name", "setting", "answer"),
    [
        (
            "dcgan",
            "model.penalty.gamma=5",
            r"^model\.penalty\.gamma is 5, but is the weight of R1 and R2, and both are off",
        ),
        ("gan-nano", "model.anneal.beta2=0.9", r"^model\.anneal\.beta2 is 0.9, but generator_optimizer is sgd"),
    ],
)
def test_settings_that_would_do_nothing(name: str, setting: str, answer: str) -> None:
    changes = ["model.generator_optimizer.name=sgd", setting]
    with pytest.raises(ConfigError, match=answer):
        override(preset(name), changes)
