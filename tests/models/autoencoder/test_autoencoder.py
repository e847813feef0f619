"""The autoencoder at any size, with any channels, in every architecture; the two classic ones in detail."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from smalti.config.autoencoder import AutoencoderConfig, ClassicConfig, ModernConfig, TransformConfig
from smalti.config.quantizer import VectorConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.errors import CodeRangeError
from smalti.models.autoencoder.autoencoder import ARCHITECTURES, Autoencoder

every = pytest.mark.parametrize("architecture", ARCHITECTURES)


def settings_of(architecture: str, width: int, stride: int) -> AutoencoderConfig:
    if architecture == "modern":
        return ModernConfig(width=width, blocks=1, stride=stride, attention=True)
    if architecture == "transform":
        return TransformConfig(stride=stride, width=width, encoder_blocks=1, decoder_blocks=1, patch=2)
    return ClassicConfig(architecture, width, residual_width=4, residual_blocks=1, stride=stride)


def tiny(architecture: str = "residual", *, stride: int = 4, channels: int = 3, width: int = 8) -> Autoencoder:
    """Small, and with random weights in the layers that begin at zero."""
    torch.manual_seed(0)
    config = VQVAEConfig(settings_of(architecture, width, stride), VectorConfig(codes=9, dimension=4))
    model = Autoencoder(config, channels).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def images(height: int, width: int, channels: int = 3, batch: int = 2) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(height)) * 2 - 1


@every
@pytest.mark.parametrize("stride", [4, 8])
@settings(max_examples=15)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_any_size_comes_back(architecture: str, stride: int, height: int, width: int) -> None:
    model = tiny(architecture, stride=stride)
    x = images(height, width)
    with torch.no_grad():
        quantized = model.encode(x)
        grid = (math.ceil(height / stride), math.ceil(width / stride))
        assert quantized.codes.shape == (2, 1, *grid)
        decoded = model.decode(quantized.codes)
        assert decoded.shape == (2, 3, grid[0] * stride, grid[1] * stride)
        found = model.reconstruct(x)
        assert found.shape == x.shape
        assert torch.equal(found, decoded[..., :height, :width])
        assert found.dtype == torch.float32
        assert float(found.abs().max()) <= 1
        latents, reconstruction, again = model(x)
        assert latents.shape == (2, 4, *grid)
        assert reconstruction.shape == x.shape
        assert torch.equal(again.codes, quantized.codes)


@every
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("stride", [2, 32])
def test_any_channels_and_stride(architecture: str, channels: int, stride: int) -> None:
    x = images(9, 33, channels)
    assert tiny(architecture, stride=stride, channels=channels).reconstruct(x).shape == x.shape


@every
def test_pixels_beyond_the_edge_are_the_last_ones_again(architecture: str) -> None:
    model, x = tiny(architecture), images(6, 7)
    padded = torch.cat([x, x[:, :, -1:].expand(-1, -1, 2, -1)], dim=2)
    padded = torch.cat([padded, padded[..., -1:]], dim=3)
    assert torch.equal(model.encode(x).codes, model.encode(padded).codes)


@every
def test_each_image_is_on_its_own_in_eval(architecture: str) -> None:
    model, x = tiny(architecture), images(8, 12, batch=3)
    alone = torch.cat([model.reconstruct(one[None]) for one in x])
    torch.testing.assert_close(model.reconstruct(x), alone)


def test_what_is_decoded_is_clipped_and_what_is_trained_is_not() -> None:
    model, x = tiny(), images(8, 8)
    last = model.decoder[-1]
    with torch.no_grad():
        last.bias.fill_(3.0)
    assert float(model.reconstruct(x).detach().max()) == 1.0
    assert float(model(x)[1].detach().max()) > 1.0


@every
def test_every_weight_of_encoder_and_decoder_gets_a_gradient(architecture: str) -> None:
    model = tiny(architecture).train()
    _, reconstruction, quantized = model(images(12, 12, batch=4))
    (reconstruction.square().mean() + quantized.loss).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


@every
def test_the_last_weight_is_that_of_the_layer_that_makes_the_pixels(architecture: str) -> None:
    """What it adds to the pixels is all of the image, or the correction of a linear one, and goes as it does."""
    model = tiny(architecture)
    bias = next(p for p in reversed(list(model.decoder.parameters())) if p.ndim == 1)
    assert any(p is model.last_weight for p in model.decoder.parameters())
    with torch.no_grad():
        _, once, quantized = model(images(8, 8))
        results = []
        for factor in (3.0, 0.0):
            model.last_weight.mul_(factor)
            bias.mul_(factor)
            results.append(model.decoder(quantized.values))
    thrice, base = results
    assert float(base.abs().max()) == 0 or architecture == "transform"
    torch.testing.assert_close(thrice - base, 3 * (once - base), rtol=1e-4, atol=1e-5)


@every
def test_fitting_changes_the_transform_alone(architecture: str) -> None:
    model = tiny(architecture)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.fit(lambda: [images(16, 16, batch=8)], batch=4)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert bool(changed) == (architecture == "transform")


def test_strange_codes_are_refused() -> None:
    with pytest.raises(CodeRangeError):
        tiny().decode(torch.full((1, 1, 2, 2), 9))


@every
def test_inside_autocast_images_and_codes_keep_their_types(architecture: str) -> None:
    model = tiny(architecture)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert model.reconstruct(images(8, 8)).dtype == torch.float32
        assert model.encode(images(8, 8)).values.dtype == torch.float32


def test_the_residual_network_is_the_papers() -> None:
    config = VQVAEConfig(ClassicConfig(width=128, residual_width=32, residual_blocks=2, stride=4))
    model = Autoencoder(config, 3)
    down = [(c.in_channels, c.out_channels, c.kernel_size, c.stride) for c in model.encoder if isinstance(c, nn.Conv2d)]
    assert down == [
        (3, 64, (4, 4), (2, 2)),
        (64, 128, (4, 4), (2, 2)),
        (128, 128, (3, 3), (1, 1)),
        (128, 64, (1, 1), (1, 1)),
    ]
    up = [(c.in_channels, c.out_channels, c.kernel_size) for c in model.decoder if isinstance(c, nn.ConvTranspose2d)]
    assert up == [(128, 64, (4, 4)), (64, 3, (4, 4))]
    residual = 2 * (128 * 32 * 9 + 32 + 32 * 128 + 128)
    encoder = (3 * 64 * 16 + 64) + (64 * 128 * 16 + 128) + (128 * 128 * 9 + 128) + residual + (128 * 64 + 64)
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder


def test_the_plain_network_doubles_before_it_convolves() -> None:
    kinds = [type(layer).__name__ for layer in tiny("plain").decoder]
    assert kinds == ["PlainBlock", "Upsample", "PlainBlock", "Upsample", "PlainBlock", "Conv2d"]
    assert not any(isinstance(layer, nn.ConvTranspose2d) for layer in tiny("plain").modules())
