"""Laws that every quantizer keeps; a new one is checked as soon as it stands among the variants."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from variants import VARIANTS, latents, vector_layer

from smalti.config.parse import from_plain, to_plain
from smalti.config.quantizer import QuantizerConfig, ResidualConfig, ScalarConfig
from smalti.errors import CodeRangeError, ConfigError, NonFiniteError
from smalti.quantize import QUANTIZERS, Quantizer, build_quantizer, perplexity

every = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def built(config: QuantizerConfig) -> Quantizer:
    torch.manual_seed(0)  # maps and projections begin at random, as any layer of torch
    return build_quantizer(config)


def trained(config: QuantizerConfig) -> Quantizer:
    quantizer = built(config)
    for seed in range(3):
        quantizer(latents(config, seed + 10))
    return quantizer.eval()


def same_state(a: Quantizer, b: dict[str, Tensor]) -> bool:
    state = a.state_dict()
    return state.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in state.items())


def test_every_kind_is_among_the_variants() -> None:
    assert {config.name for config in VARIANTS.values()} == set(QUANTIZERS)


@every
def test_a_configuration_describes_its_quantizer(config: QuantizerConfig) -> None:
    quantizer = built(config)
    assert quantizer.dimension == config.dimension
    assert quantizer.codebook_sizes == config.codebook_sizes
    assert from_plain(type(config), to_plain(config)) == config


@every
@pytest.mark.parametrize("training", [False, True])
def test_shapes_types_and_alphabet(config: QuantizerConfig, training: bool) -> None:
    quantizer = trained(config).train(training)
    for batch, height, width in [(2, 5, 3), (1, 1, 1), (3, 2, 8)]:
        result = quantizer(latents(config, batch=batch, height=height, width=width))
        assert result.values.shape == (batch, config.dimension, height, width)
        assert result.values.dtype == torch.float32
        assert result.codes.shape == (batch, len(quantizer.codebook_sizes), height, width)
        assert result.codes.dtype == torch.int64
        assert result.codes.is_contiguous()
        assert result.loss.shape == ()
        assert result.loss.dtype == torch.float32
        for plane, size in enumerate(quantizer.codebook_sizes):
            assert 0 <= int(result.codes[:, plane].min()) <= int(result.codes[:, plane].max()) < size


@every
def test_decoding_the_codes_gives_the_values(config: QuantizerConfig) -> None:
    quantizer, z = trained(config), latents(config)
    result = quantizer(z)
    assert torch.equal(quantizer.encode(z), result.codes)
    torch.testing.assert_close(quantizer.decode(result.codes), result.values, rtol=1e-6, atol=1e-6)


@every
def test_codes_of_decoded_codes_are_the_codes(config: QuantizerConfig) -> None:
    layer = vector_layer(config)
    if isinstance(config, ResidualConfig) or (layer is not None and layer.projection is not None):
        pytest.skip("a sum of several codes, or a projected code, may lie nearer to others")
    if isinstance(getattr(config, "layer", config), ScalarConfig):
        pytest.skip("the tanh before the rounding is not undone by decoding")
    quantizer = trained(config)
    values = quantizer.decode(quantizer.encode(latents(config)))
    torch.testing.assert_close(quantizer.decode(quantizer.encode(values)), values, rtol=1e-6, atol=1e-6)


@every
@pytest.mark.parametrize("training", [False, True])
def test_a_gradient_reaches_the_latents(config: QuantizerConfig, training: bool) -> None:
    quantizer, z = trained(config).train(training), latents(config).requires_grad_()
    result = quantizer(z)
    weights = torch.randn(result.values.shape, generator=torch.Generator().manual_seed(1))
    (result.values * weights).sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert float(z.grad.abs().mean()) > 1e-3
    layer = vector_layer(config)
    plain = config.name == "simvq" or (layer is not None and layer.projection is None and not layer.normalize)
    straight = getattr(getattr(config, "layer", config), "gradient", "") == "straight-through"
    if plain and straight and not (training and getattr(config, "dropout", 0)):
        torch.testing.assert_close(z.grad, weights)


@every
def test_the_commitment_pulls_every_latent(config: QuantizerConfig) -> None:
    quantizer, z = trained(config), latents(config).requires_grad_()
    result = quantizer(z)
    layer = getattr(config, "layer", config)
    if isinstance(layer, ScalarConfig) or getattr(layer, "gradient", "") == "diveq":
        assert float(result.loss.detach()) == 0
        return
    result.loss.backward()
    assert z.grad.isfinite().all()
    assert (z.grad.abs().amax(dim=1) > 0).all()


@every
def test_all_parameters_learn(config: QuantizerConfig) -> None:
    quantizer = trained(config).train()
    result = quantizer(latents(config).requires_grad_())
    (result.values.square().sum() + result.loss).backward()
    for name, parameter in quantizer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert float(parameter.grad.abs().max()) > 0, name


@every
def test_float32_inside_autocast(config: QuantizerConfig) -> None:
    quantizer, z = trained(config), latents(config)
    expected = quantizer(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer(z)
        codes = quantizer.encode(z)
        values = quantizer.decode(codes)
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(codes, expected.codes)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(values, quantizer.decode(codes))
    assert quantizer(z.bfloat16()).values.dtype == torch.float32


@every
def test_training_in_bfloat16_stays_finite(config: QuantizerConfig) -> None:
    quantizer = built(config)
    scale = torch.nn.Parameter(torch.tensor(30.0))
    for seed in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = quantizer((latents(config, seed) * scale).bfloat16())
        (result.values.square().mean() + result.loss).backward()
        assert result.values.isfinite().all()
        assert scale.grad is not None
        assert scale.grad.isfinite()
        assert all(tensor.isfinite().all() for tensor in quantizer.state_dict().values())


@every
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e-6, 1e12])
def test_gradients_are_finite_at_any_size_of_latents(config: QuantizerConfig, scale: float) -> None:
    quantizer = built(config)
    z = (latents(config) * scale).requires_grad_()
    for _ in range(2):
        result = quantizer(z)
        (result.values.sum() + result.loss).backward()
    assert result.values.isfinite().all()
    assert z.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in quantizer.parameters())


@every
def test_save_and_load_is_the_identity(config: QuantizerConfig) -> None:
    quantizer = trained(config).train()
    other = built(config)
    other.load_state_dict(copy.deepcopy(quantizer.state_dict()))
    for _ in range(2):
        a, b = quantizer(latents(config, 5)), other(latents(config, 5))
        assert torch.equal(a.values, b.values)
        assert torch.equal(a.loss, b.loss)
    assert same_state(quantizer, other.state_dict())


@every
def test_a_quantizer_without_memory_takes_a_state(config: QuantizerConfig) -> None:
    quantizer = trained(config)
    with torch.device("meta"):
        other = build_quantizer(config)
    other.load_state_dict(quantizer.state_dict(), strict=True, assign=True)
    other.eval()
    assert torch.equal(other(latents(config)).values, quantizer(latents(config)).values)
    assert torch.equal(other.decode(other.encode(latents(config))), quantizer.decode(quantizer.encode(latents(config))))


@every
def test_training_does_not_touch_the_global_generator(config: QuantizerConfig) -> None:
    quantizer = trained(config).train()
    before = torch.get_rng_state()
    quantizer(latents(config))
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_eval_and_encode_change_nothing(config: QuantizerConfig) -> None:
    for quantizer in (trained(config), built(config).eval()):
        before = copy.deepcopy(quantizer.state_dict())
        quantizer(latents(config, 9))
        quantizer.train().encode(latents(config, 9))
        assert same_state(quantizer, before)


@every
def test_memory_order_does_not_matter(config: QuantizerConfig) -> None:
    quantizer, z = trained(config), latents(config)
    a, b = quantizer(z), quantizer(z.contiguous(memory_format=torch.channels_last))
    assert torch.equal(a.values, b.values)
    assert torch.equal(a.codes, b.codes)


@every
def test_codes_nobody_wrote_are_refused(config: QuantizerConfig) -> None:
    quantizer = trained(config)
    codes = quantizer.encode(latents(config))
    for plane, size in enumerate(quantizer.codebook_sizes):
        for wrong in (size, -1, 2**40):
            bad = codes.clone()
            bad[0, plane, 0, 0] = wrong
            expected = f"plane {plane} holds code {wrong}, but its alphabet is 0..{size - 1}"
            with pytest.raises(CodeRangeError, match=expected):
                quantizer.decode(bad)
    for bad in (codes[:, 0], torch.cat([codes, codes], dim=1), codes[:, :0]):
        with pytest.raises(CodeRangeError, match="codes have the shape"):
            quantizer.decode(bad)
    assert quantizer.decode(codes[:0]).shape == (0, config.dimension, 5, 3)


@every
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_latents_that_are_not_finite_are_never_silent(config: QuantizerConfig, poison: float) -> None:
    quantizer, z = trained(config), latents(config)
    z[1, 0, 2, 1] = z[0, 1, 0, 0] = poison
    message = rf"hold 2 values that are not finite .* of {z.numel()}; check"
    assert quantizer(z).loss.isnan(), "forward reads no values"
    for training in (False, True):
        with pytest.raises(NonFiniteError, match=message):
            quantizer.train(training).encode(z)
    # In training the loss says so, in the step itself, so that the loop can go back together with all its ranks.
    result = quantizer.train()(z)
    assert result.loss.isnan()
    for plane, size in enumerate(quantizer.codebook_sizes):
        assert 0 <= int(result.codes[:, plane].min()) <= int(result.codes[:, plane].max()) < size
    # Who skips such a step goes on with a good codebook.
    assert all(tensor.isfinite().all() for tensor in quantizer.state_dict().values())
    assert quantizer(latents(config)).loss.isfinite()


@every
def test_large_numbers_are_finite_numbers(config: QuantizerConfig) -> None:
    assert trained(config).encode(torch.full((2, config.dimension, 5, 3), 3e38)).shape[0] == 2


@every
def test_another_number_of_channels_is_refused(config: QuantizerConfig) -> None:
    quantizer, size = built(config), config.dimension
    for wrong in (size + 1, 2 * size):
        with pytest.raises(ConfigError, match=f"latents have {wrong} channels, but this quantizer takes {size}"):
            quantizer(torch.zeros(2, wrong, 2, 2))
        with pytest.raises(ConfigError, match=f"latents have {wrong} channels"):
            quantizer.encode(torch.zeros(2, wrong, 2, 2))
    with pytest.raises(ConfigError, match=r"latents have the shape \(\d+,\)"):
        quantizer(torch.zeros(size))


def test_perplexity_counts_what_is_used_evenly() -> None:
    assert float(perplexity(torch.full((40,), 7))) == pytest.approx(40)
    assert float(perplexity(torch.tensor([0, 9, 0]))) == pytest.approx(1)
    assert float(perplexity(torch.zeros(5, dtype=torch.int64))) == 1
    assert float(perplexity(torch.tensor([3, 3, 0, 0]))) == pytest.approx(2)
    assert float(perplexity(torch.tensor([1, 3]))) == pytest.approx(4 / 3**0.75)
