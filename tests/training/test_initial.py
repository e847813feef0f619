"""Trainings that start from the weights of a trained model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import data_for, settings, small_config, small_data, write_source

from smalti.checkpoint import file as checkpoint
from smalti.config.kinds import KINDS
from smalti.config.parse import override
from smalti.config.presets import PRESETS
from smalti.config.run import RunConfig
from smalti.errors import ConfigError
from smalti.recipes import build_recipe
from smalti.runtime.device import Machine
from smalti.training.initial import with_settings_of
from smalti.training.loop import train

FLOAT32 = Machine(device="cpu", precision="float32")
ABLE = {name: next(preset for preset, row in PRESETS.items() if row.config.recipe == name)
        for name, kind in KINDS.items() if kind.load_recipe().can_start_from}  # fmt: skip


def trained(folder: Path, config: RunConfig) -> Path:
    """The run folder of a finished training."""
    train(config, data_for(config.preset, folder), folder / "first", machine=FLOAT32)
    return folder / "first"


@pytest.mark.parametrize("name", sorted(ABLE.values()))
def test_a_recipe_starts_from_the_weights_of_a_model(name: str, tmp_path: Path) -> None:
    config = small_config(name, "train.images=64")
    first = trained(tmp_path, config)
    model, _ = checkpoint.read(first / "last.safetensors")
    kind = config.kind.load_recipe()
    recipe = build_recipe(config, kind.context_for(data_for(name, tmp_path), torch.device("cpu"), "float32"))
    recipe.start_from(model)
    wanted = model.state_dict()
    for part in (recipe.export(), recipe.modules[next(iter(recipe.averages))]):
        assert same(part.state_dict(), wanted)


@pytest.mark.parametrize("name", sorted(ABLE.values()))
def test_a_training_goes_on_from_a_model_and_resumes(name: str, tmp_path: Path) -> None:
    first = trained(tmp_path, small_config(name, "train.images=64"))
    digest = checkpoint.read_card(first / "last.safetensors").digest
    data, config = data_for(name, tmp_path), small_config(name, "train.seed=5")
    if name in (
        "codec-tiny",
        ABLE["restore"],
        ABLE["translate"],
    ):  # a cosine over 64 images and then one over 128 is another training
        config = override(config, ["model.optimizer.schedule=constant"])
    for images in (64, 128):
        stage = override(config, [f"train.images={images}"])
        train(stage, data, tmp_path / "two", start_from=first, machine=FLOAT32)
    train(override(config, ["train.images=128"]), data, tmp_path / "one", start_from=first, machine=FLOAT32)
    fresh = override(config, ["train.images=128"])
    train(fresh, data, tmp_path / "fresh", machine=FLOAT32)
    (two, card), (one, _), (other, _) = (
        checkpoint.read(tmp_path / run / "last.safetensors") for run in ("two", "one", "fresh")
    )
    assert same(two.state_dict(), one.state_dict())
    assert not same(two.state_dict(), other.state_dict())
    assert card.config.train.start_from == digest
    with pytest.raises(ConfigError, match=f"train.start_from is '{digest}'; give `start_from=RUN`, that model"):
        train(card.config, data, tmp_path / "two", machine=FLOAT32)


def test_a_codec_gets_a_second_decoder_afterwards(tmp_path: Path) -> None:
    first = trained(tmp_path, small_config("codec-tiny", "train.images=64"))
    config = with_settings_of(small_config("codec-tiny"), first)
    config = override(config, ["model.pleasing.start=0", "model.pleasing.perceptual.weight=0", "train.images=64"])
    train(config, small_data(tmp_path), tmp_path / "second", start_from=first, machine=FLOAT32)
    before, _ = checkpoint.read(first / "last.safetensors")
    after, _ = checkpoint.read(tmp_path / "second" / "last.safetensors")
    kept = {name: value for name, value in after.state_dict().items() if not name.startswith("pleasing.")}
    assert same(kept, before.state_dict()), "the files that it reads and writes stay the same"
    assert any(name.startswith("pleasing.") for name in after.state_dict())


def test_what_does_not_fit_is_refused(smalti, tmp_path: Path) -> None:
    write_source(tmp_path / "discs.npz")
    grey = np.load(tmp_path / "discs.npz")["images"].mean(axis=3).astype(np.uint8)
    np.savez(tmp_path / "grey.npz", images=grey)
    first = trained(tmp_path, small_config("codec-tiny", "train.images=64"))
    write_source(tmp_path / "discs.npz")
    words = ("train", "codec-tiny", "--out", "run", "--set", "train.images=64")
    for changed, source, said in (
        (("--start-from", "nowhere"), "discs.npz", "there is no nowhere; give a run folder or a .safetensors file"),
        (
            ("--start-from", first, "--set", "model.width=12"),
            "discs.npz",
            "the model to start from does not fit these settings",
        ),
        (("--start-from", first), "grey.npz", "give images with as many channels"),
    ):
        done = smalti(*words, "--data", source, *changed)
        assert done.code == 1
        assert said in done.err
        assert done.err.count("\n") <= 2, done.err
    for preset, said in (
        (
            "dcgan",
            "the recipe gan cannot start from a trained model, only codec, contrastive, restore, translate, vqvae can; "
            "leave",
        ),
        ("vqvae", "first is of the kind codec, but the preset trains the kind vqvae; give"),
    ):
        done = smalti("train", preset, "--data", "discs.npz", "--out", "run", "--start-from", first, *settings(preset))
        assert done.code == 1
        assert said in done.err


def test_the_command_takes_the_settings_of_the_model(smalti, tmp_path: Path) -> None:
    write_source(tmp_path / "discs.npz")
    first = trained(tmp_path, small_config("codec-tiny", "train.images=64"))
    words = ("train", "codec-tiny", "--start-from", first, "--data", "discs.npz", "--out", "run", "--batch", "8")
    done = smalti(*words, "--images", "64", "--set", "model.quality_high=60")
    assert done.code == 0, done.err
    card = checkpoint.read_card(tmp_path / "run" / "last.safetensors")
    assert card.config.model.width == 8
    assert card.config.model.quality_high == 60
    done = smalti(*words, "--images", "128", "--set", "model.quality_high=60")
    assert "resuming run at 64 images" in done.err
    done = smalti(*(word for word in words if word not in ("--start-from", first)), "--images", "128")
    assert done.code == 1
    assert "holds another training" in done.err


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_only_what_a_checkpoint_holds_whole_starts_from_one() -> None:
    assert set(ABLE) == {"vqvae", "codec", "contrastive", "restore", "translate"}, (
        "a discriminator is not in a checkpoint"
    )
