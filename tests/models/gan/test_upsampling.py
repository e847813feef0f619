"""The generator with batch normalisation: sngan's and r3gan's, and written out with single operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import strong
from torch import Tensor, nn

from smalti.config.gan import GANConfig, R3GANConfig, SNGANConfig
from smalti.models.gan.base import Discriminator, Generator

SAME = GANConfig(latent=7, network=SNGANConfig(generator_width=16, discriminator_width=12))
FALLING = GANConfig(
    latent=7, network=R3GANConfig(width=16, generator="upsampling", generator_width=24, generator_taper=0.6)
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def widths(model: Generator) -> list[int]:
    """At each grid, from the coarsest."""
    blocks = list(model.network.blocks)
    return [blocks[0].conv1.in_channels, *(block.conv2.out_channels for block in blocks)]


@settings(max_examples=20)
@given(width=st.integers(8, 100), taper=st.floats(0.1, 1), doublings=st.integers(2, 5), ratio=st.integers(4, 7))
def test_of_r3gan_the_width_falls_by_the_taper_in_multiples_of_8(
    width: int, taper: float, doublings: int, ratio: int
) -> None:
    network = R3GANConfig(width=16, generator="upsampling", generator_width=width, generator_taper=taper)
    shape = (3, 4 << doublings, ratio << doublings)
    model = Generator(GANConfig(latent=7, network=network), shape)
    assert model(torch.randn(2, 7)).shape == (2, *shape)
    wide = widths(model)
    assert len(wide) == doublings + 1
    assert wide[0] == width
    for k, finer in enumerate(wide[1:], 1):
        assert finer == width or (finer % 8 == 0 and finer < width)
        assert finer == 8 or abs(finer - width * taper**k) <= 4 or finer == width
    assert wide == sorted(wide, reverse=True)


def test_r3gans_discriminator_is_the_same_with_either_generator() -> None:
    mirror = GANConfig(network=R3GANConfig(width=16))
    names = [
        [(name, value.shape) for name, value in Discriminator(config, (3, 32, 32), 5).state_dict().items()]
        for config in (mirror, FALLING)
    ]
    assert names[0] == names[1]
    assert not any(isinstance(part, nn.BatchNorm2d) for part in Generator(mirror, (3, 32, 32)).modules())


# With single operations, from the docstring.


def batch_norm(x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = x.var(dim=(0, 2, 3), keepdim=True, correction=0)
    return (x - mean) / (variance + 1e-5).sqrt() * scale[..., None, None] + offset[..., None, None]


def normed(x: Tensor, part: Any, z: Tensor, labels: Tensor | None) -> Tensor:
    if part.scale is not None:
        x = batch_norm(x, part.scale.weight[labels], part.offset.weight[labels])
    else:
        x = batch_norm(x, part.norm.weight, part.norm.bias)
    if part.modulation is not None:
        values = (z @ part.modulation.weight.T)[..., None, None]
        x = x * (1 + values[:, : x.shape[1]]) + values[:, x.shape[1] :]
    return x


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("config", [SAME, FALLING], ids=["sngan", "r3gan"])
def test_the_generator_is_its_layers_in_order(config: GANConfig, classes: int) -> None:
    whole: Any = strong(Generator(config, (3, 24, 16), classes))
    model, z, labels = whole.network, torch.randn(6, 7), torch.arange(6) % classes if classes else None
    x = F.linear(z, model.project.weight, model.project.bias).view(6, -1, 6, 4)
    for block in model.blocks:
        y = doubled(normed(x, block.norm1, z, labels).clamp(min=0))
        y = F.conv2d(y, block.conv1.weight, block.conv1.bias, padding=1)
        y = normed(y, block.norm2, z, labels).clamp(min=0)
        y = F.conv2d(y, block.conv2.weight, block.conv2.bias, padding=1)
        x = y + F.conv2d(doubled(x), block.shortcut.weight, block.shortcut.bias)
        assert (block.norm1.modulation is not None) == (block.norm2.modulation is not None) == (config is FALLING)
    assert model.norm.scale is None, "the last normalisation has no labels"
    assert model.norm.modulation is None
    x = F.conv2d(normed(x, model.norm, z, None).clamp(min=0), model.image.weight, model.image.bias, padding=1)
    assert float(x.detach().std()) > 0.1
    torch.testing.assert_close(whole(z, labels), torch.tanh(x), rtol=1e-4, atol=1e-4)


def test_modulation_begins_with_nothing() -> None:
    model, z = Generator(FALLING, (3, 16, 16), 4), torch.randn(6, 7)
    parts = [part for part in model.modules() if getattr(part, "modulation", None) is not None]
    assert len(parts) == 2 * 2
    x, labels = torch.randn(6, 24, 4, 4), torch.arange(6) % 4
    torch.testing.assert_close(parts[0](x, z, labels), parts[0](x, 2 * z, labels))
    strong(model)
    assert not torch.allclose(parts[0](x, z, labels), parts[0](x, 2 * z, labels))


def test_with_labels_each_class_has_a_scale_and_an_offset_of_its_own_that_begin_alike() -> None:
    model = Generator(SAME, (3, 16, 16), 4)
    z, labels = torch.randn(1, 7).expand(4, -1), torch.arange(4)
    made = model(z, labels)
    torch.testing.assert_close(made, made[:1].expand_as(made))
    norm = model.network.blocks[0].norm1
    assert (norm.scale.weight == 1).all()
    assert not norm.offset.weight.any()
    assert not list(norm.norm.parameters()), "the normalisation itself has neither"
    with torch.no_grad():
        norm.scale.weight[2] = 2
        norm.offset.weight[2] = 1
    x, z8 = torch.randn(8, 16, 4, 4), torch.randn(8, 7)
    plain = norm(x, z8, torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(norm(x, z8, torch.arange(8) % 4)[2::4], 2 * plain[2::4] + 1)


@pytest.mark.parametrize("config", [SAME, FALLING], ids=["sngan", "r3gan"])
def test_normalisation_keeps_the_type_under_autocast(config: GANConfig) -> None:
    norm = Generator(config, (3, 16, 16), 4).network.blocks[0].norm1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (
            norm(torch.randn(8, norm.norm.num_features, 4, 4).bfloat16(), torch.randn(8, 7), torch.arange(8) % 4).dtype
            == torch.bfloat16
        )
