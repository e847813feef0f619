"""The recipe of the codec: what a step does, that it learns, that it resumes, and its second decoder."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from codec_models import batches, codec_config, discs, recipe_of
from torch import Tensor

from smalti.config.codec import PleasingConfig
from smalti.config.optimizer import OptimizerConfig
from smalti.config.vqvae import AdversaryConfig, PerceptualConfig
from smalti.data.packed import Batch
from smalti.models.codec.codec import step_size
from smalti.models.codec.search import search
from smalti.recipes import Images
from smalti.recipes.codec import CodecRecipe
from smalti.recipes.images import ResidentBatch
from smalti.recipes.picture_losses import over_white
from smalti.runtime.rng import Draws

DATA = {channels: batches(discs(32, channels=channels)) for channels in (1, 3, 4)}
NO_EYE = PerceptualConfig(weight=0.0)
kinds = pytest.mark.parametrize(
    ("channels", "neighbours"),
    [(3, False), (3, True), (4, False), (1, False)],
    ids=["rgb", "neighbours", "rgba", "grey"],
)


def started(*, channels: int = 3, half_life: int = 0, **settings: Any) -> CodecRecipe:
    recipe = recipe_of(codec_config(**settings), channels=channels, half_life=half_life)
    recipe.start(lambda: DATA[channels])
    return recipe


def run(recipe: CodecRecipe, steps: range, *, channels: int = 3) -> list[dict[str, Tensor]]:
    return [recipe.step(DATA[channels][step % 4], 8 * step) for step in steps]


def same_weights(a: CodecRecipe, b: CodecRecipe) -> bool:
    pairs = zip(a.export().state_dict().values(), b.export().state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


# --- Steps


@kinds
def test_a_step_moves_every_weight(channels: int, neighbours: bool) -> None:
    recipe = started(channels=channels, neighbours=neighbours)
    before = {name: value.clone() for name, value in recipe.codec.state_dict().items()}
    run(recipe, range(3), channels=channels)
    same = {name for name, value in recipe.codec.state_dict().items() if torch.equal(value, before[name])}
    # The first group of the first phase knows nothing, so these have no inputs.
    idle = {"context.nets.0.first.weight"} | ({"context.nets.0.linear.weight"} if neighbours else set())
    assert same == idle


@kinds
def test_it_learns(channels: int, neighbours: bool) -> None:
    recipe = started(channels=channels, neighbours=neighbours)
    before = recipe.score(DATA[channels]).value
    run(recipe, range(12), channels=channels)
    after = recipe.score(DATA[channels])
    assert (after.name, after.larger_is_better) == ("cost_bpp", False)
    assert after.value < before


def test_it_learns_a_few_pictures_by_heart() -> None:
    recipe = started(channels=1, optimizer=OptimizerConfig(learning_rate=1e-2), quality_low=40, quality_high=40)
    losses = [float(recipe.step(DATA[1][0], 8 * step)["loss"]) for step in range(60)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_logged_terms_are_those_of_the_batch() -> None:
    recipe = started()
    run(recipe, range(2))
    codec, batch = copy.deepcopy(recipe.codec), DATA[3][2]
    terms = recipe.step(batch, 16)
    assert set(terms) == {"loss", "bpp", "psnr"}
    quality = (20 + Draws(recipe.draw_seed, 16).uniform(8) * 51).floor()
    codes = search(codec, batch.pixels, quality, rounds=2, rate_weight=0.15)
    with torch.no_grad():
        errors = (codec.decode(codes, quality) - batch.pixels).square().flatten(1).sum(dim=1)
        bits = codec.distribution(codes, quality).bits(codes).flatten(1).sum(dim=1)
    cost = errors / (0.15 * step_size(quality).square()) + bits
    assert float(terms["loss"]) == pytest.approx(float(cost.mean()) / 256, rel=1e-4)
    assert float(terms["bpp"]) == pytest.approx(float(bits.mean()) / 256, rel=1e-4)
    psnr = -10 * torch.log10(errors / (4 * 3 * 256))
    assert float(terms["psnr"]) == pytest.approx(float(psnr.mean()), rel=1e-4)
    for value in terms.values():
        assert value.shape == ()
        assert not value.requires_grad


def test_qualities_are_within_their_range(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(
        "smalti.recipes.codec.search",
        lambda codec, images, quality, **options: seen.append(quality) or search(codec, images, quality, **options),
    )
    recipe = started(quality_low=30, quality_high=33, rounds=0)
    run(recipe, range(8))
    found = torch.cat(seen)
    assert set(found.tolist()) == {30, 31, 32, 33}


def test_odd_sizes_are_padded() -> None:
    recipe = started()
    images = Images(torch.rand(4, 3, 13, 19) * 2 - 1)
    assert torch.isfinite(recipe.step(images, 0)["loss"])
    shown = recipe.preview(images)
    assert list(shown) == ["original", "low", "high"]
    assert {value.shape for value in shown.values()} == {(4, 3, 13, 19)}
    assert all(float(value.abs().max()) <= 1 for value in shown.values())
    assert recipe.score([images]).value > 0


def test_the_score_pools_all_batches() -> None:
    recipe = started()
    together = recipe.score([Images(torch.cat([DATA[3][0].pixels, DATA[3][1].pixels]))]).value
    assert recipe.score(DATA[3][:2]).value == pytest.approx(together, rel=1e-5)


def test_pictures_with_alpha_are_premultiplied() -> None:
    recipe = started(channels=4)
    images = discs(4, channels=4)
    black = images.copy()
    black[images[..., 3] == 0] = 0
    assert (black != images).any()
    wanted = recipe.to_device(Batch(black, None, torch.arange(4).numpy())).pixels
    for given in (Batch(images, None, torch.arange(4).numpy()), ResidentBatch(torch.from_numpy(images), None)):
        assert torch.equal(recipe.to_device(given).pixels, wanted)


# --- Resuming


@kinds
def test_a_state_that_was_saved_goes_on_as_if_nothing_had_happened(channels: int, neighbours: bool) -> None:
    whole, other = (started(channels=channels, neighbours=neighbours, half_life=50) for _ in range(2))
    run(whole, range(2), channels=channels)
    state = copy.deepcopy(whole.state_dict())
    run(other, range(5, 7), channels=channels)
    other.load_state_dict(state)
    steps = range(2, 4)
    assert run(whole, steps, channels=channels) == run(other, steps, channels=channels)
    assert same_weights(whole, other)


def test_two_recipes_of_one_seed_are_one() -> None:
    a, b = started(half_life=50), started(half_life=50)
    torch.rand(3)
    assert run(a, range(2)) == run(b, range(2))
    assert same_weights(a, b)


# --- The second decoder


def two(start: int = 16, **pleasing: Any) -> CodecRecipe:
    settings: dict[str, Any] = {"perceptual": NO_EYE, "adversary": AdversaryConfig(weight=0.1, width=4, ramp=8)}
    return started(half_life=20, pleasing=PleasingConfig(start=start, **(settings | pleasing)))


def test_only_the_second_decoder_learns_after_its_start() -> None:
    recipe = two()
    run(recipe, range(2))
    average = copy.deepcopy(recipe.export().state_dict())
    terms = run(recipe, range(2, 5))[-1]
    assert set(terms) == {"loss", "psnr", "adversarial", "discriminator"}
    assert all(torch.isfinite(value) for value in terms.values())
    for codec in (recipe.codec, recipe.export()):
        for name, value in codec.state_dict().items():
            assert torch.equal(value, average[name]) or name.startswith("pleasing.")
    pleasing, faithful = recipe.export().pleasing, recipe.export().refiner
    assert pleasing is not None
    moved = [not torch.equal(a, b) for a, b in zip(pleasing.parameters(), faithful.parameters(), strict=True)]
    assert all(moved)


def test_the_second_decoder_begins_as_a_copy_of_the_first() -> None:
    recipe = two()
    run(recipe, range(2))
    faithful = copy.deepcopy(recipe.export().refiner.state_dict())
    recipe._freeze(True, 16)
    assert recipe.codec.pleasing is not None
    assert all(torch.equal(value, faithful[name]) for name, value in recipe.codec.pleasing.state_dict().items())


@pytest.mark.parametrize("saved_at", [1, 2, 3])
def test_a_training_with_two_decoders_resumes(saved_at: int) -> None:
    """Before the second decoder's start, at it, and after it."""
    whole, other = two(), two()
    run(whole, range(saved_at))
    state = copy.deepcopy(whole.state_dict())
    other.load_state_dict(state)
    assert run(whole, range(saved_at, 5)) == run(other, range(saved_at, 5))
    assert same_weights(whole, other)


def test_a_rollback_to_before_the_start_goes_on_with_everything() -> None:
    recipe = two()
    run(recipe, range(1))
    state = copy.deepcopy(recipe.state_dict())
    run(recipe, range(1, 4))
    recipe.load_state_dict(state)
    before = {name: value.clone() for name, value in recipe.codec.named_parameters()}
    recipe.step(DATA[3][1], 8)
    moved = {name for name, value in recipe.codec.named_parameters() if not torch.equal(value, before[name])}
    assert "basis.weight" in moved
    assert "refiner.stem.weight" in moved
    assert not any(name.startswith("pleasing.") for name in moved)


def test_codes_do_not_depend_on_the_second_decoder() -> None:
    recipe = two()
    run(recipe, range(5))
    codec = recipe.export()
    other = copy.deepcopy(codec)
    assert other.pleasing is not None
    torch.nn.init.normal_(other.pleasing.stem.weight)
    quality = torch.full((8,), 40.0)
    found = [search(each, DATA[3][0].pixels, quality, rounds=2, rate_weight=0.15) for each in (codec, other)]
    assert torch.equal(*found)


def test_pictures_with_alpha_are_judged_over_white() -> None:
    red, clear = torch.tensor([1.0, -1, -1, 1]), torch.tensor([-1.0, -1, -1, -1])
    half = torch.tensor([0.0, -1, -1, 0])  # red, premultiplied, half transparent
    found = over_white(torch.stack([red, clear, half])[:, :, None, None])
    assert found[..., 0, 0].tolist() == [[1, -1, -1], [1, 1, 1], [1, 0, 0]]
    assert over_white(found) is found


def test_settings_without_a_second_decoder_have_no_discriminator() -> None:
    recipe = started()
    assert set(recipe.modules) == {"codec"}
    assert set(two().modules) == {"codec", "discriminator"}
