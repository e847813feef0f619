"""One step of the GAN recipe, looked at from every side."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from descents import descents
from torch import Tensor, nn

from smalti.config import DCGANConfig, GANConfig, LoopConfig, OptimizerConfig, PenaltyConfig, R3GANConfig, RunConfig
from smalti.errors import ConfigError
from smalti.layers.optimizers import OPTIMIZERS
from smalti.layers.randomness import Draws
from smalti.losses.adversarial import ADVERSARIAL_LOSSES
from smalti.recipes import Images, Setting, build_recipe
from smalti.recipes.gan import GANRecipe

STILL = OptimizerConfig(learning_rate=0.0)
SHAPE = (3, 16, 16)
SMALL = R3GANConfig(width=16, patch=1)
DCGAN = DCGANConfig(generator_width=8, discriminator_width=4)


def make(*, precision: str = "float32", classes: int = 0, half_life: int = 0, seed: int = 0, **model: Any) -> GANRecipe:
    config = RunConfig(
        recipe="gan",
        model=GANConfig(**{"latent": 6, "network": SMALL, "penalty": PenaltyConfig(gamma=0.5)} | model),
        train=LoopConfig(batch=8, average_half_life=half_life, seed=seed),
    )
    recipe = build_recipe(config, Setting(SHAPE, classes, precision=precision))
    assert isinstance(recipe, GANRecipe)
    recipe.start(lambda: [batch(classes=classes)])
    return recipe


def batch(seed: int = 0, classes: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(8, *SHAPE, generator=generator) * 2 - 1
    return Images(pixels, torch.arange(8) % classes if classes else None)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


def moved(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in module.named_parameters() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("classes", [0, 4])
def test_a_step_moves_every_weight_of_both(classes: int) -> None:
    recipe = make(classes=classes, conditional=bool(classes))
    before = {name: weights(module) for name, module in recipe.modules.items()}
    for step in range(2):  # the last convolution of a block is zero at first, and what is before it waits for it
        recipe.step(batch(classes=classes), 8 * step)
    for name, module in recipe.modules.items():
        assert moved(module, before[name]) == set(before[name]), name


@pytest.mark.parametrize("still", ["generator", "discriminator"])
def test_each_optimizer_moves_its_own_network_alone(still: str) -> None:
    recipe = make(**{f"{still}_optimizer": STILL})
    before = {name: weights(module) for name, module in recipe.modules.items()}
    recipe.step(batch(), 0)
    other = ({"generator", "discriminator"} - {still}).pop()
    assert not moved(recipe.modules[still], before[still])
    assert moved(recipe.modules[other], before[other])


def test_the_discriminator_learns_from_fakes_the_generator_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """While D's gradients are taken, none reaches G; while G's are taken, none reaches D."""
    seen = descents(make(), batch(), 0, monkeypatch)
    assert seen == [("discriminator", {"discriminator"}), ("generator", {"generator"})]


@pytest.mark.parametrize(("r1", "r2"), [(True, True), (True, False), (False, True), (False, False)])
def test_the_discriminators_gradient_is_that_of_its_loss(r1: bool, r2: bool) -> None:
    """softplus(D(fake) - D(real)) + gamma/2 (R1 + R2), each penalty from images of its own."""
    recipe = make(
        penalty=PenaltyConfig(r1=r1, r2=r2, gamma=3.0),
        discriminator_optimizer=OptimizerConfig("sgd", learning_rate=1.0),
        generator_optimizer=STILL,
    )
    twin = copy.deepcopy(recipe.discriminator)
    real = batch().pixels.clone().requires_grad_()
    z = Draws(recipe.draw_seed, 64).normal(8, 6)
    fake = copy.deepcopy(recipe.generator)(z).detach().requires_grad_()
    loss = nn.functional.softplus(twin(fake) - twin(real)).mean()
    penalty = torch.zeros(())
    for images, wanted in ((real, r1), (fake, r2)):
        (slope,) = torch.autograd.grad(twin(images).sum(), images, create_graph=True)
        penalty = penalty + wanted * 3.0 / 2 * slope.square().sum(dim=(1, 2, 3)).mean()
    (loss + penalty).backward()
    before = weights(recipe.discriminator)
    terms = recipe.step(batch(), 64)
    assert float(terms["discriminator"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    assert float(terms["penalty"]) == pytest.approx(float(penalty.detach()), rel=1e-5)
    for name, parameter in twin.named_parameters():
        now = dict(recipe.discriminator.named_parameters())[name]
        torch.testing.assert_close(before[name] - now.detach(), parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_step_from_the_same_state_is_the_same(precision: str) -> None:
    results = []
    for _ in range(2):
        recipe = make(precision=precision, half_life=100)
        terms = [recipe.step(batch(step), step * 8) for step in range(2)]
        results.append((terms, recipe.state_dict()))
    assert results[0][0] == results[1][0]
    assert_same(results[0][1], results[1][1])


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    elif isinstance(a, Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def test_another_seed_is_another_start_and_another_step_other_noise() -> None:
    assert not torch.equal(make().generator.network.project.weight, make(seed=1).generator.network.project.weight)
    first, second = make().step(batch(), 0), make().step(batch(), 8)
    assert first["fake_logit"] != second["fake_logit"]


def test_building_a_recipe_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    recipe = make()
    recipe.step(batch(), 0)
    recipe.preview(batch())
    recipe.score([batch()])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("loss", ADVERSARIAL_LOSSES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [0, 3])
def test_every_loss_takes_a_step(loss: str, precision: str, classes: int) -> None:
    recipe = make(loss=loss, precision=precision, classes=classes, conditional=bool(classes))
    terms = recipe.step(batch(classes=classes), 0)
    assert {"generator", "discriminator", "penalty", "real_logit", "fake_logit", "gap"} < set(terms)
    for name, value in terms.items():
        assert value.shape == (), name
        assert not value.requires_grad, name
        assert torch.isfinite(value), name
    assert set(recipe.headline) - {"diversity"} <= set(terms)
    assert all(torch.isfinite(p).all() for module in recipe.modules.values() for p in module.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_step(name: str) -> None:
    choice = OptimizerConfig(name, learning_rate=1e-3)
    recipe = make(generator_optimizer=choice, discriminator_optimizer=choice)
    before = {kind: weights(module) for kind, module in recipe.modules.items()}
    for step in range(2):
        recipe.step(batch(), step * 8)
    for kind in ("generator", "discriminator"):
        module = recipe.modules[kind]
        assert moved(module, before[kind])
        assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize(
    ("loss", "weight", "expected"),
    [("wasserstein", None, True), ("wasserstein", 0.0, False), ("bce", None, False), ("hinge", 2.0, True)],
)
def test_the_penalty_is_on_where_it_is_needed_or_asked_for(loss: str, weight: float | None, expected: bool) -> None:
    recipe = make(loss=loss, penalty=PenaltyConfig(r1=False, r2=False, gradient=weight))
    assert (float(recipe.step(batch(), 0)["penalty"]) > 0) is expected
    if weight is None and expected:
        assert recipe.gradient_weight == 10


def test_labels_are_asked_for_where_they_are_needed() -> None:
    with pytest.raises(ConfigError, match=r"model\.conditional is true, but the data has no labels"):
        make(conditional=True)
    recipe = make(classes=4)  # labels are there, but nobody asked for them
    recipe.step(batch(classes=4), 0)
    assert recipe.export().classes == 0


def test_a_state_that_was_saved_goes_on_as_if_nothing_had_happened() -> None:
    def run(recipe: GANRecipe, steps: range) -> list[dict[str, Tensor]]:
        return [recipe.step(batch(step), step * 8) for step in steps]

    whole = make(half_life=50)
    run(whole, range(2))
    state = copy.deepcopy(whole.state_dict())
    other = make(half_life=50, seed=0)
    run(other, range(5, 7))
    other.load_state_dict(state)
    assert run(whole, range(2, 4)) == run(other, range(2, 4))
    assert_same(whole.state_dict(), other.state_dict())


def test_previews_are_the_averaged_weights_and_can_be_compared() -> None:
    recipe = make(half_life=1000)
    first = recipe.preview(batch())["samples"]
    assert first.shape == (8, *SHAPE)
    assert torch.equal(first, recipe.preview(batch(1))["samples"])
    recipe.step(batch(), 0)
    assert not torch.equal(first, recipe.preview(batch())["samples"])
    assert not recipe.export().training
    assert recipe.export() is recipe.averages["generator"].module


def test_the_score_says_what_it_is_and_repeats() -> None:
    recipe = make()
    scores = [recipe.score([batch(0), batch(1)]) for _ in range(2)]
    assert scores[0] == scores[1]
    assert (scores[0].name, scores[0].larger_is_better) == ("frechet_distance", False)
    assert scores[0].value > 0


def test_rates_are_scaled_for_both() -> None:
    recipe = make()
    recipe.scale_learning_rates(0.5)
    assert [group["lr"] for o in recipe.optimizers.values() for group in o.param_groups] == [1e-4, 1e-4]


def test_a_setting_that_does_not_fit_the_generator_is_a_config_error() -> None:
    config = make().config
    with pytest.raises(ConfigError, match="shorter sides that can be reached are 16, 20, 24"):
        build_recipe(config, dataclasses.replace(make().setting, image=(3, 18, 16)))
