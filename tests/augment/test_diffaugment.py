"""Random changes of images: each against its formula written as loops over single images, and what holds for all."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smalti.augment.diffaugment import ADAPTATION, Augmentation
from smalti.config.gan import AugmentationConfig
from smalti.runtime.rng import Draws

NOTHING = AugmentationConfig(probability=1.0, flip=False, translate=0.0, colour=0.0, cutout=0.0)
ONE = {
    "flip": replace(NOTHING, flip=True),
    "translate": replace(NOTHING, translate=0.3),
    "colour": replace(NOTHING, colour=0.4),
    "cutout": replace(NOTHING, cutout=0.4),
}
ALL = AugmentationConfig(probability=1.0, flip=True, translate=0.25, colour=0.5, cutout=0.4)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


def changed(config: AugmentationConfig, images: Tensor, seed: int = 0, images_seen: int = 0) -> Tensor:
    return Augmentation(config)(images, Draws(seed, 0), images_seen)


def reference(config: AugmentationConfig, images: Tensor, seed: int) -> Tensor:
    """The docstring's formulas, a value at a time."""
    draws = Draws(seed, 0)
    done = draws.uniform(len(images), 6) < config.probability
    amount = 2 * draws.uniform(len(images), 8) - 1
    return torch.stack([_one(config, *row) for row in zip(images, done.tolist(), amount.tolist(), strict=True)])


def _one(config: AugmentationConfig, image: Tensor, done: list[bool], amount: list[float]) -> Tensor:
    image = image.clone()
    _, height, width = image.shape
    if config.flip and done[0] and amount[0] < 0:
        image = torch.stack([image[:, :, width - 1 - x] for x in range(width)], dim=2)
    colour = image[:3]
    if done[1]:
        colour = colour + config.colour * amount[1]
    if done[2]:
        grey = sum(colour) / len(colour)
        colour = torch.stack([grey + (1 + 2 * config.colour * amount[2]) * (c - grey) for c in colour])
    if done[3]:
        grey = colour.sum() / colour.numel()
        colour = grey + (1 + config.colour * amount[3]) * (colour - grey)
    image = torch.cat([colour, image[3:]])
    if done[4]:
        down, right = round(config.translate * amount[4] * height), round(config.translate * amount[5] * width)
        moved = torch.zeros_like(image)
        for y in range(height):
            for x in range(width):
                if 0 <= y + down < height and 0 <= x + right < width:
                    moved[:, y, x] = image[:, y + down, x + right]
        image = moved
    if done[5]:
        middle = [(1 + amount[6]) / 2 * height, (1 + amount[7]) / 2 * width]  # pixels from the corner
        for y in range(height):
            for x in range(width):
                near = [abs(y + 0.5 - middle[0]) / height, abs(x + 0.5 - middle[1]) / width]
                if max(near) < config.cutout / 2:
                    image[:, y, x] = 0
    return image


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ONE)
def test_a_change_is_its_formula(name: str, channels: int) -> None:
    images = noise(24, channels, 6, 9)
    expected = reference(ONE[name], images, seed=3)
    torch.testing.assert_close(changed(ONE[name], images, seed=3), expected)
    if not (name == "colour" and channels == 1):
        assert sum(not torch.equal(a, b) for a, b in zip(images, expected, strict=True)) > 8


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    probability=st.sampled_from([0.3, 1.0]),
    flip=st.booleans(),
    translate=st.floats(0, 1),
    colour=st.floats(0, 1),
    cutout=st.floats(0, 1),
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    channels=st.sampled_from([1, 3, 4]),
)
def test_all_changes_are_their_formulas_in_order(
    seed: int,
    probability: float,
    flip: bool,
    translate: float,
    colour: float,
    cutout: float,
    rows: int,
    columns: int,
    channels: int,
) -> None:
    config = AugmentationConfig("fixed", probability, 0, 0.6, flip, translate, colour, cutout)
    images = noise(4, channels, rows, columns)
    torch.testing.assert_close(changed(config, images, seed), reference(config, images, seed), rtol=1e-4, atol=1e-4)


def test_at_probability_zero_nothing_is_changed_or_drawn() -> None:
    images, draws = noise(3, 3, 8, 8), Draws(0, 0)
    before = draws.generator.get_state()
    layer = Augmentation(replace(ALL, probability=0.0))
    assert layer(images, draws, 10) is images
    assert not layer.used
    assert torch.equal(draws.generator.get_state(), before)


def test_an_adaptive_one_at_zero_changes_nothing_yet() -> None:
    images = noise(3, 3, 8, 8)
    layer = Augmentation(replace(ALL, probability=0.0, mode="adaptive"))
    assert layer.used
    assert torch.equal(layer(images, Draws(0, 0), 0), images)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["flip", "translate", "colour", "cutout"])
def test_each_change_is_made_to_its_share_of_the_images(name: str, probability: float) -> None:
    count = 3000
    images = noise(count, 3, 16, 16)
    result = changed(replace(ONE[name], probability=probability), images)
    share = float((result != images).flatten(1).any(dim=1).float().mean())
    # Half of what is flipped keeps its side, some moves are by less than half a pixel, and colour is three changes.
    unmoved = (0.5 / (0.3 * 16)) ** 2
    expected = {
        "flip": probability / 2,
        "translate": probability * (1 - unmoved),
        "colour": 1 - (1 - probability) ** 3,
        "cutout": probability,
    }[name]
    assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / count)


def test_moves_and_boxes_go_as_far_as_they_should() -> None:
    ones = torch.ones(2000, 1, 20, 10)
    kept = changed(replace(NOTHING, translate=0.25), ones)[:, 0]
    rows, columns = (kept.amax(dim=axis).sum(dim=1) for axis in (2, 1))
    assert (rows.unique().tolist(), columns.unique().tolist()) == (list(range(15, 21)), list(range(8, 11)))
    # A move the other way is as likely: both edges are lost equally often, to five standard deviations of the counts.
    top, bottom = float((kept[:, 0].amax(dim=1) == 0).sum()), float((kept[:, -1].amax(dim=1) == 0).sum())
    assert abs(top - bottom) < 5 * math.sqrt(top + bottom)
    box = 1 - changed(replace(NOTHING, cutout=0.5), ones)[:, 0]
    assert box.sum(dim=(1, 2)).max() == 50
    assert box.amax(dim=0).min() == 1, "a box may come anywhere"
    assert box.sum(dim=(1, 2)).min() <= 3 * 6, "and may leave the image for three quarters"


def test_every_row_has_draws_of_its_own_and_so_has_every_step() -> None:
    one = noise(1, 3, 8, 8).expand(64, -1, -1, -1)
    rows = changed(ALL, one)
    assert len({tuple(row.flatten().tolist()) for row in rows}) == 64
    assert torch.equal(rows, changed(ALL, one)), "the same draws, the same changes"
    assert not torch.equal(rows, changed(ALL, one, seed=1))
    layer, draws = Augmentation(ALL), Draws(0, 0)
    assert not torch.equal(layer(one, draws, 0), layer(one, draws, 0)), "two passes of a step differ"


@pytest.mark.parametrize("name", ["flip", "translate", "cutout"])
def test_a_change_is_linear_in_the_image(name: str) -> None:
    x, y = noise(8, 3, 6, 5, dtype=torch.float64), noise(8, 3, 6, 5, seed=1, dtype=torch.float64)
    both = changed(ONE[name], 2 * x - 3 * y)
    torch.testing.assert_close(both, 2 * changed(ONE[name], x) - 3 * changed(ONE[name], y))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_all_of_them_together_are_linear_but_for_a_constant(channels: int) -> None:
    x, y = (noise(8, channels, 6, 5, seed=seed, dtype=torch.float64) for seed in (0, 1))
    constant = changed(ALL, torch.zeros_like(x))
    both = changed(ALL, 2 * x - 3 * y) - constant
    torch.testing.assert_close(both, 2 * (changed(ALL, x) - constant) - 3 * (changed(ALL, y) - constant))
    assert float(constant.abs().max()) > 0.1


@pytest.mark.parametrize("config", [*ONE.values(), ALL])
def test_first_and_second_derivatives_go_through(config: AugmentationConfig) -> None:
    x = noise(4, 4, 3, 5, dtype=torch.float64).requires_grad_()

    def squares(images: Tensor) -> Tensor:
        return changed(config, images, seed=5).square()

    assert torch.autograd.gradcheck(squares, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(squares, x, fast_mode=True)


def test_alpha_has_no_colour_but_goes_where_the_pixels_go() -> None:
    images = noise(16, 4, 6, 6)
    colour = changed(ONE["colour"], images)
    assert torch.equal(colour[:, 3], images[:, 3])
    torch.testing.assert_close(colour[:, :3], changed(ONE["colour"], images[:, :3]))
    images[:, 3] = images[:, 0]
    for name in ("flip", "translate", "cutout"):
        result = changed(ONE[name], images)
        assert torch.equal(result[:, 3], result[:, 0])


def test_grey_images_have_no_saturation() -> None:
    one = noise(16, 1, 6, 6)
    as_colour = changed(ONE["colour"], one.expand(-1, 3, -1, -1))
    torch.testing.assert_close(as_colour[:, :1], changed(ONE["colour"], one))
    torch.testing.assert_close(as_colour[:, 1], as_colour[:, 0])


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("config", [*ONE.values(), ALL])
def test_channels_stay_last_in_memory(config: AugmentationConfig, channels: int) -> None:
    images = noise(4, channels, 8, 6)
    result = changed(config, images)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.dtype == torch.float32
    torch.testing.assert_close(changed(config, images.contiguous()), result)


def test_a_ramp_raises_the_probability_from_nothing() -> None:
    images = noise(2000, 1, 4, 4)
    config = replace(ONE["cutout"], probability=0.8, ramp=1000)
    for images_seen, expected in ((0, 0.0), (250, 0.2), (1000, 0.8), (5000, 0.8)):
        result = changed(config, images, images_seen=images_seen)
        share = float((result != images).flatten(1).any(dim=1).float().mean())
        assert share == pytest.approx(expected, abs=5 * math.sqrt(0.25 / len(images)) if expected else 0)


ADAPTIVE = AugmentationConfig(mode="adaptive", probability=0.5, target=0.6)


@pytest.mark.parametrize(
    ("real", "direction"),
    [([3.0, 1.0, 0.1, 9.0], 1), ([-3.0, 1.0, 2.0, 9.0], -1), ([-1.0, -2.0, -3.0, -4.0], -1)],
)
def test_the_probability_follows_the_signs_of_real_logits(real: list[float], direction: int) -> None:
    layer = Augmentation(ADAPTIVE)
    layer.adapt(torch.tensor(real), 0.0, 64)
    assert float(layer.probability) == pytest.approx(0.5 + direction * 64 / ADAPTATION)


def test_a_relativistic_loss_uses_the_sign_of_the_difference_of_logits() -> None:
    layer = Augmentation(ADAPTIVE)
    layer.adapt(torch.tensor([-3.0, -2.0]), torch.tensor([-4.0, -5.0]), 100)
    assert float(layer.probability) == pytest.approx(0.5 + 100 / ADAPTATION)


@given(
    start=st.floats(0, 1),
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, ADAPTATION)), max_size=20),
)
def test_the_probability_stays_between_0_and_1(start: float, steps: list[tuple[bool, int]]) -> None:
    layer, expected = Augmentation(replace(ADAPTIVE, probability=start)), start
    for rises, batch in steps:
        layer.adapt(torch.ones(2) if rises else -torch.ones(2), 0.0, batch)
        expected = min(1.0, max(0.0, expected + (batch if rises else -batch) / ADAPTATION))
    assert 0 <= float(layer.probability) <= 1
    assert float(layer.probability) == pytest.approx(expected, abs=1e-5)


def test_a_fixed_probability_stays() -> None:
    layer = Augmentation(replace(ADAPTIVE, mode="fixed"))
    layer.adapt(torch.ones(2), 0.0, 1000)
    assert float(layer.probability) == 0.5


def test_the_probability_is_part_of_the_state() -> None:
    first, second = Augmentation(ADAPTIVE), Augmentation(ADAPTIVE)
    first.adapt(torch.ones(2), 0.0, 20_000)
    assert list(first.state_dict()) == ["probability"]
    second.load_state_dict(first.state_dict())
    images = noise(64, 3, 8, 8)
    assert float(second.probability) == pytest.approx(0.7)
    assert torch.equal(first(images, Draws(0, 0), 0), second(images, Draws(0, 0), 0))
