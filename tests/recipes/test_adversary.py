"""The adversarial part of a VQGAN: its weight by hand, when it plays, and that neither side moves the other."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from descents import descents
from torch import Tensor, nn

from smalti.config.autoencoder import ClassicConfig, ModernConfig, TransformConfig
from smalti.config.optimizer import OptimizerConfig
from smalti.config.quantizer import ProductConfig, VectorConfig
from smalti.config.run import LoopConfig, RunConfig
from smalti.config.vqvae import AdversaryConfig, PerceptualConfig, VQVAEConfig
from smalti.data.spec import ImageSpec
from smalti.losses.adversarial import ADVERSARIAL_LOSSES
from smalti.models.autoencoder.patch_discriminator import MapDiscriminator, PatchDiscriminator
from smalti.recipes import Images, TrainingContext, build_recipe
from smalti.recipes.adversary import LARGEST_RATIO, Adversary
from smalti.recipes.vqvae import VQVAERecipe

LOSSES = ["hinge", "bce", "least-squares"]


def made(*, seen: bool = True, **options: Any) -> Adversary:
    """An adversary of two judges, of an image and of its coarser half, that already have an opinion."""
    torch.manual_seed(0)
    judges = nn.ModuleList([PatchDiscriminator(3, 4), MapDiscriminator(3, 8)])
    if seen:
        for judge in judges:
            nn.init.normal_(judge.head.weight)
    return Adversary(AdversaryConfig(**{"weight": 0.5, "start": 100, "ramp": 50} | options), judges)


def views(images: Tensor) -> list[Tensor]:
    return [images, F.avg_pool2d(images, 2)]


def decoded() -> tuple[Tensor, Tensor, nn.Conv2d]:
    """A reconstruction by one convolution, the loss so far, and the convolution."""
    torch.manual_seed(1)
    last = nn.Conv2d(2, 3, 3, padding=1)
    features, target = torch.randn(2, 2, 8, 8), torch.rand(2, 3, 8, 8) * 2 - 1
    reconstruction = last(features)
    return reconstruction, 3 * (reconstruction - target).square().mean(), last


def by_hand(adversary: Adversary, loss: str) -> tuple[float, float]:
    """The game's loss, and the ratio of the sizes of the gradients, by another way to them."""
    reconstruction, rest, last = decoded()
    sizes = []
    fine, coarse = (judge(view) for judge, view in zip(adversary.judges, views(reconstruction), strict=True))
    game = (ADVERSARIAL_LOSSES[loss].generator(fine, fine) + ADVERSARIAL_LOSSES[loss].generator(coarse, coarse)) / 2
    for term in (rest, game):
        last.zero_grad()
        term.backward(retain_graph=True)
        sizes.append(float(last.weight.grad.square().sum().sqrt()))
    return float(game.detach()), sizes[0] / (sizes[1] + 1e-4)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("images_seen", "share"), [(100, 0.0), (110, 0.2), (150, 1.0), (10**9, 1.0)])
def test_the_term_is_its_formula(loss: str, images_seen: int, share: float) -> None:
    adversary = made(loss=loss)
    game, ratio = by_hand(adversary, loss)
    reconstruction, rest, last = decoded()
    found = adversary.decoder_loss(views(reconstruction), rest, last.weight, images_seen)
    assert float(found.detach()) == pytest.approx(share * 0.5 * ratio * game, rel=1e-4, abs=1e-7)


def test_at_the_last_layer_both_gradients_are_as_large_as_the_weight_says() -> None:
    adversary = made(weight=0.7, ramp=0)
    reconstruction, rest, last = decoded()
    game = adversary.decoder_loss(views(reconstruction), rest, last.weight, 100)
    sizes = [torch.autograd.grad(term, last.weight, retain_graph=True)[0].norm() for term in (rest, game)]
    assert float(sizes[1] / sizes[0]) == pytest.approx(0.7, rel=1e-2)


def test_without_adaptation_the_weight_is_the_weight() -> None:
    adversary = made(adaptive=False, ramp=0)
    reconstruction, rest, last = decoded()
    game, _ = by_hand(adversary, "hinge")
    found = adversary.decoder_loss(views(reconstruction), rest, last.weight, 100)
    assert float(found.detach()) == pytest.approx(0.5 * game, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_fresh_discriminator_gives_no_gradient_and_a_bounded_ratio(loss: str) -> None:
    adversary = made(seen=False, loss=loss, ramp=0)
    reconstruction, rest, last = decoded()
    found = adversary.decoder_loss(views(reconstruction), rest, last.weight, 100)
    assert abs(float(found.detach())) <= 0.5 * LARGEST_RATIO
    (gradient,) = torch.autograd.grad(found, last.weight)
    assert not gradient.any()


def test_a_loss_that_has_no_gradient_yet_leaves_the_decoder_alone() -> None:
    adversary = made(ramp=0)
    reconstruction, _, last = decoded()
    found = adversary.decoder_loss(views(reconstruction), (reconstruction * 0).sum(), last.weight, 100)
    assert float(found.detach()) == 0


def test_it_plays_from_its_start_on() -> None:
    adversary = made(start=100)
    assert [adversary.playing(seen) for seen in (0, 99, 100, 10**6)] == [False, False, True, True]


def test_neither_side_moves_the_other() -> None:
    adversary = made(ramp=0)
    reconstruction, rest, last = decoded()
    adversary.decoder_loss(views(reconstruction), rest, last.weight, 100).backward()
    assert last.weight.grad is not None
    assert all(parameter.grad is None for parameter in adversary.judges.parameters())
    last.zero_grad(set_to_none=True)
    real = torch.rand(2, 3, 8, 8)
    adversary.discriminator_loss(views(real), views(decoded()[0])).backward()
    assert last.weight.grad is None
    assert all(parameter.grad is not None for parameter in adversary.judges.parameters())


@pytest.mark.parametrize("loss", LOSSES)
def test_the_discriminator_learns_to_tell_sharp_from_blurred(loss: str) -> None:
    adversary = made(seen=False, loss=loss)
    optimizer = torch.optim.Adam(adversary.judges.parameters(), 2e-3, (0.5, 0.99))

    def pictures(seed: int) -> tuple[Tensor, Tensor]:
        sharp = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        return sharp, F.avg_pool2d(F.pad(sharp, (1, 1, 1, 1), mode="replicate"), 3, stride=1) * 3

    for step in range(40):
        optimizer.zero_grad()
        adversary.discriminator_loss(*map(views, pictures(step))).backward()
        optimizer.step()
    for judge, sharp, blurred in zip(adversary.judges, *map(views, pictures(1000)), strict=True):
        apart = judge(sharp).mean(dim=(1, 2, 3)) > judge(blurred).mean(dim=(1, 2, 3))
        assert float(apart.float().mean()) > 0.9


TILES = (
    TransformConfig(stride=8, width=8, encoder_blocks=1, decoder_blocks=1, patch=2),
    ProductConfig(layer=VectorConfig(codes=8, dimension=2), groups=2),
)
KINDS = {
    "transform": TILES,
    "modern": (ModernConfig(width=8, blocks=1, attention=True), VectorConfig(codes=8, dimension=4)),
    "residual": (ClassicConfig("residual", 8, 4, 1), VectorConfig(codes=8, dimension=4)),
    "plain": (ClassicConfig("plain", 8), VectorConfig(codes=8, dimension=4, update="gradient")),
}


def recipe_of(kind: str = "transform", *, precision: str = "float32", perceptual: float = 0.5, weight: float = 0.5,
              start: int = 0, ramp: int = 16, loss: str = "hinge", inputs: str = "pixels") -> VQVAERecipe:  # fmt: skip
    config = RunConfig(
        model=VQVAEConfig(
            *KINDS[kind],
            perceptual=PerceptualConfig(weight=perceptual, start=start),
            adversary=AdversaryConfig(weight=weight, start=start, ramp=ramp, width=4, loss=loss, inputs=inputs),
            optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warm_up=16),
        ),
        train=LoopConfig(batch=8, images=10_000),
    )
    recipe = build_recipe(config, TrainingContext(ImageSpec(3, 16, 16), precision=precision))
    assert isinstance(recipe, VQVAERecipe)
    return recipe


def batch(seed: int = 0) -> Images:
    small = torch.rand(8, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Images(F.interpolate(small, (16, 16), mode="bilinear"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("inputs", ["pixels", "features"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_vqgan_of_every_architecture_trains(kind: str, inputs: str, precision: str) -> None:
    recipe = recipe_of(kind, precision=precision, inputs=inputs)
    before = copy.deepcopy(recipe.modules["discriminator"].state_dict())
    for step in range(4):
        terms = recipe.step(batch(step), step * 8)
        assert {"perceptual", "adversarial", "discriminator"} <= terms.keys()
        for name, value in terms.items():
            assert value.shape == (), name
            assert not value.requires_grad, name
            assert bool(value.isfinite()), name
    after = recipe.modules["discriminator"].state_dict()
    # A bias of the last layer moves all logits alike, in which the two sides of the hinge agree at first.
    assert not any(torch.equal(after[name], before[name]) for name in before if not name.endswith("head.bias"))
    parts = 4 * terms["reconstruction"] + terms["quantizer"] + 0.5 * terms["perceptual"] + terms["adversarial"]
    torch.testing.assert_close(terms["loss"], parts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_game_trains(loss: str) -> None:
    recipe = recipe_of(loss=loss)
    for step in range(3):
        assert all(bool(value.isfinite()) for value in recipe.step(batch(step), step * 8).values())


def test_before_its_start_a_vqgan_is_the_vqvae() -> None:
    early, plain = recipe_of(start=16), recipe_of(perceptual=0.0, weight=0.0)
    discriminator = copy.deepcopy(early.modules["discriminator"].state_dict())
    for step in range(2):
        terms = early.step(batch(step), step * 8)
        assert terms == plain.step(batch(step), step * 8)
        assert not {"perceptual", "adversarial", "discriminator"} & terms.keys()
    for name, tensor in plain.autoencoder.state_dict().items():
        assert torch.equal(tensor, early.autoencoder.state_dict()[name]), name
    assert not any(early.optimizers["discriminator"].state)
    for name, tensor in early.modules["discriminator"].state_dict().items():
        assert torch.equal(tensor, discriminator[name]), name
    assert {"perceptual", "adversarial", "discriminator"} <= early.step(batch(2), 16).keys()


@pytest.mark.parametrize(("every", "looked_at"), [(1, 8), (3, 3), (100, 1)])
def test_the_network_looks_at_one_image_of_so_many(every: int, looked_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of()
    recipe.model = dataclasses.replace(
        recipe.model, perceptual=dataclasses.replace(recipe.model.perceptual, every=every)
    )
    assert recipe.perceptual is not None
    seen: list[tuple[Tensor, ...]] = []
    compare = recipe.perceptual.compare

    def spy(*given: Tensor) -> Any:
        seen.append(given)
        return compare(*given)

    monkeypatch.setattr(recipe.perceptual, "compare", spy)
    images = batch()
    recipe.step(images, 0)
    ((result, original),) = seen
    assert len(result) == looked_at
    assert torch.equal(original, images.pixels[::every])


def test_judges_of_features_see_all_maps_but_the_finest() -> None:
    recipe = recipe_of(inputs="features", ramp=0)
    assert recipe.perceptual is not None
    assert recipe.adversary is not None
    maps, _ = recipe.perceptual.compare(batch().pixels, batch().pixels)
    assert [judge.conv1.in_channels for judge in recipe.adversary.judges] == [found.shape[1] for found in maps[1:]]


def test_a_vqvae_has_no_discriminator() -> None:
    recipe = recipe_of(perceptual=0.0, weight=0.0)
    assert set(recipe.modules) == {"autoencoder"}
    assert (recipe.perceptual, recipe.adversary) == (None, None)


def test_each_optimizer_moves_its_own_network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """While D's gradients are taken, none reaches the autoencoder; while the autoencoder's are, none reaches D."""
    recipe = recipe_of(ramp=0)
    recipe.step(batch(), 0)
    seen = descents(recipe, batch(), 8, monkeypatch)
    assert seen == [("autoencoder", {"autoencoder"}), ("discriminator", {"discriminator"})]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_state_that_was_saved_goes_on_as_if_nothing_had_happened(precision: str) -> None:
    whole, other = recipe_of(precision=precision), recipe_of(precision=precision)
    whole.start(lambda: [batch(seed) for seed in range(4)])
    for step in range(3):
        whole.step(batch(step), step * 8)
    other.step(batch(9), 0)
    other.load_state_dict(copy.deepcopy(whole.state_dict()))
    for step in range(3, 6):
        assert whole.step(batch(step), step * 8) == other.step(batch(step), step * 8)
    for name, module in whole.modules.items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, other.modules[name].state_dict()[key]), (name, key)
    for a, b in zip(whole.tensors(), other.tensors(), strict=True):
        assert torch.equal(a, b)


def test_what_is_exported_has_no_discriminator() -> None:
    recipe = recipe_of()
    recipe.step(batch(), 0)
    assert not any("discriminator" in name or "usage" in name for name in recipe.export().state_dict())


def test_starting_fits_the_autoencoder_and_its_average() -> None:
    recipe = recipe_of()
    before = copy.deepcopy(recipe.export().state_dict())
    recipe.start(lambda: [batch(seed) for seed in range(4)])
    exported, trained = recipe.export().state_dict(), recipe.autoencoder.state_dict()
    for name, tensor in trained.items():
        assert torch.equal(exported[name], tensor), name
    assert not torch.equal(before["encoder.linear.weight"], exported["encoder.linear.weight"])
    assert not recipe.export().training
    # The optimizer holds the parameters that were fitted, and not others.
    held = {id(p) for group in recipe.optimizers["autoencoder"].param_groups for p in group["params"]}
    assert held == {id(parameter) for parameter in recipe.autoencoder.parameters()}
