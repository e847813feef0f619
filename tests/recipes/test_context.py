"""Learning the context net of codes: bits fall, and the score is what the coder will need."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_codes import CODES, small_codes, some_codes
from small_runs import small_config

from smalti.codec.code_context import CodeContext
from smalti.data.spec import ImageSpec
from smalti.errors import ConfigError
from smalti.recipes import TrainingContext, build_recipe
from smalti.recipes.codes import Codes
from smalti.recipes.context import ContextRecipe

CPU = torch.device("cpu")


def build(folder: Path, *assignments: str, planes: int = 1) -> ContextRecipe:
    data = small_codes(folder, planes=planes)
    config = small_config("context", "model.optimizer.warm_up=0", *assignments)
    recipe = build_recipe(config, ContextRecipe.context_for(data, CPU, "float32"))
    assert isinstance(recipe, ContextRecipe)
    return recipe


def batch_of(count: int, *, planes: int = 1, seed: int = 0) -> Codes:
    return Codes(torch.from_numpy(some_codes(count, planes=planes, seed=seed)))


@pytest.mark.parametrize("planes", [1, 3])
def test_it_learns_what_there_is_to_learn(planes: int, tmp_path: Path) -> None:
    recipe = build(
        tmp_path, "train.ema_half_life=200", "train.images=2560", "model.optimizer.learning_rate=0.02", planes=planes
    )
    recipe.start(lambda: [batch_of(500, planes=planes)])
    held_out = [batch_of(32, planes=planes, seed=1), batch_of(32, planes=planes, seed=2)]
    before = recipe.score(held_out)
    assert before.name == "bits_per_code"
    assert not before.larger_is_better
    assert before.value == pytest.approx(math.log2(CODES), abs=0.3)
    for step in range(80):
        terms = recipe.step(batch_of(32, planes=planes, seed=step + 3), 32 * step)
    # One of sixteen positions is unknown, which takes 3/16 bits.
    assert float(terms["bits"]) < 1
    assert recipe.score(held_out).value < 1


def test_the_score_is_of_the_integer_net(tmp_path: Path) -> None:
    recipe = build(tmp_path)
    recipe.start(lambda: [batch_of(50)])
    codes = some_codes(8, seed=1)
    net = recipe.export().context
    bits = CodeContext(net.arrays(), net.codebook_sizes).information(codes)
    assert recipe.score([Codes(torch.from_numpy(codes))]).value == pytest.approx(bits.sum() / codes.size)


def test_previews_show_where_the_bits_are(tmp_path: Path) -> None:
    recipe = build(tmp_path)
    recipe.start(lambda: [batch_of(50)])
    batch = batch_of(5)
    shown = recipe.preview(batch)
    assert {name: tuple(value.shape) for name, value in shown.items()} == {
        "images": (5, 3, 16, 16), "bits": (5, 3, 16, 16)
    }  # fmt: skip
    expected = 2 * recipe.export().context(batch.codes)[:, 0] / math.log2(CODES) - 1
    np.testing.assert_allclose(shown["bits"][:, 0, ::4, ::4], expected.clamp(max=1), rtol=1e-5)


def test_images_are_not_learned() -> None:
    with pytest.raises(ConfigError, match="the recipe context learns codes, and the data are images; write codes with"):
        build_recipe(small_config("context"), TrainingContext(ImageSpec(3, 16, 16)))
