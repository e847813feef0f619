"""Training of translators: with pairs they come nearer to the targets, without pairs nearer to the style."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small_runs import small_config, small_data, small_pairs
from watchers import Watcher

from smalti.config.run import RunConfig
from smalti.data.dataset import Dataset
from smalti.errors import ConfigError
from smalti.recipes import build_recipe
from smalti.recipes.images import Images
from smalti.recipes.translate import TranslateRecipe
from smalti.runtime.device import Machine
from smalti.training.loop import train

FLOAT32 = Machine("cpu", "float32")


def recipe_of(config: RunConfig, data: Dataset) -> TranslateRecipe:
    recipe = build_recipe(config, config.kind.load_recipe().context_for(data, torch.device("cpu"), "float32"))
    assert isinstance(recipe, TranslateRecipe)
    return recipe


def test_results_come_near_to_the_targets(tmp_path: Path) -> None:
    config = small_config(
        "restyle-paired", "train.images=1600", "train.log_every=160", "model.optimizer.learning_rate=5e-3",
        "model.adversary.weight=0", "model.objective.perceptual.weight=0", "train.ema_half_life=50",
    )  # fmt: skip
    watcher = Watcher()
    result = train(config, small_pairs(tmp_path), tmp_path / "run", machine=FLOAT32, reporter=watcher)
    first, last = watcher.records[0], watcher.records[-1]
    assert last["l1"] < 0.5 * first["l1"]
    assert last["gain"] > 0.1
    assert (result.score["name"], result.score["value"] < 0.2) == ("l1", True)


def test_without_pairs_the_discriminator_moves_the_pictures(tmp_path: Path) -> None:
    config = small_config("restyle-unpaired", "train.images=320", "train.log_every=32")
    watcher = Watcher()
    result = train(config, small_pairs(tmp_path, matched=False), tmp_path / "run", machine=FLOAT32, reporter=watcher)
    assert watcher.records[-1]["change"] > 10 * watcher.records[0]["change"]
    assert watcher.records[-1]["contrastive"] < watcher.records[0]["contrastive"]
    assert {"identity", "adversarial", "discriminator"} <= watcher.records[-1].keys()
    assert result.score["name"] == "kid_smalti-vit"


def test_all_losses_of_pairs_are_logged(tmp_path: Path) -> None:
    watcher = Watcher()
    train(small_config("restyle-paired"), small_pairs(tmp_path), tmp_path / "run", machine=FLOAT32, reporter=watcher)
    assert {"l1", "gain", "perceptual", "adversarial", "discriminator"} <= watcher.records[-1].keys()


def test_the_heads_learn_and_are_not_exported(tmp_path: Path) -> None:
    config, data = small_config("restyle-unpaired", "model.objective.identity_weight=0"), small_pairs(tmp_path)
    recipe = recipe_of(config, data)
    before = {name: value.clone() for name, value in recipe.modules["heads"].state_dict().items()}
    terms = recipe.step(recipe.to_device(data.batch(0, 0, 8)), 0)
    assert "identity" not in terms
    after = recipe.modules["heads"].state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert not [name for name in recipe.export().state_dict() if "heads" in name]
    state = copy.deepcopy(recipe.state_dict())
    other = recipe_of(config, data)
    other.load_state_dict(state)
    batch = recipe.to_device(data.batch(0, 8, 8))
    for made in (recipe, other):
        made.step(batch, 8)
    for a, b in zip(recipe.tensors(), other.tensors(), strict=True):
        assert torch.equal(a, b)


def test_scores_and_previews(tmp_path: Path) -> None:
    pairs = small_pairs(tmp_path)
    recipe = recipe_of(small_config("restyle-paired"), pairs)
    batch = recipe.to_device(pairs.take(torch.arange(8).numpy()))
    assert list(recipe.preview(batch)) == ["input", "result", "target"]
    wanted = float((batch.pixels - batch.targets).abs().mean() / 2)
    assert recipe.score([batch]).value == pytest.approx(wanted), "at first nothing is changed"
    unpaired = recipe_of(small_config("restyle-unpaired"), pairs)
    assert list(unpaired.preview(batch)) == ["input", "result"]
    same = Images(batch.pixels, None, batch.pixels)
    assert unpaired.score([same]).value < unpaired.score([batch]).value


def test_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pairs, out = small_pairs(tmp_path / "pairs"), tmp_path / "run"
    with pytest.raises(ConfigError, match="a translator learns from two sources; give `targets"):
        train(small_config("restyle-paired"), small_data(tmp_path), out, machine=FLOAT32)
    with pytest.raises(ConfigError, match="learns from two sources without pairs, but the data are pairs"):
        train(small_config("restyle-unpaired"), pairs, out, machine=FLOAT32)
    with pytest.raises(ConfigError, match="learns from pairs of one size, but the data are no pairs"):
        train(small_config("restyle-paired"), small_pairs(tmp_path, matched=False), out, machine=FLOAT32)
    with pytest.raises(ConfigError, match="holds pairs, which the recipe vqvae does not learn from"):
        train(small_config("vqvae"), pairs, out, machine=FLOAT32)
    with pytest.raises(ConfigError, match="only one are pairs; give `held_out_targets"):
        train(small_config("restyle-paired"), pairs, out, held_out=small_data(tmp_path), machine=FLOAT32)
