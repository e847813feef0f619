"""The classic pair: shapes, range, logits, and the layers that were asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import strong
from torch import nn

from smalti.config.gan import DCGANConfig, GANConfig
from smalti.errors import ConfigError
from smalti.models.gan.base import Discriminator, Generator
from smalti.runtime.rng import Draws

TINY = GANConfig(latent=7, network=DCGANConfig(generator_width=8, discriminator_width=4))


@settings(max_examples=12)
@given(
    rows=st.integers(2, 6),
    columns=st.integers(2, 6),
    channels=st.sampled_from([1, 3, 4]),
    classes=st.sampled_from([0, 5]),
)
def test_images_of_any_shape_that_is_a_multiple_of_four(rows: int, columns: int, channels: int, classes: int) -> None:
    shape = (channels, 4 * rows, 4 * columns)
    labels = torch.arange(3) if classes else None
    images = Generator(TINY, shape, classes)(torch.randn(3, 7), labels)
    assert images.shape == (3, *shape)
    assert images.dtype == torch.float32
    assert float(images.detach().abs().max()) <= 1
    assert Discriminator(TINY, shape, classes)(images, labels).shape == (3,)


@pytest.mark.parametrize(
    ("height", "width", "advice"),
    [(30, 32, "28x32"), (33, 35, "32x32"), (2, 8, "8x8"), (1, 1, "8x8"), (4, 12, "8x12"), (64, 63, "64x60")],
)
def test_another_size_is_refused_with_one_that_fits(height: int, width: int, advice: str) -> None:
    with pytest.raises(ConfigError, match=f"found {height}x{width}; give for example `size={advice}`$"):
        Generator(TINY, (3, height, width))
    suggested = tuple(int(side) for side in advice.split("x"))
    Generator(TINY, (3, *suggested))


@settings(max_examples=12)
@given(height=st.integers(1, 20), width=st.integers(1, 20))
def test_the_discriminator_takes_any_size(height: int, width: int) -> None:
    assert Discriminator(TINY, (3, height, width))(torch.randn(2, 3, height, width)).shape == (2,)


def test_the_generator_is_the_one_that_was_asked_for() -> None:
    model = Generator(GANConfig(latent=100, network=DCGANConfig(generator_width=256)), (3, 32, 32)).network
    assert (model.project.in_features, model.project.out_features) == (100, 8 * 8 * 256)
    assert model.project.bias is None
    layers = [m for m in model.children() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(type(m).__name__, m.in_channels, m.out_channels, m.kernel_size, m.stride) for m in layers] == [
        ("Conv2d", 256, 128, (5, 5), (1, 1)),
        ("ConvTranspose2d", 128, 64, (5, 5), (2, 2)),
        ("ConvTranspose2d", 64, 3, (5, 5), (2, 2)),
    ]
    assert [m.num_features for m in model.children() if isinstance(m, nn.BatchNorm2d)] == [256, 128, 64]
    expected = 100 * 16384 + 25 * (256 * 128 + 128 * 64 + 64 * 3) + 3 + 2 * (256 + 128 + 64)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("classes", [0, 5])
def test_the_generator_is_its_layers_in_order(classes: int) -> None:
    torch.manual_seed(0)
    whole, z = strong(Generator(TINY, (3, 8, 12), classes)).eval(), torch.randn(2, 7)
    model, labels = whole.network, torch.tensor([3, 1]) if classes else None
    x = z if labels is None else torch.cat([z, model.embedding.weight[labels]], dim=1)
    x = F.linear(x, model.project.weight).view(2, 8, 2, 3)
    x = F.leaky_relu(model.norm0(x), 0.3)
    x = F.leaky_relu(model.norm1(F.conv2d(x, model.conv1.weight, padding=2)), 0.3)
    x = F.conv_transpose2d(x, model.conv2.weight, stride=2, padding=2, output_padding=1)
    x = F.leaky_relu(model.norm2(x), 0.3)
    x = F.conv_transpose2d(x, model.conv3.weight, model.conv3.bias, stride=2, padding=2, output_padding=1)
    assert float(x.detach().std()) > 0.1
    torch.testing.assert_close(whole(z, labels), torch.tanh(x))


@pytest.mark.parametrize("classes", [0, 5])
def test_the_discriminator_is_its_layers_in_order(classes: int) -> None:
    torch.manual_seed(0)
    whole, images = strong(Discriminator(TINY, (3, 8, 12), classes)).eval(), torch.randn(2, 3, 8, 12)
    model, labels = whole.network, torch.tensor([3, 1]) if classes else None
    x = F.leaky_relu(F.conv2d(images, model.conv1.weight, model.conv1.bias, stride=2, padding=2), 0.3)
    x = F.leaky_relu(F.conv2d(x, model.conv2.weight, model.conv2.bias, stride=2, padding=2), 0.3)
    x = x.flatten(1)
    expected = x @ model.head.weight[0] + model.head.bias
    if labels is not None:
        expected = expected + (model.embedding.weight[labels] * x).sum(dim=1) / x.shape[1] ** 0.5
    torch.testing.assert_close(whole(images, labels), expected)


def test_a_transposed_convolution_of_stride_one_is_a_convolution_turned_round() -> None:
    torch.manual_seed(0)
    transposed = nn.ConvTranspose2d(6, 4, 5, stride=1, padding=2, bias=False)
    plain = nn.Conv2d(6, 4, 5, padding=2, bias=False)
    with torch.no_grad():
        plain.weight.copy_(transposed.weight.flip(2, 3).transpose(0, 1))
    x = torch.randn(2, 6, 8, 8)
    torch.testing.assert_close(plain(x), transposed(x), rtol=1e-5, atol=1e-5)


def test_the_discriminator_is_the_one_that_was_asked_for() -> None:
    model = Discriminator(GANConfig(network=DCGANConfig()), (3, 32, 32)).network
    layers = [m for m in model.children() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size, m.stride) for m in layers] == [
        (3, 64, (5, 5), (2, 2)),
        (64, 128, (5, 5), (2, 2)),
    ]
    assert (model.head.in_features, model.head.out_features) == (8 * 8 * 128, 1)
    assert model.dropout.probability == 0.3
    unwanted = (nn.modules.batchnorm._NormBase, nn.Sigmoid)
    assert not any(isinstance(m, unwanted) for m in model.modules())


def test_logits_are_raw() -> None:
    model = Discriminator(TINY, (3, 8, 8))
    with torch.no_grad():
        model.network.head.weight.mul_(1e4)
    logits = torch.cat([model(torch.randn(16, 3, 8, 8)), model(-torch.randn(16, 3, 8, 8))]).detach()
    assert float(logits.min()) < 0
    assert float(logits.max()) > 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.randn(2, 3, 8, 8)).dtype == torch.float32


def test_dropout_needs_draws_and_training() -> None:
    model, x = Discriminator(TINY, (3, 8, 8)), torch.randn(2, 3, 8, 8)
    plain = model(x)
    assert torch.equal(model(x), plain)
    assert not torch.equal(model(x, None, Draws(0, 0)), plain)
    assert torch.equal(model(x, None, Draws(0, 0)), model(x, None, Draws(0, 0)))
    assert torch.equal(model.eval()(x, None, Draws(0, 0)), plain)


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_weights_begin_as_the_paper_says(network: type[Generator] | type[Discriminator]) -> None:
    torch.manual_seed(0)
    for part in network(
        GANConfig(latent=50, network=DCGANConfig(generator_width=32, discriminator_width=32)), (3, 16, 16)
    ).modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert float(part.weight.detach().std()) == pytest.approx(0.02, rel=0.2)
            assert part.bias is None or not part.bias.any()
