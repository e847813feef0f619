"""The recipe `contrastive`: it learns to tell images apart, warms up, and scores what it should."""

from __future__ import annotations

import pytest
import torch
from small_runs import small_config

from smalti.data.spec import ImageSpec
from smalti.errors import ConfigError
from smalti.recipes import Images, TrainingContext
from smalti.recipes.contrastive import ContrastiveRecipe


def recipe(*assignments: str, classes: int = 0) -> ContrastiveRecipe:
    config = small_config("smalti-vit", "train.batch=16", "model.warm_up=0", *assignments)
    return ContrastiveRecipe(config, TrainingContext(ImageSpec(3, 16, 16), classes))


def stripes(count: int = 16, seed: int = 0) -> Images:
    """Two kinds: upright and level stripes, of a random colour and width."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    wave = torch.sin(torch.arange(16) * (0.6 + torch.rand(count, 1, generator=generator)))
    level = wave[:, None, :, None].expand(-1, 3, 16, 16)
    pixels = torch.where(labels[:, None, None, None] == 1, level, level.transpose(2, 3))
    return Images(pixels * (0.3 + 0.7 * torch.rand(count, 3, 1, 1, generator=generator)), labels)


def test_training_makes_views_of_one_image_the_nearest() -> None:
    made = recipe("model.optimizer.learning_rate=0.003")
    losses = [float(made.step(stripes(seed=step), 16 * step)["loss"]) for step in range(60)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_the_learning_rate_warms_up_and_is_left_as_it_was() -> None:
    made = recipe("model.warm_up=1600", "model.optimizer.name=sgd", "model.optimizer.learning_rate=1")
    assert made.optimizers["both"].param_groups[0]["lr"] == 1
    before = {name: value.detach().clone() for name, value in made.encoder.named_parameters()}
    made.step(stripes(), 0)
    first = sum(float((value.detach() - before[name]).norm()) for name, value in made.encoder.named_parameters())
    full = recipe("model.optimizer.name=sgd", "model.optimizer.learning_rate=1")
    full.step(stripes(), 0)
    whole = sum(float((value.detach() - before[name]).norm()) for name, value in full.encoder.named_parameters())
    assert first == pytest.approx(whole / 100, rel=0.05)
    assert made.optimizers["both"].param_groups[0]["lr"] == 1


def test_labels_are_read_off_neighbours_and_without_labels_views_are_matched() -> None:
    made = recipe(classes=2)
    for step in range(30):
        made.step(stripes(seed=step), 16 * step)
    score = made.score([stripes(32, seed=99), stripes(32, seed=98)])
    assert score.name == "neighbour_accuracy"
    assert score.value > 0.6
    blind = made.score([Images(stripes(32, seed=99).pixels)])
    assert blind.name == "view_accuracy"
    assert 0 <= blind.value <= 1
    few = made.score([stripes(4)])
    assert few.name == "view_accuracy", "too few images for neighbours to vote"


def test_the_preview_shows_every_image_beside_another_one() -> None:
    made = recipe()
    batch = stripes(8)
    shown = made.preview(batch)
    assert shown["image"].shape == shown["nearest"].shape == batch.pixels.shape
    assert not any(torch.equal(a, b) for a, b in zip(shown["image"], shown["nearest"], strict=True))


def test_what_is_kept_is_the_averaged_encoder_without_the_projector() -> None:
    made = recipe()
    made.step(stripes(), 0)
    kept = made.export()
    assert not kept.training
    assert set(kept.state_dict()) == set(made.encoder.state_dict())


def test_one_image_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch is 1, but a contrastive training"):
        recipe("train.batch=1")
