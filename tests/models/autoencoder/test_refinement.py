"""Codes improved against the decoder: never worse, often better, and the same whatever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smalti.config.autoencoder import ClassicConfig, TransformConfig
from smalti.config.quantizer import ProductConfig, ResidualConfig, ScalarConfig, VectorConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.autoencoder.refinement import refine

CLASSIC = ClassicConfig(width=8, residual_width=4, residual_blocks=1)
KINDS: dict[str, VQVAEConfig] = {
    "vector": VQVAEConfig(CLASSIC, VectorConfig(codes=12, dimension=4)),
    "scalar": VQVAEConfig(CLASSIC, ScalarConfig(levels=(5, 4, 3))),
    "residual": VQVAEConfig(CLASSIC, ResidualConfig(layer=VectorConfig(codes=6, dimension=4), depth=2)),
    "product": VQVAEConfig(
        TransformConfig(stride=8, width=8, encoder_blocks=1, decoder_blocks=1),
        ProductConfig(layer=VectorConfig(codes=8, dimension=3), groups=4),
    ),
}


def model_of(config: VQVAEConfig) -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(config, 3)
    model.fit(lambda: [pictures(100, count=40)], batch=8)
    for seed in range(3):  # codebooks without a fit take their vectors from a batch
        model(pictures(seed))
    with torch.no_grad():  # corrections begin at zero; give the decoder something to be nonlinear with
        for parameter in model.decoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def pictures(seed: int, *, count: int = 6, height: int = 16, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, height // 4, width // 4, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def errors(model: Autoencoder, codes: Tensor, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model.squared_errors(model.quantizer.decode(codes), images)


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_gets_worse_and_some_get_better(kind: str) -> None:
    model, images = model_of(KINDS[kind]), pictures(7)
    with torch.no_grad():
        plain = model.encode(images).codes
    assert torch.equal(refine(model, images, rounds=0), plain)
    few, many = (refine(model, images, rounds=rounds) for rounds in (4, 24))
    assert few.shape == many.shape == plain.shape
    assert many.dtype == torch.int64
    model.quantizer.check_codes(many)
    before = errors(model, plain, images)
    for codes in (few, many):
        assert (errors(model, codes, images) <= before * (1 + 1e-5)).all()
    assert float(errors(model, many, images).sum()) < float(before.sum())


def test_it_is_the_same_whatever_else_is_in_the_batch() -> None:
    model, images = model_of(KINDS["product"]), pictures(8)
    together = refine(model, images, rounds=6)
    apart = torch.cat([refine(model, image[None], rounds=6) for image in images])
    assert float((together == apart).float().mean()) > 0.95  # sums of another batch round differently
    assert torch.equal(refine(model, images, rounds=6), together)


def test_any_size_of_image() -> None:
    model, images = model_of(KINDS["product"]), pictures(9)[..., :13, :19]
    codes = refine(model, images, rounds=3)
    assert codes.shape == (6, 4, 2, 3)


def test_nothing_of_the_model_changes() -> None:
    model, images = model_of(KINDS["vector"]), pictures(9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    refine(model, images, rounds=3)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())
