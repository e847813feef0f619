"""Training to predict codes: what is trained and what is not, what is logged, and tokenizers that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_codes import write_tokenizer
from small_runs import small_config, small_data, tokenizer_for
from watchers import Watcher

from smalti.checkpoint import file as checkpoint
from smalti.config.run import RunConfig
from smalti.errors import ConfigError, OutputError
from smalti.models.restorer.code_restorer import CodeRestorer
from smalti.recipes import Tokenizer, build_recipe
from smalti.runtime.device import Machine
from smalti.training.initial import read_tokenizer
from smalti.training.loop import train

FLOAT32 = Machine("cpu", "float32")


def trained(folder: Path, *assignments: str, planes: int = 1, preset: str = "restore-codes") -> Watcher:
    write_tokenizer(folder / "tokenizer.safetensors", planes=planes)
    watcher = Watcher()
    train(
        small_config(preset, *assignments), small_data(folder), folder / "run",
        of=folder / "tokenizer.safetensors", machine=FLOAT32, reporter=watcher,
    )  # fmt: skip
    return watcher


def test_the_tokenizer_is_stored_as_it_was(tmp_path: Path) -> None:
    trained(tmp_path)
    before, inner = checkpoint.read(tmp_path / "tokenizer.safetensors")
    after, card = checkpoint.read(tmp_path / "run" / "last.safetensors")
    assert isinstance(after, CodeRestorer)
    wanted = before.state_dict()
    assert wanted.keys() == after.tokenizer.state_dict().keys()
    assert all(torch.equal(value, wanted[name]) for name, value in after.tokenizer.state_dict().items())
    changed = [name for name, value in after.predictor.encoder.state_dict().items()
               if not torch.equal(value, wanted[f"encoder.{name}"])]  # fmt: skip
    assert len(changed) == len(after.predictor.encoder.state_dict())
    assert card.tokenizer is not None
    assert card.tokenizer.digest == card.config.model.tokenizer == inner.digest  # type: ignore[attr-defined]


@pytest.mark.parametrize("planes", [1, 2])
def test_it_learns_the_codes(planes: int, tmp_path: Path) -> None:
    watcher = trained(
        tmp_path, "train.images=1600", "train.log_every=64", "train.save_every=1600", "model.degradation=noise(60)",
        "model.fidelity_start=1200", "model.perceptual.weight=0", "model.optimizer.learning_rate=5e-3", planes=planes,
    )  # fmt: skip
    first, last = watcher.records[0], watcher.records[-1]
    assert last["accuracy"] > max(first["accuracy"], 0.5)
    assert last["cross_entropy"] < first["cross_entropy"] / 2
    assert "psnr" not in first
    assert {"psnr", "gain"} <= last.keys()


def test_all_losses_are_logged_from_their_start_on(tmp_path: Path) -> None:
    watcher = trained(tmp_path, "model.adversary.weight=0.1", "model.adversary.width=4", "model.adversary.ramp=0")
    assert {"loss", "cross_entropy", "features", "accuracy"} == watcher.records[0].keys() & {
        "loss", "cross_entropy", "features", "accuracy", "psnr", "perceptual"
    }  # fmt: skip
    assert {"psnr", "gain", "perceptual", "adversarial", "discriminator"} <= watcher.records[-1].keys()


def test_connections_wait_for_their_start(tmp_path: Path) -> None:
    data, config = small_data(tmp_path), small_config("restore-codes", "model.fidelity_start=8")
    config, tokenizer = read_tokenizer(config, tokenizer_for("restore-codes", tmp_path))
    context = config.kind.load_recipe().context_for(data, torch.device("cpu"), "float32")
    recipe = build_recipe(config, context_with(context, tokenizer))
    batch = recipe.to_device(data.batch(0, 0, 8))

    def controls() -> list[torch.Tensor]:
        found = recipe.modules["predictor"].controls.state_dict()  # type: ignore[union-attr]
        return [value.clone() for name, value in found.items() if "change" in name]  # type: ignore[union-attr]

    recipe.step(batch, 0)
    assert all(not value.any() for value in controls())
    recipe.step(batch, 8)
    assert all(value.any() for value in controls())
    assert recipe.score([batch]) == recipe.score([batch])
    assert recipe.preview(batch).keys() == {"original", "degraded", "restored"}


def context_with(context, tokenizer: Tokenizer | None):
    import dataclasses

    return dataclasses.replace(context, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((), "predicts the codes of a trained VQ-VAE; give `of='RUN'`|give .*of.*RUN"),
        (("data.crop=6",), "have 6x6 pixels, but sides must be multiples of 4, the pixels per code"),
    ],
)
def test_what_does_not_fit_is_refused(change: tuple[str, ...], said: str, tmp_path: Path) -> None:
    from smalti.data.crops import CroppedImages

    data = small_data(tmp_path)
    of = tokenizer_for("restore-codes", tmp_path) if change else None
    with pytest.raises(ConfigError, match=said):
        train(
            small_config("restore-codes", *change), CroppedImages(data, 6) if change else data, tmp_path / "run",
            of=of, machine=FLOAT32,
        )  # fmt: skip


def test_wrong_tokenizers_are_refused(tmp_path: Path) -> None:
    of = tokenizer_for("restore-codes", tmp_path)
    config: RunConfig = small_config("restore-codes")
    with pytest.raises(ConfigError, match="the tokenizer is of images with 3 channels, the images have 1"):
        train(config, small_data(tmp_path / "grey", channels=1), tmp_path / "a", of=of, machine=FLOAT32)
    with pytest.raises(ConfigError, match="have transparency"):
        train(config, small_data(tmp_path / "clear", channels=4), tmp_path / "a", of=of, machine=FLOAT32)
    data = small_data(tmp_path)
    train(small_config("denoise", "train.images=8"), data, tmp_path / "denoise", machine=FLOAT32)
    with pytest.raises(ConfigError, match=r"is of the kind restore, but .* must be a vqvae"):
        train(config, data, tmp_path / "a", of=tmp_path / "denoise", machine=FLOAT32)
    with pytest.raises(ConfigError, match="is for the recipe restore-codes, but restore learns images; leave it out"):
        train(small_config("denoise"), data, tmp_path / "a", of=of, machine=FLOAT32)
    with pytest.raises(ConfigError, match=r"model\.tokenizer is 'other', but"):
        train(small_config("restore-codes", "model.tokenizer=other"), data, tmp_path / "a", of=of, machine=FLOAT32)
    train(small_config("restore-codes", "train.images=8"), data, tmp_path / "a", of=of, machine=FLOAT32)
    write_tokenizer(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(OutputError, match=r"its model\.tokenizer is"):
        train(config, data, tmp_path / "a", of=tmp_path / "other.safetensors", machine=FLOAT32)
