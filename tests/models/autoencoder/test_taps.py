"""Feature maps of encoders and decoders: the networks give the same with taps, and see no farther than they say."""

from __future__ import annotations

import pytest
import torch
from networks import strong

from smalti.config.autoencoder import AutoencoderConfig, ClassicConfig, ModernConfig, TransformConfig
from smalti.config.quantizer import ScalarConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.autoencoder.taps import (
    decode_with,
    decoder_reach,
    decoder_taps,
    encode_with_features,
    encoder_reach,
    encoder_taps,
)

ARCHITECTURES: dict[str, tuple[AutoencoderConfig, list[int], list[int]]] = {
    "residual": (ClassicConfig("residual", width=8, residual_width=4, stride=8), [2, 4, 8], [8, 4, 2]),
    "plain": (ClassicConfig("plain", width=8, stride=4), [2, 4], [4, 2, 1]),
    "modern": (ModernConfig(width=16, blocks=1, stride=8, patch=2, attention=True), [2, 4, 8], [8, 4, 2]),
    "transform": (TransformConfig(stride=8, width=8, patch=2), [2], [2]),
}


def network(name: str) -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(VQVAEConfig(ARCHITECTURES[name][0], ScalarConfig(levels=(5, 5, 5))), 3)
    return strong(model).eval().requires_grad_(False)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_with_taps_give_what_they_give_without(name: str) -> None:
    model, images = network(name), torch.rand(2, 3, 24, 16) * 2 - 1
    latents, features = encode_with_features(model.encoder, images)
    assert torch.equal(latents, model.encoder(images))
    taps = encoder_taps(model.encoder)
    assert list(taps) == list(features) == ARCHITECTURES[name][1]
    for scale, tap in taps.items():
        assert features[scale].shape == (2, tap.channels, 24 // scale, 16 // scale)
    assert torch.equal(decode_with(model.decoder, latents, model.stride, {}), model.decoder(latents))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_of_the_decoder_are_changed(name: str) -> None:
    model, values, seen = network(name), torch.randn(1, 3, 3, 2), {}
    plain, taps = model.decoder(values), decoder_taps(model.decoder, model.stride)
    assert list(taps) == ARCHITECTURES[name][2]
    for scale, tap in taps.items():

        def change(x: torch.Tensor, scale: int = scale) -> torch.Tensor:
            seen[scale] = x.shape
            return x + 1

        assert not torch.equal(decode_with(model.decoder, values, model.stride, {scale: change}), plain)
        side = model.stride // scale
        assert seen[scale] == (1, tap.channels, 3 * side, 2 * side)


@pytest.mark.parametrize("name", ["residual", "plain", "transform"])
def test_networks_see_no_farther_than_their_reach(name: str) -> None:
    model = network(name)
    reach, stride = encoder_reach(model.encoder), model.stride
    assert reach is not None
    side, place = 160, 80 // stride
    images = torch.randn(1, 3, side, side, requires_grad=True)
    model.encoder(images)[0, :, place, place].sum().backward()
    assert images.grad is not None
    touched = images.grad[0].abs().sum(dim=(0, 1)).nonzero()
    first, last = int(touched.min()), int(touched.max())
    assert first >= place * stride - reach
    assert last <= place * stride + stride - 1 + reach
    assert last - first > reach, "the bound is not far from the truth"

    reach = decoder_reach(model.decoder, stride)
    assert reach is not None
    values = torch.randn(1, 3, side // stride, side // stride, requires_grad=True)
    model.decoder(values)[0, :, 80, 80].sum().backward()
    assert values.grad is not None
    touched = values.grad[0].abs().sum(dim=(0, 1)).nonzero() * stride
    assert int(touched.min()) >= 80 - reach - 2 * (stride - 1)
    assert int(touched.max()) <= 80 + reach + stride - 1


def test_what_is_normalised_over_the_picture_is_seen_whole() -> None:
    model = network("modern")
    assert encoder_reach(model.encoder) is None
    assert decoder_reach(model.decoder, model.stride) is None
