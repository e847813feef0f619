"""A step of the GAN recipe is what its formulas say, taken by plain autograd and plain descent from the same draws."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from gan_recipes import BATCH, LATENT, batch, make, weights
from networks import strong
from torch import Tensor, nn

from smalti.config.gan import AugmentationConfig, DiscriminatorConfig, PenaltyConfig
from smalti.config.optimizer import OptimizerConfig
from smalti.recipes import Images
from smalti.recipes.gan import GANRecipe
from smalti.runtime.rng import Draws

CLASSES, GAMMA, SEEN = 3, 10.0, 64
RATES = {"discriminator": 0.05, "generator": 1.0}
# What the discriminator minimises, what the generator does; written another way than in losses/adversarial.py.
LOSSES: dict[str, tuple[Any, Any]] = {
    "relativistic": (
        lambda real, fake: -(real - fake).sigmoid().log().mean(),
        lambda real, fake: -(fake - real).sigmoid().log().mean(),
    ),
    "bce": (
        lambda real, fake: -(real.sigmoid() * (-fake).sigmoid()).log().mean(),
        lambda real, fake: -fake.sigmoid().log().mean(),
    ),
}
with_and_without_changes = pytest.mark.parametrize("probability", [0.0, 1.0], ids=["as they are", "changed"])


def trained(**model: Any) -> GANRecipe:
    """A recipe in the middle of a training, which descends plainly."""
    descent = {f"{name}_optimizer": OptimizerConfig("sgd", learning_rate=rate) for name, rate in RATES.items()}
    recipe = make(**descent, **model)
    torch.manual_seed(0)
    for network in (recipe.generator, recipe.discriminator):
        strong(network)
    return recipe


def changes(probability: float) -> AugmentationConfig:
    return AugmentationConfig(probability=probability, flip=True)


def follow(recipe: GANRecipe, images: Images) -> None:
    """Take a step, and the same one by hand: the terms are the same, and so is how every weight moves."""
    before = {name: weights(recipe.modules[name]) for name in RATES}
    wanted_terms, twins = by_hand(recipe, images)
    terms = recipe.step(images, SEEN)
    for name, value in wanted_terms.items():
        assert float(terms[name]) == pytest.approx(float(value.detach()), rel=1e-4), name
    for name, twin in twins.items():
        for key, now in weights(recipe.modules[name]).items():
            found, wanted = before[name][key] - now, before[name][key] - weights(twin)[key]
            assert wanted.any(), f"{name}: {key} has nothing to learn"
            assert float((found - wanted).norm() / wanted.norm()) < 1e-3, f"{name}: {key}"


def by_hand(recipe: GANRecipe, images: Images) -> tuple[dict[str, Tensor], dict[str, nn.Module]]:
    """The terms of a step and both networks after it; those of the recipe stay as they are."""
    model, labels = recipe.model, images.labels
    twice = None if labels is None else torch.stack([labels, labels], dim=1).flatten()
    of_discriminator, of_generator = LOSSES[model.loss]
    generator, discriminator = copy.deepcopy(recipe.generator), copy.deepcopy(recipe.discriminator)
    draws = Draws(recipe.draw_seed, SEEN)

    def generated() -> Tensor:
        return generator(draws.normal(BATCH, LATENT), labels)

    def changed(pixels: Tensor) -> Tensor:
        return recipe.augmentation(pixels, draws, SEEN)

    def look(pixels: Tensor) -> list[Tensor]:
        return recipe.discriminator_inputs(changed(pixels), draws)

    def judged(seen: list[Tensor], labels: Tensor | None) -> Tensor:
        """(B, J) logits."""
        logits: Tensor = discriminator(seen if both else seen[0], labels)
        return logits.view(len(logits), -1)

    both = model.discriminator.inputs == "both"
    made = generated()
    shown = None if model.resample_for_generator else look(made)  # for the generator
    real, fake = images.pixels.clone().requires_grad_(), made.detach().requires_grad_()
    # In turn, as the draws are dealt out; one batch, because otherwise rounding moves values across kinks.
    maps = (
        []
        if not both
        else [
            torch.stack(pair, dim=1).flatten(0, 1).detach()
            for pair in zip(look(images.pixels)[1:], (shown or look(made))[1:], strict=True)
        ]
    )
    logits = judged([changed(torch.stack([real, fake], dim=1).flatten(0, 1)), *maps], twice)
    real_logits, fake_logits = logits.unflatten(0, (BATCH, 2)).unbind(dim=1)
    penalty = torch.zeros(())
    for points, logits, wanted in ((real, real_logits, model.penalty.r1), (fake, fake_logits, model.penalty.r2)):
        (slope,) = torch.autograd.grad(logits[:, 0].sum(), points, create_graph=True)
        penalty = penalty + wanted * GAMMA / 2 * slope.square().sum(dim=(1, 2, 3)).mean()
    loss = of_discriminator(real_logits, fake_logits)
    descend(discriminator, loss + penalty, RATES["discriminator"])
    real_logits = real_logits.detach()  # of before that descent
    if shown is None:  # other latents, and the real images seen anew
        shown = look(generated())
        real_logits = judged(look(images.pixels), labels).detach()
    game = of_generator(real_logits, judged(shown, labels))
    descend(generator, game, RATES["generator"])
    return (
        {"discriminator": loss, "penalty": penalty, "generator": game},
        {"discriminator": discriminator, "generator": generator},
    )


@torch.no_grad()
def descend(network: nn.Module, loss: Tensor, rate: float) -> None:
    parameters = list(network.parameters())
    with torch.enable_grad():
        slopes = torch.autograd.grad(loss, parameters)
    for parameter, slope in zip(parameters, slopes, strict=True):
        parameter -= rate * slope


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "shared"])
@pytest.mark.parametrize("classes", [0, CLASSES])
@with_and_without_changes
def test_a_step_is_that_of_the_formulas(loss: str, fresh: bool, classes: int, probability: float) -> None:
    """Of images that both networks see, the generator takes D(real) from before D's step, and D(fake) from after it."""
    penalty, seen_as = PenaltyConfig(gamma=GAMMA), changes(probability)
    recipe = trained(loss=loss, resample_for_generator=fresh, classes=classes, conditional=bool(classes),
                     penalty=penalty, augmentation=seen_as)  # fmt: skip
    follow(recipe, batch(classes=classes))


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "shared"])
@pytest.mark.parametrize("classes", [0, CLASSES])
@with_and_without_changes
def test_a_step_that_sees_pixels_and_features_is_that_of_the_formulas(
    fresh: bool, classes: int, probability: float
) -> None:
    """R1 and R2 are about the pixels alone. Not of pairs, to which what is added to all logits means nothing."""
    recipe = trained(loss="bce", resample_for_generator=fresh, classes=classes, conditional=bool(classes),
                     penalty=PenaltyConfig(gamma=GAMMA), augmentation=changes(probability),
                     discriminator=DiscriminatorConfig("both", width=8))  # fmt: skip
    follow(recipe, batch(classes=classes))


@pytest.mark.parametrize(("r1", "r2"), [(True, False), (False, True), (False, False)])
@with_and_without_changes
def test_a_step_with_one_penalty_or_none_is_that_of_the_formulas(r1: bool, r2: bool, probability: float) -> None:
    """R1 is of real images and R2 of fake ones, of both before they are changed."""
    penalty = PenaltyConfig(r1=r1, r2=r2, gamma=GAMMA if r1 or r2 else "auto")
    follow(trained(penalty=penalty, augmentation=changes(probability)), batch())
