"""Training of restorers: they learn, also with all losses, and are scored on the same degraded images every time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import small_config, small_data
from watchers import Watcher

from smalti.errors import ConfigError
from smalti.recipes import build_recipe
from smalti.recipes.images import Images
from smalti.runtime.device import Machine
from smalti.training.loop import train

FLOAT32 = Machine("cpu", "float32")


@pytest.mark.parametrize(("preset", "least"), [("denoise", 0.5), ("super-x2", 0.05)])
def test_restored_images_are_nearer_to_the_originals(preset: str, least: float, tmp_path: Path) -> None:
    config = small_config(preset, "train.images=1600", "train.log_every=160", "model.optimizer.learning_rate=5e-3")
    watcher = Watcher()
    train(config, small_data(tmp_path), tmp_path / "run", machine=FLOAT32, reporter=watcher)
    assert watcher.records[-1]["gain"] > watcher.records[0]["gain"] + least
    assert watcher.records[-1]["gain"] > least


def test_all_losses_are_logged(tmp_path: Path) -> None:
    watcher = Watcher()
    train(small_config("fill"), small_data(tmp_path), tmp_path / "run", machine=FLOAT32, reporter=watcher)
    assert {"loss", "psnr", "gain", "perceptual", "adversarial", "discriminator"} <= watcher.records[-1].keys()


def test_scores_are_of_the_same_degraded_images(tmp_path: Path) -> None:
    config, data = small_config("denoise"), small_data(tmp_path)
    kind = config.kind.load_recipe()
    recipe = build_recipe(config, kind.context_for(data, torch.device("cpu"), "float32"))
    batches = [Images(torch.rand(4, 3, 16, 16) * 2 - 1) for _ in range(2)]
    assert recipe.score(batches) == recipe.score(batches)
    shown = recipe.preview(batches[0])
    assert shown.keys() == {"original", "degraded", "restored"}
    assert all(images.shape == (4, 3, 16, 16) for images in shown.values())


def test_sides_that_cannot_become_smaller_are_refused(tmp_path: Path) -> None:
    config = small_config("super-x2")
    with pytest.raises(ConfigError, match="have 15x15 pixels, but sides must be multiples of 2"):
        train(config, small_data(tmp_path, side=15), tmp_path / "run", machine=FLOAT32)


def test_transparency_is_not_learned(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="have transparency, which restorers carry over and do not learn"):
        train(small_config("denoise", "data.channels=4"), small_data(tmp_path, channels=4), tmp_path / "run")


def test_degradations_are_parsed_with_the_settings() -> None:
    with pytest.raises(ConfigError, match=r"model\.degradation: there is no degradation 'nose'; .*noise"):
        small_config("denoise", "model.degradation=nose(5)")
    with pytest.raises(ConfigError, match="have discriminators of pixels alone"):
        small_config("fill", "model.adversary.inputs=features")
