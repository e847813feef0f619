"""The modern autoencoder: shapes at every stride, blocks that begin as the identity, images on their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from smalti.config.autoencoder import ModernConfig
from smalti.models.autoencoder.vqgan import ModernDecoder, ModernEncoder

GRIDS = [(stride, patch) for stride in (2, 4, 8, 16, 32) for patch in (1, 2, 4, 8, 16) if patch <= stride]


def networks(*, channels: int = 3, dimension: int = 5, **options: object) -> tuple[ModernEncoder, ModernDecoder]:
    torch.manual_seed(0)
    config = ModernConfig(**{"width": 16, "blocks": 1} | options)  # type: ignore[arg-type]
    return ModernEncoder(config, channels, dimension), ModernDecoder(config, channels, dimension)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def widths(layers: nn.Sequential) -> list[int]:
    """Output channels of the convolutions that change the resolution, and of the first."""
    return [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(("stride", "patch"), GRIDS)
@pytest.mark.parametrize("attention", [False, True])
def test_shapes_at_every_stride(stride: int, patch: int, attention: bool) -> None:
    encoder, decoder = networks(stride=stride, patch=patch, attention=attention, channels=1)
    for rows, columns in [(1, 1), (2, 3)]:
        latents = encoder(noise(2, 1, rows * stride, columns * stride))
        assert latents.shape == (2, 5, rows, columns)
        assert decoder(latents).shape == (2, 1, rows * stride, columns * stride)


def test_channels_halve_as_the_resolution_doubles() -> None:
    encoder, decoder = networks(width=128, stride=8, patch=1)
    assert widths(encoder.layers) == [32, 32, 64, 128, 5]
    assert widths(decoder.layers) == [128, 64, 32, 32, 3]
    encoder, decoder = networks(width=8, stride=8, patch=2)
    assert widths(encoder.layers) == [8, 8, 8, 5]
    assert widths(decoder.layers) == [8, 8, 8, 12]


def test_a_fresh_network_is_its_plain_convolutions() -> None:
    """All residual blocks and the attention are the identity at first."""
    encoder, decoder = networks(blocks=2, attention=True)
    x, z = noise(2, 3, 8, 8), noise(2, 5, 2, 2)
    expected = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    for layer in encoder.layers:
        if isinstance(layer, nn.Conv2d | nn.GroupNorm | nn.SiLU):
            expected = layer(expected)
    torch.testing.assert_close(encoder(x), expected)
    for layer in decoder.layers:
        if isinstance(layer, nn.Conv2d | nn.GroupNorm | nn.SiLU):
            z = layer(z)
        elif type(layer).__name__ == "Upsample":
            z = z.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(decoder(noise(2, 5, 2, 2)), nn.functional.pixel_shuffle(z, 2))


def test_images_of_a_batch_do_not_see_each_other_even_in_training() -> None:
    encoder, decoder = networks(attention=True)
    for parameter in [*encoder.parameters(), *decoder.parameters()]:
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    x = noise(4, 3, 16, 12)
    together = decoder(encoder(x))
    alone = torch.cat([decoder(encoder(one[None])) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", [False, True])
def test_a_place_of_the_grid_sees_the_whole_image_with_attention_alone(attention: bool) -> None:
    encoder, _ = networks(attention=attention, stride=2, patch=2)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            # Normalisation looks at the whole image as well, so it is left out of this.
            if not parameter.any() and "norm" not in name:
                parameter.normal_(std=0.1)
    normalisations = [module for module in encoder.modules() if isinstance(module, nn.GroupNorm)]
    for module in normalisations:
        module.forward = lambda x: x  # type: ignore[method-assign]
    x = noise(1, 3, 32, 32).requires_grad_()
    (gradient,) = torch.autograd.grad(encoder(x)[0, :, 0, 0].sum(), x)
    assert bool(gradient[..., -1, -1].any()) == attention


@pytest.mark.parametrize("options", [{}, {"attention": True}, {"blocks": 0}])
def test_every_weight_learns(options: dict[str, object]) -> None:
    encoder, decoder = networks(**options)
    parameters = {**dict(encoder.named_parameters("e")), **dict(decoder.named_parameters("d"))}
    # What begins at zero keeps the gradient from the layers before it for a step.
    optimizer = torch.optim.SGD(parameters.values(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        decoder(encoder(noise(2, 3, 8, 8))).sub(noise(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name
