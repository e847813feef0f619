"""Every preset is a training that takes a step, at tiny size."""

from __future__ import annotations

import json

import pytest
import torch

from smalti.config import RunConfig, from_plain, override, paths, to_plain
from smalti.errors import ConfigError
from smalti.presets import PRESETS, preset
from smalti.recipes import Images, Setting, build_recipe

TINY = {
    "vqvae": ["autoencoder.width=8", "autoencoder.residual_width=4", "quantizer.codes=16", "quantizer.dimension=4"],
    "contrastive": ["encoder.stem_width=4", "encoder.width=8", "encoder.heads=2", "projection=8"],
    "gan": ["generator_width=8", "discriminator_width=4", "latent=5"],
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_knows_its_name_and_comes_back_from_json(name: str) -> None:
    config = preset(name)
    assert config.preset == name
    assert PRESETS[name].about
    assert from_plain(RunConfig, json.loads(json.dumps(to_plain(config)))) == config
    assert paths(config) | {"preset": ""} == paths(PRESETS[name].config)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_takes_a_step(name: str) -> None:
    config = preset(name)
    config = override(config, ["train.batch=4", *(f"model.{change}" for change in TINY[config.recipe])])
    recipe = build_recipe(config, Setting((3, 16, 16)))
    terms = recipe.step(Images(torch.rand(4, 3, 16, 16) * 2 - 1), 0)
    assert all(torch.isfinite(value) for value in terms.values())
    assert set(recipe.headline) <= set(terms)


def test_a_mistyped_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="there is no preset 'dcgna'; did you mean 'dcgan'"):
        preset("dcgna")
