"""The network of `restore-codes`: codes alone at fidelity 0, the encoder's features with it; tiles like the whole."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from networks import strong

from smalti.config.autoencoder import AutoencoderConfig, ClassicConfig, ModernConfig, TransformConfig
from smalti.config.code_restorer import CodeRestorerConfig
from smalti.config.quantizer import (
    BinaryConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    ScalarConfig,
    SimConfig,
    VectorConfig,
)
from smalti.config.vqvae import VQVAEConfig
from smalti.errors import ConfigError
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.restorer.code_restorer import CodeRestorer

VECTOR = VectorConfig(codes=8, dimension=4)
CLASSIC = ClassicConfig("residual", width=8, residual_width=4, stride=4)
SETTINGS = CodeRestorerConfig("noise(20)", width=16, blocks=1)


def network(
    autoencoder: AutoencoderConfig = CLASSIC,
    quantizer: QuantizerConfig = VECTOR,
    settings: CodeRestorerConfig = SETTINGS,
) -> CodeRestorer:
    torch.manual_seed(0)
    tokenizer = strong(Autoencoder(VQVAEConfig(autoencoder, quantizer), 3)).eval()
    for name, buffer in tokenizer.named_buffers():
        if name.endswith("codebook"):
            buffer.copy_(torch.randn_like(buffer))
    model = CodeRestorer(settings, tokenizer, 3)
    strong(model.predictor)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "quantizer",
    [
        VECTOR,
        VectorConfig(codes=8, dimension=6, projection=3, normalize=True),
        SimConfig(codes=8, dimension=4),
        ScalarConfig(levels=(3, 5)),
        BinaryConfig(bits=4),
        ResidualConfig(layer=VECTOR, depth=3),
        ProductConfig(layer=VECTOR, groups=2),
    ],
    ids=lambda quantizer: quantizer.name,
)
def test_every_quantizer_has_its_codes_predicted(quantizer: QuantizerConfig) -> None:
    model, images = network(quantizer=quantizer), torch.rand(2, 3, 11, 18) * 2 - 1
    prediction = model.predict(images)
    assert [logits.shape[1] for logits in prediction.logits] == list(quantizer.codebook_sizes)
    assert prediction.codes.shape == (2, len(quantizer.codebook_sizes), 3, 5)
    found = model(images)
    assert found.shape == (2, 3, 11, 18)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("autoencoder", [CLASSIC, ModernConfig(width=16, stride=4), TransformConfig(stride=4, width=8)])
def test_fidelity_0_is_the_decoded_codes_alone(autoencoder: AutoencoderConfig) -> None:
    model, images = network(autoencoder), torch.rand(1, 3, 16, 16) * 2 - 1
    prediction = model.predict(images)
    codes_alone = model.tokenizer.decoder(model.tokenizer.quantizer.decode(prediction.codes))
    torch.testing.assert_close(model(images, fidelity=0), codes_alone)
    for control in model.predictor.controls.parameters():
        control.fill_(float("nan"))
    torch.testing.assert_close(model(images, fidelity=0), codes_alone)
    assert model(images, fidelity=0.1).isnan().any()


def test_fidelity_grows_from_nothing_to_all() -> None:
    torch.manual_seed(0)
    model, images = network(), torch.rand(1, 3, 16, 16) * 2 - 1
    nothing, some, all_of_it = (model(images, fidelity=fidelity) for fidelity in (0, 1e-3, 1))
    assert 0 < (some - nothing).abs().max() < (all_of_it - nothing).abs().max() / 10
    fresh = CodeRestorer(SETTINGS, model.tokenizer, 3)
    assert torch.equal(fresh(images, fidelity=1), fresh(images, fidelity=0)), "connections begin at zero"
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(fresh.predictor.encoder.parameters(), model.tokenizer.encoder.parameters(), strict=True)
    )


@pytest.mark.parametrize("autoencoder", [CLASSIC, ClassicConfig("plain", width=8, stride=2)])
@pytest.mark.parametrize("scale", [1, 2])
def test_the_result_depends_on_what_is_in_reach_alone(autoencoder: AutoencoderConfig, scale: int) -> None:
    degradation = f"down({scale})" if scale > 1 else "noise(20)"
    model = network(autoencoder, settings=dataclasses.replace(SETTINGS, degradation=degradation))
    assert model.reach is not None
    side = 2 * model.reach + 24
    side -= side % model.multiple
    images = torch.rand(1, 3, 8, side) * 2 - 1
    other, middle = images.clone(), side // 2
    other[..., : middle - model.reach], other[..., middle + model.reach + 1 :] = 0.3, -0.3
    same = slice(scale * middle, scale * (middle + 1))
    torch.testing.assert_close(model(images)[..., same], model(other)[..., same], atol=1e-5, rtol=1e-5)
    assert model.multiple * scale % model.tokenizer.stride == 0


def test_too_many_codes_and_masks_are_refused() -> None:
    with pytest.raises(ConfigError, match="the tokenizer has 131,072 codes in all planes"):
        network(quantizer=ResidualConfig(layer=VectorConfig(codes=2**16, dimension=1), depth=2))
    with pytest.raises(ConfigError, match="takes no mask, so it cannot tell a hole from a grey area"):
        CodeRestorerConfig("mask(boxes,0.1)")
    with pytest.raises(ConfigError, match="there is no degradation 'nose'"):
        CodeRestorerConfig("nose(5)")
