"""Laws that every quantizer keeps; a new one is checked as soon as it stands in the table."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from smalti.config import QuantizerConfig
from smalti.errors import CodeRangeError
from smalti.quantize import QUANTIZERS, Quantizer, build_quantizer, perplexity

MODES = [
    QuantizerConfig(name, codes=24, dimension=6, update=update) for name in QUANTIZERS for update in ("ema", "gradient")
]
every = pytest.mark.parametrize("config", MODES, ids=lambda config: f"{config.name}-{config.update}")


def latents(seed: int = 0, batch: int = 2, height: int = 5, width: int = 3) -> Tensor:
    return torch.randn(batch, 6, height, width, generator=torch.Generator().manual_seed(seed))


def trained(config: QuantizerConfig) -> Quantizer:
    quantizer = build_quantizer(config)
    for seed in range(3):
        quantizer(latents(seed + 10))
    return quantizer.eval()


@every
@pytest.mark.parametrize("training", [False, True])
def test_shapes_types_and_alphabet(config: QuantizerConfig, training: bool) -> None:
    quantizer = trained(config).train(training)
    for batch, height, width in [(2, 5, 3), (1, 1, 1), (3, 2, 8)]:
        result = quantizer(latents(batch=batch, height=height, width=width))
        assert result.values.shape == (batch, 6, height, width)
        assert result.values.dtype == torch.float32
        assert result.codes.shape == (batch, len(quantizer.alphabet), height, width)
        assert result.codes.dtype == torch.int64
        assert result.loss.shape == ()
        assert result.loss.dtype == torch.float32
        for plane, size in enumerate(quantizer.alphabet):
            assert 0 <= int(result.codes[:, plane].min()) <= int(result.codes[:, plane].max()) < size


@every
def test_decoding_the_codes_gives_the_values(config: QuantizerConfig) -> None:
    quantizer, z = trained(config), latents()
    result = quantizer(z)
    assert torch.equal(quantizer.encode(z), result.codes)
    # The straight-through sum z + (e - z) rounds once more than e alone.
    torch.testing.assert_close(quantizer.decode(result.codes), result.values, rtol=1e-6, atol=1e-6)


@every
def test_codes_of_decoded_codes_are_the_codes(config: QuantizerConfig) -> None:
    quantizer = trained(config)
    codes = quantizer.encode(latents())
    values = quantizer.decode(codes)
    assert torch.equal(quantizer.decode(quantizer.encode(values)), values)


@every
@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_goes_straight_through(config: QuantizerConfig, training: bool) -> None:
    quantizer, z = trained(config).train(training), latents().requires_grad_()
    quantizer(z).values.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))


@every
def test_float32_inside_autocast(config: QuantizerConfig) -> None:
    quantizer, z = trained(config), latents()
    expected = quantizer(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer(z)
        codes = quantizer.encode(z)
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(codes, expected.codes)
    assert torch.equal(found.loss, expected.loss)
    assert quantizer(z.bfloat16()).values.dtype == torch.float32


@every
def test_save_and_load_is_the_identity(config: QuantizerConfig) -> None:
    quantizer = trained(config).train()
    other = build_quantizer(config)
    other.load_state_dict(copy.deepcopy(quantizer.state_dict()))
    for _ in range(2):
        a, b = quantizer(latents(5)), other(latents(5))
        assert torch.equal(a.values, b.values)
        assert torch.equal(a.loss, b.loss)
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


@every
def test_eval_and_encode_change_nothing(config: QuantizerConfig) -> None:
    for quantizer in (trained(config), build_quantizer(config).eval()):
        before = copy.deepcopy(quantizer.state_dict())
        quantizer(latents(9))
        quantizer.train().encode(latents(9))
        for name, tensor in quantizer.state_dict().items():
            assert torch.equal(tensor, before[name])


@every
def test_memory_order_does_not_matter(config: QuantizerConfig) -> None:
    quantizer, z = trained(config), latents()
    a, b = quantizer(z), quantizer(z.contiguous(memory_format=torch.channels_last))
    assert torch.equal(a.values, b.values)
    assert torch.equal(a.codes, b.codes)


@every
def test_codes_nobody_wrote_are_refused(config: QuantizerConfig) -> None:
    quantizer = trained(config)
    codes = quantizer.encode(latents())
    size = quantizer.alphabet[0]
    for wrong in (size, -1, 2**40):
        bad = codes.clone()
        bad[0, 0, 0, 0] = wrong
        with pytest.raises(CodeRangeError, match=f"plane 0 holds code {wrong}, but its alphabet is 0..{size - 1}"):
            quantizer.decode(bad)
    for bad in (codes[:, 0], torch.cat([codes, codes], dim=1), codes[:, :0]):
        with pytest.raises(CodeRangeError, match="codes have the shape"):
            quantizer.decode(bad)
    assert quantizer.decode(codes[:0]).shape == (0, 6, 5, 3)


def test_perplexity_counts_what_is_used_evenly() -> None:
    assert float(perplexity(torch.full((40,), 7))) == pytest.approx(40)
    assert float(perplexity(torch.tensor([0, 9, 0]))) == pytest.approx(1)
    assert float(perplexity(torch.zeros(5, dtype=torch.int64))) == 1
    assert float(perplexity(torch.tensor([3, 3, 0, 0]))) == pytest.approx(2)
    assert float(perplexity(torch.tensor([1, 3]))) == pytest.approx(4 / 3**0.75)
