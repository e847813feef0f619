"""Every preset is a training that takes a step, at tiny size."""

from __future__ import annotations

import json

import pytest
import torch

from smalti.config.parse import from_plain, override, paths, to_plain
from smalti.config.presets import PRESETS, preset
from smalti.config.run import RunConfig
from smalti.data.spec import ImageSpec
from smalti.errors import ConfigError
from smalti.recipes import Images, TrainingContext, build_recipe

# Networks and codebooks that are quickly made; of these paths, a preset has some.
TINY = {
    "train.batch": 4,
    "model.autoencoder.width": 8,
    "model.autoencoder.residual_width": 4,
    "model.autoencoder.stride": 8,
    "model.quantizer.codes": 16,
    "model.quantizer.dimension": 4,
    "model.quantizer.groups": 4,
    "model.quantizer.layer.codes": 8,
    "model.quantizer.layer.dimension": 2,
    "model.perceptual.start": 0,
    "model.adversary.start": 0,
    "model.adversary.width": 4,
    "model.network.generator_width": 8,
    "model.network.discriminator_width": 4,
    "model.network.width": 16,
    "model.network.blocks": 1,
    "model.latent": 5,
    "model.encoder.stem_width": 4,
    "model.encoder.width": 8,
    "model.encoder.heads": 2,
    "model.projection": 8,
    "model.tile": 4,
    "model.coefficients": 16,
    "model.context.groups": 4,
    "model.context.width": 16,
}


def tiny(config: RunConfig) -> RunConfig:
    return override(config, [f"{path}={value}" for path, value in TINY.items() if path in paths(config)])


IMAGE_PRESETS = [name for name in PRESETS if (kind := preset(name).kind).data == "images" and not kind.takes_tokenizer]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_knows_its_name_and_comes_back_from_json(name: str) -> None:
    config = preset(name)
    assert config.preset == name
    assert PRESETS[name].about
    assert from_plain(RunConfig, json.loads(json.dumps(to_plain(config)))) == config
    assert paths(config) | {"preset": ""} == paths(PRESETS[name].config)


@pytest.mark.parametrize("name", IMAGE_PRESETS)
def test_a_preset_takes_a_step(name: str) -> None:
    recipe = build_recipe(tiny(preset(name)), TrainingContext(ImageSpec(3, 16, 16), classes=2))
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = Images(pixels, torch.tensor([0, 1, 0, 1]))
    recipe.start(lambda: [images] * 8)
    terms = recipe.step(images, 0)
    assert all(torch.isfinite(value) for value in terms.values())
    figures, trouble = recipe.diagnostics()
    assert set(recipe.headline) <= set(terms) | set(figures)
    assert trouble is None


def test_a_mistyped_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="there is no preset 'dcgna'; did you mean 'dcgan'"):
        preset("dcgna")
