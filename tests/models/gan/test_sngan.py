"""SNGAN: the layers of the paper, their singular values, and the discriminator written out with single operations."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import strong
from torch import Tensor, nn
from torch.nn.utils import parametrize

from smalti.config.gan import GANConfig, SNGANConfig
from smalti.models.gan.base import Discriminator, Generator

TINY = GANConfig(latent=7, network=SNGANConfig(generator_width=16, discriminator_width=12))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_the_networks_for_cifar10_are_those_of_the_paper() -> None:
    config = GANConfig(latent=128, network=SNGANConfig())
    make, judge = Generator(config, (3, 32, 32)).network, Discriminator(config, (3, 32, 32)).network
    assert (make.project.in_features, make.project.out_features) == (128, 4 * 4 * 256)
    assert len(make.blocks) == 3
    up = 2 * (9 * 256 * 256 + 256) + (256 * 256 + 256) + 2 * 2 * 256
    expected = 129 * 4096 + 3 * up + 2 * 256 + 9 * 256 * 3 + 3
    assert sum(p.numel() for p in make.parameters()) == expected
    halved = [judge.first.halve, *(block.halve for block in judge.blocks)]
    assert halved == [True, True, False, False]
    assert [block.shortcut is None for block in judge.blocks] == [False, True, True]
    convolution, shortcut = 9 * 128 * 128 + 128, 128 * 128 + 128
    expected = (27 * 128 + 128 + convolution + 3 * 128 + 128) + (6 * convolution + shortcut) + 129
    assert sum(p.numel() for p in judge.parameters()) == expected


@pytest.mark.parametrize(("side", "halvings", "last"), [(16, 1, 8), (28, 1, 14), (32, 2, 8), (48, 2, 12), (64, 3, 8)])
def test_the_discriminator_halves_down_to_8_to_14_pixels(side: int, halvings: int, last: int) -> None:
    model = Discriminator(TINY, (3, side, side)).network
    assert sum([model.first.halve, *(block.halve for block in model.blocks)]) == halvings
    x = model.first(torch.randn(1, 3, side, side))
    for block in model.blocks:
        x = block(x)
    assert x.shape == (1, 12, last, last)


# The discriminator with single operations, from the docstring.


def halved(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


@pytest.mark.parametrize("classes", [0, 5])
def test_the_discriminator_is_its_layers_in_order(classes: int) -> None:
    whole: Any = strong(Discriminator(TINY, (3, 48, 32), classes)).eval()
    model, images = whole.network, torch.randn(5, 3, 48, 32)

    def convolved(x: Tensor, part: nn.Conv2d) -> Tensor:
        return F.conv2d(x, part.weight, part.bias, padding=part.kernel_size[0] // 2)

    x = images
    for number, (block, halves) in enumerate(zip([model.first, *model.blocks], [1, 1, 0, 0], strict=True)):
        y = convolved(x if number == 0 else x.clamp(min=0), block.conv1).clamp(min=0)
        y, shortcut = convolved(y, block.conv2), convolved(x, block.shortcut) if halves else x
        x = halved(y) + halved(shortcut) if halves else y + shortcut
    features = x.clamp(min=0).sum(dim=(2, 3))
    expected, labels = features @ model.head.weight[0] + model.head.bias, None
    if classes:
        labels = torch.arange(5)
        expected = expected + (model.embedding.weight[labels] * features).sum(dim=1)
    assert float(expected.detach().std()) > 0.1
    torch.testing.assert_close(whole(images, labels), expected, rtol=1e-4, atol=1e-4)


# Spectral normalisation.


def largest_singular_values(model: nn.Module) -> dict[str, float]:
    """Of every weight that is normalised, as a matrix with a row for each output."""
    model.eval()
    values = {
        name: float(torch.linalg.matrix_norm(part.weight.detach().flatten(1), 2))
        for name, part in model.named_modules()
        if parametrize.is_parametrized(part)
    }
    model.train()
    return values


def test_every_weight_of_the_discriminator_is_normalised_and_none_of_the_generator() -> None:
    model = Discriminator(TINY, (3, 32, 32), 5)
    layers = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 2 * 4 + 2 + 2
    assert all(parametrize.is_parametrized(part, "weight") for part in layers)
    assert not any(isinstance(part, nn.modules.batchnorm._NormBase) for part in model.modules())
    assert not any(parametrize.is_parametrized(part) for part in Generator(TINY, (3, 32, 32), 5).modules())


def test_the_largest_singular_value_of_every_weight_comes_to_one_in_bf16_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, labels = strong(Discriminator(TINY, (3, 32, 32), 5)), torch.randn(2, 3, 32, 32), torch.arange(2)
    assert max(abs(value - 1) for value in largest_singular_values(model).values()) > 0.2, "other weights than before"

    def followed(*, bf16: bool) -> dict[str, float]:
        copied = copy.deepcopy(model)
        for _ in range(60):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16), torch.no_grad():
                copied(x, labels)
        return largest_singular_values(copied)

    float32, on_a_processor = followed(bf16=False), followed(bf16=True)
    # On a GPU autocast takes products of a matrix and a vector to bf16 as well.
    product = torch.mv
    monkeypatch.setattr(torch, "mv", lambda a, b: product(a.bfloat16(), b.bfloat16()).float())
    on_a_gpu = followed(bf16=True)
    for name, value in float32.items():
        assert 0.999 < value < 1.05, name
        assert on_a_processor[name] == pytest.approx(value, abs=1e-4), name
        assert on_a_gpu[name] == pytest.approx(value, abs=0.01), name


def test_singular_values_stay_near_one_while_weights_move() -> None:
    model, labels = Discriminator(TINY, (3, 16, 16), 5), torch.arange(4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.0, 0.9))
    before = [value.clone() for value in model.parameters()]
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(torch.randn(4, 3, 16, 16), labels)
        F.softplus(torch.cat([logits[1:], -logits[:1]])).mean().backward()
        optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    for name, value in largest_singular_values(model).items():
        assert 0.97 < value < 1.08, name


def test_power_iterations_go_on_in_training_alone() -> None:
    model, x = strong(Discriminator(TINY, (3, 16, 16))), torch.randn(2, 3, 16, 16)
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_a_weight_times_ten_is_the_same_discriminator() -> None:
    model, x = Discriminator(TINY, (3, 16, 16)).eval(), torch.randn(2, 3, 16, 16)
    before = model(x)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("original"):
                parameter.mul_(10)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_weights_begin_as_the_docstring_says(network: type[Generator] | type[Discriminator]) -> None:
    config = GANConfig(latent=50, network=SNGANConfig(generator_width=32, discriminator_width=32))
    model = network(config, (3, 32, 32), 40).network
    in_blocks = {name for name, _ in model.named_modules() if name.split(".")[0] in ("first", "blocks")}
    checked = 0
    for name, part in model.named_modules():
        if not isinstance(part, nn.Conv2d | nn.Linear | nn.Embedding) or "norm" in name:
            continue
        weight = part.parametrizations.weight.original if parametrize.is_parametrized(part) else part.weight
        outside = isinstance(part, nn.Linear | nn.Embedding) or part.kernel_size == (1, 1) or name not in in_blocks
        gain = 1.0 if outside else math.sqrt(2)
        area = weight[0, 0].numel() if weight.ndim == 4 else 1
        bound = gain * math.sqrt(6 / (area * (weight.shape[0] + weight.shape[1])))
        # The largest of n uniform numbers is within 10 / n of the bound, but for one case in 22,000.
        assert bound * (1 - 10 / weight.numel()) < float(weight.detach().abs().max()) <= bound * (1 + 1e-6), name
        assert float(weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=3 / math.sqrt(weight.numel()))
        assert isinstance(part, nn.Embedding) or not part.bias.any()
        checked += 1
    assert checked == (2 + 3 * 3 if network is Generator else 2 * 4 + 2 + 2)


def test_the_sum_over_places_and_the_head_are_float32_under_autocast() -> None:
    model, types = strong(Discriminator(TINY, (3, 16, 16))), []
    model.network.head.register_forward_hook(
        lambda _part, inputs, output: types.extend([inputs[0].dtype, output.dtype])
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = model.network.first(torch.randn(2, 3, 16, 16))
        assert x.dtype == torch.bfloat16
        assert model(torch.randn(2, 3, 16, 16)).dtype == torch.float32
    assert types == [torch.float32, torch.float32]
