"""One step of the VQ-VAE recipe, and many until it knows its images by heart."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from smalti.config.autoencoder import ClassicConfig
from smalti.config.optimizer import OptimizerConfig
from smalti.config.quantizer import VectorConfig
from smalti.config.run import LoopConfig, RunConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.data.spec import ImageSpec
from smalti.losses.reconstruction import RECONSTRUCTION_LOSSES
from smalti.optim.build import OPTIMIZERS
from smalti.recipes import Images, TrainingContext, build_recipe
from smalti.recipes.vqvae import VQVAERecipe

SHAPE = (3, 8, 8)


def make(
    *, precision: str = "float32", architecture: str = "residual", update: str = "ema", width: int = 8, codes: int = 16,
    half_life: int = 0, shape: tuple[int, int, int] = SHAPE, **model: Any,
) -> VQVAERecipe:  # fmt: skip
    config = RunConfig(
        model=VQVAEConfig(
            ClassicConfig(architecture, width, residual_width=16, residual_blocks=1),
            VectorConfig(codes=codes, dimension=8, update=update),
            **model,
        ),
        train=LoopConfig(batch=8, ema_half_life=half_life),
    )
    recipe = build_recipe(config, TrainingContext(ImageSpec(*shape), precision=precision))
    assert isinstance(recipe, VQVAERecipe)
    return recipe


def batch(seed: int = 0) -> Images:
    """Eight smooth pictures."""
    small = torch.rand(8, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Images(torch.nn.functional.interpolate(small, SHAPE[1:], mode="bilinear"))


@pytest.mark.parametrize("architecture", ["residual", "plain"])
@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_step_moves_every_weight(architecture: str, update: str) -> None:
    recipe = make(architecture=architecture, update=update, optimizer=OptimizerConfig(learning_rate=1e-3))
    before = {name: tensor.clone() for name, tensor in recipe.autoencoder.state_dict().items()}
    for step in range(2):
        recipe.step(batch(), step * 8)
    same = {name for name, tensor in recipe.autoencoder.state_dict().items() if torch.equal(tensor, before[name])}
    assert not same


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", RECONSTRUCTION_LOSSES)
def test_every_loss_takes_a_step(loss: str, precision: str) -> None:
    recipe = make(loss=loss, precision=precision)
    terms = recipe.step(batch(), 0)
    assert set(terms) == {
        "loss", "reconstruction", "quantizer", "perplexity", "used", "dead", "norm_ratio", "psnr"
    }  # fmt: skip
    for name, value in terms.items():
        assert value.shape == (), name
        assert not value.requires_grad, name
        assert torch.isfinite(value), name
    expected = 4 * terms["reconstruction"] + terms["quantizer"]
    torch.testing.assert_close(terms["loss"], expected)
    assert 1 <= float(terms["perplexity"]) <= 16


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_step(name: str) -> None:
    recipe = make(optimizer=OptimizerConfig(name, learning_rate=1e-3))
    before = [p.detach().clone() for p in recipe.autoencoder.parameters()]
    for step in range(2):
        recipe.step(batch(), step * 8)
    assert any(not torch.equal(a, b) for a, b in zip(before, recipe.autoencoder.parameters(), strict=True))
    assert all(torch.isfinite(p).all() for p in recipe.autoencoder.parameters())


@pytest.mark.parametrize(("update", "architecture"), [("ema", "residual"), ("gradient", "plain")])
def test_it_learns_eight_pictures_by_heart(update: str, architecture: str) -> None:
    recipe = make(
        update=update, architecture=architecture, width=32, codes=32, optimizer=OptimizerConfig(learning_rate=3e-3)
    )
    images = batch()
    first = float(recipe.step(images, 0)["psnr"])
    for step in range(1, 150):
        last = recipe.step(images, step * 8)
    assert float(last["psnr"]) > first + 8
    score = recipe.score([images])
    assert (score.name, score.larger_is_better) == ("psnr_db", True)
    assert score.value > first + 5


def test_the_logged_psnr_is_that_of_the_batch() -> None:
    recipe = make()
    recipe.step(batch(), 0)
    reconstruction = copy.deepcopy(recipe.autoencoder).train()(batch().pixels)[1].detach().double()
    mse = ((reconstruction - batch().pixels) / 2).square().mean()
    assert float(recipe.step(batch(), 8)["psnr"]) == pytest.approx(float(-10 * torch.log10(mse)), rel=1e-4)


def test_the_score_pools_all_batches() -> None:
    recipe = make()
    recipe.step(batch(), 0)
    together = recipe.score([Images(torch.cat([batch(0).pixels, batch(1).pixels]))]).value
    assert recipe.score([batch(0), batch(1)]).value == pytest.approx(together, rel=1e-6)


def test_a_state_that_was_saved_goes_on_as_if_nothing_had_happened() -> None:
    def run(recipe: VQVAERecipe, steps: range) -> list[dict[str, Tensor]]:
        return [recipe.step(batch(step), step * 8) for step in steps]

    whole, other = make(half_life=50), make(half_life=50)
    run(whole, range(2))
    state = copy.deepcopy(whole.state_dict())
    run(other, range(5, 7))
    other.load_state_dict(state)
    assert run(whole, range(2, 4)) == run(other, range(2, 4))
    for a, b in zip(whole.export().state_dict().values(), other.export().state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_once_settled_the_decoder_alone_learns() -> None:
    recipe = make(half_life=50, freeze_encoder_at=16)
    for step in range(2):
        recipe.step(batch(step), step * 8)
    averages = {name: value.clone() for name, value in recipe.export().state_dict().items()}
    decoder = {name: value.clone() for name, value in recipe.autoencoder.decoder.state_dict().items()}
    state = copy.deepcopy(recipe.state_dict())
    for step in range(2, 5):
        recipe.step(batch(step), step * 8)
    for network in (recipe.autoencoder, recipe.export()):
        for name, value in network.state_dict().items():
            assert name.startswith("decoder") or torch.equal(value, averages[name]), name
    assert all(not torch.equal(value, decoder[name]) for name, value in recipe.autoencoder.decoder.named_parameters())

    # Taken back to where it was not settled, everything moves again.
    recipe.load_state_dict(state)
    before = {name: value.clone() for name, value in recipe.autoencoder.named_parameters()}
    recipe.step(batch(), 8)
    assert all(not torch.equal(value, before[name]) for name, value in recipe.autoencoder.named_parameters())


def test_a_settled_training_resumes_as_if_nothing_had_happened() -> None:
    whole, other = make(half_life=50, freeze_encoder_at=8), make(half_life=50, freeze_encoder_at=8)
    for step in range(3):
        whole.step(batch(step), step * 8)
    other.load_state_dict(copy.deepcopy(whole.state_dict()))
    for step in range(3, 5):
        assert whole.step(batch(step), step * 8) == other.step(batch(step), step * 8)
    for a, b in zip(whole.export().state_dict().values(), other.export().state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_two_recipes_of_one_seed_are_one() -> None:
    a, b = make(half_life=50), make(half_life=50)
    torch.rand(3)
    assert a.step(batch(), 0) == b.step(batch(), 0)


def test_previews_stand_beside_their_originals() -> None:
    recipe = make()
    found = recipe.preview(batch())
    assert list(found) == ["original", "reconstruction"]
    assert torch.equal(found["original"], batch().pixels)
    assert found["reconstruction"].shape == batch().pixels.shape
    assert float(found["reconstruction"].abs().max()) <= 1


def test_odd_sizes_and_grey_images_train() -> None:
    recipe = make(shape=(1, 5, 7))
    images = Images(torch.rand(4, 1, 5, 7) * 2 - 1)
    assert torch.isfinite(recipe.step(images, 0)["loss"])
    assert recipe.preview(images)["reconstruction"].shape == (4, 1, 5, 7)
