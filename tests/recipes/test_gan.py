"""One step of the GAN recipe, looked at from every side."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from descents import descents
from gan_recipes import SHAPE, batch, make, weights
from torch import Tensor, nn

from smalti.config.gan import (
    AugmentationConfig,
    DCGANConfig,
    DiscriminatorConfig,
    PenaltyConfig,
    SNGANConfig,
)
from smalti.config.optimizer import OptimizerConfig
from smalti.data.spec import ImageSpec
from smalti.errors import ConfigError
from smalti.losses.adversarial import ADVERSARIAL_LOSSES
from smalti.optim.build import OPTIMIZERS
from smalti.recipes import build_recipe
from smalti.recipes.gamma import SHARE
from smalti.recipes.gan import GANRecipe
from smalti.runtime.rng import Draws

STILL = OptimizerConfig(learning_rate=0.0)
DCGAN = DCGANConfig(generator_width=8, discriminator_width=4)


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
        build_recipe(config, dataclasses.replace(make().context, spec=ImageSpec(3, 18, 16)))


FEATURES, BOTH = DiscriminatorConfig("features", width=8), DiscriminatorConfig("both", width=8)
VARIANTS: dict[str, dict[str, Any]] = {
    "pixels": {},
    "pixels, shared": {"resample_for_generator": False},
    "features": {"discriminator": FEATURES},
    "features, shared": {"discriminator": FEATURES, "resample_for_generator": False},
    "both": {"discriminator": BOTH},
    "both, shared, with lecam": {
        "discriminator": BOTH,
        "resample_for_generator": False,
        "penalty": PenaltyConfig(gamma=1.0, lecam=0.3),
    },
    "sngan": {
        "network": SNGANConfig(generator_width=8, discriminator_width=8),
        "loss": "hinge",
        "penalty": PenaltyConfig(r1=False, r2=False),
    },
    "dcgan": {"network": DCGAN, "loss": "bce", "penalty": PenaltyConfig(r1=False, r2=False)},
    "lecam": {"penalty": PenaltyConfig(gamma=1.0, lecam=0.3)},
    "augmented": {"augmentation": AugmentationConfig(probability=0.7, flip=True)},
    "adaptive": {"augmentation": AugmentationConfig("adaptive")},
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [0, 3])
def test_every_kind_of_training_takes_steps(name: str, precision: str, classes: int) -> None:
    recipe = make(precision=precision, classes=classes, conditional=bool(classes), **VARIANTS[name])
    before = {kind: weights(recipe.modules[kind]) for kind in ("generator", "discriminator")}
    for step in range(2):
        terms = recipe.step(batch(step, classes), 8 * step)
        assert all(torch.isfinite(value) and not value.requires_grad for value in terms.values())
    for kind, old in before.items():
        # What is added to all logits alike means nothing to pairs, and little to a hinge at first.
        assert moved(recipe.modules[kind], old) >= {name for name in old if not name.endswith("head.bias")}, kind
    figures, trouble = recipe.diagnostics()
    assert figures["diversity"] >= 0  # batch normalisation at rest knows little after two steps
    assert trouble is None


@pytest.mark.parametrize("name", ["pixels", "sngan", "dcgan"])
def test_to_look_changes_nothing_about_the_networks(name: str) -> None:
    recipe = make(**VARIANTS[name])
    recipe.step(batch(), 0)
    before = copy.deepcopy({kind: recipe.modules[kind].state_dict() for kind in ("generator", "discriminator")})
    recipe.diagnostics()
    assert_same(before, {kind: recipe.modules[kind].state_dict() for kind in before})
    assert all(module.training for module in recipe.modules.values())


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_training_goes_on_from_its_state(name: str) -> None:
    first, second = make(half_life=50, **VARIANTS[name]), make(half_life=50, **VARIANTS[name])
    for step in range(2):
        first.step(batch(step), 8 * step)
    first.diagnostics()
    first.check_score(first.score([batch(0)]))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert first.step(batch(2), 16) == second.step(batch(2), 16)
    assert first.diagnostics() == second.diagnostics()
    assert_same(first.state_dict(), second.state_dict())


def test_fresh_latents_are_others_and_shared_ones_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for fresh, expected in ((True, 2), (False, 1)):
        recipe, made = make(resample_for_generator=fresh), []
        forward = recipe.generator.forward
        monkeypatch.setattr(
            recipe.generator, "forward", lambda z, labels, f=forward, m=made: m.append(z) or f(z, labels)
        )
        recipe.step(batch(), 0)
        assert len({z.sum().item() for z in made}) == len(made) == expected


@pytest.mark.parametrize("fresh", [True, False])
def test_the_generator_learns_from_real_images_of_its_own_where_fresh(
    monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    recipe, looked = make(resample_for_generator=fresh), []
    recipe.extra_batch = lambda: batch(9)
    real_logits = recipe._real_logits
    monkeypatch.setattr(recipe, "_real_logits", lambda real, *rest: looked.append(real) or real_logits(real, *rest))
    recipe.step(batch(), 0)
    assert [torch.equal(found, batch(9).pixels) for found in looked] == [True] * fresh


def test_who_compares_no_pairs_asks_for_no_more_images() -> None:
    recipe, asked = make(resample_for_generator=True, loss="bce"), []
    recipe.extra_batch = lambda: asked.append(1) or batch(9)
    recipe.step(batch(), 0)
    assert not asked


def test_the_generator_moves_at_every_nth_step() -> None:
    recipe = make(generator_every=3)
    moves = []
    for step in range(6):
        before = weights(recipe.generator)
        terms = recipe.step(batch(step), 8 * step)
        moves.append(bool(moved(recipe.generator, before)))
        assert (float(terms["generator_gradient"]) > 0) is moves[-1]
    assert moves == [False, False, True] * 2


def test_penalties_on_feature_maps_are_those_of_the_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make(discriminator=FEATURES, penalty=PenaltyConfig(gamma=2.0, r2=False), generator_optimizer=STILL)
    for judge in recipe.discriminator.judges:  # zero at first
        nn.init.normal_(judge.head.weight)
    twin = copy.deepcopy(recipe.discriminator)
    maps = [part.requires_grad_() for part in recipe.discriminator_inputs(batch().pixels, Draws(0, 0))]
    expected = []
    for number, part in enumerate(maps):
        (slope,) = torch.autograd.grad(twin.judges[number](part).mean(dim=(1, 2, 3)).sum(), part)
        expected.append(slope.square().sum(dim=(1, 2, 3)).mean())
    penalty = recipe.step(batch(), 0)["penalty"]
    torch.testing.assert_close(penalty, torch.stack(expected).mean(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("count", "factor"), [(None, 1), (25_000, 5), (3, 101)])
def test_gamma_comes_from_the_data_and_a_rollback_doubles_it(count: int | None, factor: int) -> None:
    recipe = make(penalty=PenaltyConfig(), count=count)
    variance = float(batch().pixels.double().var(dim=0, unbiased=False).sum())
    assert recipe.regularization.gamma.tolist() == pytest.approx([SHARE * factor * variance])
    before, rates = recipe.regularization.gamma.clone(), [o.param_groups[0]["lr"] for o in recipe.optimizers.values()]
    for times in (1, 2):
        recipe.on_rollback()
        assert torch.equal(recipe.regularization.gamma, 2**times * before)
        assert [o.param_groups[0]["lr"] for o in recipe.optimizers.values()] == [rate / 2**times for rate in rates]
