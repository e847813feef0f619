"""Settings of the GAN recipe: penalties, schedules, labels, augmentation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gan_recipes import SHAPE, batch, make
from small_runs import small_config
from torch import Tensor, nn

from smalti.augment.diffaugment import ADAPTATION, Augmentation
from smalti.config.gan import (
    AnnealConfig,
    AugmentationConfig,
    DCGANConfig,
    DiscriminatorConfig,
    PenaltyConfig,
)
from smalti.config.optimizer import OptimizerConfig
from smalti.data.spec import ImageSpec
from smalti.errors import ConfigError
from smalti.recipes import Recipe, TrainingContext, build_recipe
from smalti.runtime.rng import Draws

STILL = OptimizerConfig(learning_rate=0.0)

FEATURES, BOTH = DiscriminatorConfig("features", width=8), DiscriminatorConfig("both", width=8)


DCGAN = DCGANConfig(generator_width=8, discriminator_width=4)


def moved(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in module.named_parameters() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(
    "model",
    [{}, {"discriminator": FEATURES}, {"discriminator": BOTH}, {"resample_for_generator": False}],
    ids=["pixels", "maps", "both", "shared"],
)
def test_penalties_that_come_now_and_then_weigh_as_much_more(model: dict[str, Any]) -> None:
    always, at_times = (make(penalty=PenaltyConfig(gamma=0.5, every=every), **model) for every in (1, 3))
    first = float(always.step(batch(), 0)["penalty"])
    penalties = [float(at_times.step(batch(), 8 * step)["penalty"]) for step in range(7)]
    assert penalties[0] == pytest.approx(3 * first, rel=1e-5)
    assert [penalty > 0 for penalty in penalties[1:]] == [False, False, True, False, False, True]  # judges begin at 0


@pytest.mark.parametrize(
    ("images", "end"), [(0, 400), (160, 160), (4000, 4000)], ids=["the horizon", "before it", "after it"]
)
@pytest.mark.parametrize(("share", "way"), [(0.0, 0.0), (0.25, 0.1464), (0.5, 0.5), (1.0, 1.0), (3.0, 1.0)])
def test_settings_anneal_on_half_a_cosine(images: int, end: int, share: float, way: float) -> None:
    """Of a training whose horizon is 400 images, which an annealing of 0 images lasts to."""
    penalty, seen = PenaltyConfig(gamma=1.0, r2=False), round(share * end)
    plain = make(penalty=penalty)
    recipe = make(penalty=penalty, anneal=AnnealConfig(images, learning_rate=0.2, gamma=0.5, beta2=0.5))
    recipe.horizon = 400
    rates = learning_rates(recipe)
    annealed, whole = (float(one.step(batch(), seen)["penalty"]) for one in (recipe, plain))
    assert annealed == pytest.approx(whole * (1 - 0.5 * way), rel=1e-3)
    assert rates == pytest.approx([2e-4 * (1 - 0.8 * way)] * 2, rel=1e-3)
    for optimizer in recipe.optimizers.values():
        (group,) = optimizer.param_groups
        assert group["betas"] == (0.0, pytest.approx(0.99 - 0.49 * way, rel=1e-3))
        assert group["lr"] == 2e-4, "what it was, after the step"


def learning_rates(recipe: Recipe) -> list[float]:
    """Those of the updates from now on, in turn."""
    rates: list[float] = []
    for optimizer in recipe.optimizers.values():
        optimizer.register_step_pre_hook(lambda taken, *_: rates.append(taken.param_groups[0]["lr"]))
    return rates


def test_an_annealed_rate_falls_towards_the_end_of_a_training_however_long() -> None:
    config = small_config("gan-nano", "train.images=1000", "model.anneal.images=0", "model.anneal.learning_rate=0.2")
    rate, last = config.model.generator_optimizer.learning_rate, config.model.anneal.learning_rate
    for horizon in (1000, 200):  # the settings say one; a time limit may bring it nearer
        recipe = build_recipe(config, TrainingContext(ImageSpec(*SHAPE)))
        recipe.start(lambda: [batch()])
        assert recipe.horizon == 1000
        recipe.horizon = horizon
        rates = learning_rates(recipe)
        for seen in (0, horizon // 2, horizon):
            recipe.step(batch(), seen)
        assert rates[::2] == rates[1::2] == pytest.approx([rate, rate * (1 + last) / 2, rate * last])


def test_labels_of_one_class_are_no_labels() -> None:
    with pytest.raises(ConfigError, match="the data has one class"):
        make(conditional=True, classes=1)


def test_a_penalty_between_images_needs_images() -> None:
    with pytest.raises(ConfigError, match=r"penalty\.gradient is 10, but lies between images"):
        make(discriminator=FEATURES, penalty=PenaltyConfig(gradient=10.0))
    with pytest.raises(ConfigError, match=r"discriminator\.inputs is 'both'; let it see 'pixels'"):
        make(discriminator=BOTH, penalty=PenaltyConfig(gradient=10.0))


def test_wasserstein_wants_a_penalty_on_all_that_is_seen() -> None:
    with pytest.raises(ConfigError, match=r"^loss is 'wasserstein', which needs a smooth discriminator"):
        make(discriminator=BOTH, loss="wasserstein")
    for sees in ("pixels", "features"):
        make(discriminator=DiscriminatorConfig(sees, width=8), loss="wasserstein")
    for penalty in (PenaltyConfig(r1=False, r2=False), PenaltyConfig(gamma=0.0)):
        with pytest.raises(
            ConfigError, match=r"no penalty is about the feature maps that it sees; set penalty\.r1=true"
        ):
            make(discriminator=FEATURES, loss="wasserstein", penalty=penalty)


@pytest.mark.parametrize(
    ("loss", "changes"), [("least-squares", -1), ("wasserstein", 0), ("relativistic", 0), ("bce", 1)]
)
def test_a_discriminator_that_knows_nothing_has_learned_nothing_by_heart(loss, changes: int, monkeypatch) -> None:
    """All logits are 0.3: too little for least-squares, and much for those that are 0 in the middle."""
    recipe = make(loss=loss, augmentation=AugmentationConfig(mode="adaptive", probability=0.5, target=0.0))
    logits = recipe.discriminator.forward
    monkeypatch.setattr(recipe.discriminator, "forward", lambda *given: logits(*given) * 0 + 0.3)
    recipe.step(batch(), 0)
    assert float(recipe.augmentation.probability) == pytest.approx(0.5 + changes * 8 / ADAPTATION)


class GreyAugmentation(Augmentation):
    """Makes every image grey."""

    def __call__(self, images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        return images * 0


def test_the_gradient_penalty_goes_through_what_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where A makes everything grey, D's gradient with respect to the images before A is 0."""
    recipe = make(loss="wasserstein", augmentation=AugmentationConfig(probability=1.0), penalty=PenaltyConfig(r1=False))
    monkeypatch.setattr(recipe, "augmentation", GreyAugmentation(recipe.model.augmentation))
    assert float(recipe.step(batch(), 0)["penalty"]) == 10


@pytest.mark.parametrize("gamma", [-1.0, "much", float("nan")])
def test_a_gamma_that_makes_no_sense(gamma: Any) -> None:
    with pytest.raises(ConfigError, match="gamma is"):
        PenaltyConfig(gamma=gamma)
