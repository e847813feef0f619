"""Layouts, masks and freezing, for every quantizer."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from variants import VARIANTS, latents, vector_layer

from smalti.config.quantizer import QuantizerConfig
from smalti.errors import ConfigError, NonFiniteError
from smalti.quantize import (
    BinaryQuantizer,
    ProductQuantizer,
    Quantized,
    Quantizer,
    ResidualQuantizer,
    ScalarQuantizer,
    SimVectorQuantizer,
    VectorQuantizer,
    build_quantizer,
)
from smalti.quantize.grouped import GroupedVectorQuantizer

every = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
LONG, LENGTH = 19, 12  # positions of a padded sequence, and those of each example that count


def built(config: QuantizerConfig, *, channel_last: bool = False) -> Quantizer:
    torch.manual_seed(0)
    quantizer = build_quantizer(config)
    quantizer.channel_last = channel_last
    return quantizer


def sequences(config: QuantizerConfig, seed: int, *, batch: int = 4, length: int = LENGTH) -> Tensor:
    return latents(config, seed, batch=batch, height=1, width=length)[:, :, 0]


def padded(z: Tensor, mask: Tensor, filling: float) -> Tensor:
    """The latents of (B, D, T), in order, where the (B, L) mask is true."""
    wide = torch.full((len(z), mask.shape[1], z.shape[1]), filling)
    wide[mask] = z.transpose(1, 2).flatten(0, 1)
    return wide.transpose(1, 2)


def some_of_each(seed: int, *, batch: int = 4) -> Tensor:
    """(B, LONG) bool, true at LENGTH random positions of each example."""
    numbers = torch.rand(batch, LONG, generator=torch.Generator().manual_seed(seed))
    return numbers.argsort(dim=1).argsort(dim=1) < LENGTH


def felt(values: Tensor) -> Tensor:
    return torch.randn(values.shape, generator=torch.Generator().manual_seed(1))


def same(a: Quantizer, b: Quantizer) -> None:
    for (name, one), (_, other) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(one, other), name


@every
@pytest.mark.parametrize("grid", [(), (12,), (3, 4), (2, 3, 2), (2, 1, 3, 2)], ids=str)
def test_a_grid_has_any_number_of_axes(config: QuantizerConfig, grid: tuple[int, ...]) -> None:
    flat, shaped, last = built(config), built(config), built(config, channel_last=True)
    for step in range(2):
        z = sequences(config, step, batch=4 if grid else 48, length=math.prod(grid))
        expected = flat(z if grid else z[..., 0])
        z = z.unflatten(2, grid) if grid else z[..., 0]
        values, codes, loss = shaped(z)
        assert values.shape == z.shape
        assert codes.shape == (len(z), len(config.codebook_sizes), *grid)
        assert torch.equal(values.flatten(1), expected.values.flatten(1))
        assert torch.equal(codes.flatten(1), expected.codes.flatten(1))
        assert torch.equal(loss, expected.loss)
        found = last(z.movedim(1, -1))
        assert torch.equal(found.values, values.movedim(1, -1))
        assert torch.equal(found.codes, codes.movedim(1, -1))
        assert found.codes.is_contiguous()
        assert torch.equal(found.loss, loss)
    for quantizer in (shaped, last):
        same(quantizer, flat)
        quantizer.eval()
    codes = shaped.encode(z)
    assert torch.equal(last.encode(z.movedim(1, -1)), codes.movedim(1, -1))
    assert torch.equal(last.decode(codes.movedim(1, -1)), shaped.decode(codes).movedim(1, -1))
    torch.testing.assert_close(shaped.decode(codes), shaped(z).values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VectorQuantizer(8, 6, channel_last=True),
        lambda: SimVectorQuantizer(8, 6, channel_last=True),
        lambda: ScalarQuantizer((3,) * 6, channel_last=True),
        lambda: BinaryQuantizer(6, channel_last=True),
        lambda: ResidualQuantizer(VectorQuantizer(8, 6), 2, channel_last=True),
        lambda: ProductQuantizer([VectorQuantizer(8, 3) for _ in range(2)], channel_last=True),
        lambda: GroupedVectorQuantizer(8, 6, 2, channel_last=True),
    ],
)
def test_every_constructor_takes_channel_last(make) -> None:
    quantizer, z = make(), torch.randn(2, 10, 6)
    assert isinstance(quantizer(z), Quantized)
    codes = quantizer.eval().encode(z)
    assert codes.shape == (2, 10, len(quantizer.codebook_sizes))
    assert quantizer.decode(codes).shape == z.shape
    with pytest.raises(ConfigError, match=r"latents have 10 channels, but .* takes 6 channels: \(B, \*grid, 6\)"):
        quantizer(z.mT)


def test_a_prefix_of_the_stages_is_decoded_in_both_layouts() -> None:
    first = ResidualQuantizer([VectorQuantizer(8, 6) for _ in range(3)])
    first(torch.randn(4, 6, 9))
    last = copy.deepcopy(first)
    last.channel_last = True
    codes = first.encode(torch.randn(2, 6, 5))
    assert torch.equal(last.decode_prefix(codes.mT, 2), first.decode_prefix(codes, 2).mT)


@every
@pytest.mark.parametrize("channel_last", [False, True])
def test_a_masked_batch_is_the_batch_without_its_padding(config: QuantizerConfig, channel_last: bool) -> None:
    compact, masked = built(config), built(config, channel_last=channel_last)
    move = (lambda x: x.mT) if channel_last else (lambda x: x)
    for step in range(4):
        learning = step < 3
        mask = some_of_each(step)
        z = sequences(config, step)
        wide = padded(z, mask, [0.0, 7.0, math.nan, math.inf][step])
        z, wide = z.requires_grad_(), move(wide).requires_grad_()
        expected, found = compact.train(learning)(z), masked.train(learning)(wide, mask=mask)
        for quantizer, result in ((compact, expected), (masked, found)):
            # Other numbers where nothing counts, which reach nobody.
            weights = felt(expected.values)
            if result is found:
                weights = move(padded(weights, mask, 3.0))
            quantizer.zero_grad()
            ((result.values * weights).sum() + result.loss).backward()
        assert torch.equal(found.loss, expected.loss)
        assert torch.equal(move(found.values).mT[mask], expected.values.mT.flatten(0, 1))
        assert torch.equal(move(found.codes).mT[mask], expected.codes.mT.flatten(0, 1))
        assert not move(found.values).mT[~mask].any()
        assert not move(found.codes).mT[~mask].any()
        torch.testing.assert_close(move(wide.grad).mT[mask], z.grad.mT.flatten(0, 1), rtol=0, atol=0)
        assert not move(wide.grad).mT[~mask].any()
        for (name, one), (_, other) in zip(compact.named_parameters(), masked.named_parameters(), strict=True):
            assert (one.grad is other.grad is None) or torch.equal(one.grad, other.grad), name
        same(compact, masked)
    assert torch.equal(masked.encode(wide.detach(), mask=mask), found.codes)


@every
def test_sequences_may_differ_in_length(config: QuantizerConfig) -> None:
    """A mask of unequal lengths gives what all valid latents give as one sequence."""
    if getattr(config, "dropout", 0):
        pytest.skip("which stages are dropped depends on the example")
    one, masked = built(config), built(config)
    lengths = torch.tensor([LONG, 3, 0, 11, 1])
    mask = torch.arange(LONG) < lengths[:, None]
    for step in range(3):
        z = sequences(config, step, batch=1, length=int(lengths.sum())).mT.contiguous().mT
        wide = torch.full((5, LONG, config.dimension), 9.0)
        wide[mask] = z[0].T
        expected, found = one(z), masked(wide.mT, mask=mask)
        assert torch.equal(found.loss, expected.loss)
        assert torch.equal(found.codes.mT[mask], expected.codes[0].T)
        same(one, masked)


def test_dropout_keeps_to_whole_examples_of_any_length() -> None:
    config = VARIANTS["residual-dropout"]
    quantizer = built(config)
    mask = torch.arange(LONG) < torch.randint(1, LONG, (200, 1), generator=torch.Generator().manual_seed(0))
    z = sequences(config, 3, batch=200, length=LONG)
    quantizer(z, mask=mask)
    before = copy.deepcopy(quantizer)
    values, codes, _ = quantizer(z, mask=mask)
    prefixes = torch.stack([before.decode_prefix(codes, depth) for depth in (1, 2, 3, 4)])
    gaps = (prefixes - values).masked_fill(~mask[:, None], 0).abs().amax(dim=(2, 3))
    assert float(gaps.amin(dim=0).max()) < 1e-5
    shares = torch.bincount(gaps.argmin(dim=0), minlength=4) / 200
    torch.testing.assert_close(shares, torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2]), rtol=0, atol=0.12)


@every
def test_a_full_mask_is_no_mask_and_an_empty_one_no_step(config: QuantizerConfig) -> None:
    masked, plain = built(config), built(config)
    for step in range(3):
        z = latents(config, step, batch=4)
        full = torch.ones(4, 5, 3, dtype=torch.bool)
        found, expected = masked(z, mask=full), plain(z)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        poisoned = torch.full_like(z, math.nan).requires_grad_()
        nothing = masked(poisoned, mask=~full)
        (nothing.values.sum() + nothing.loss).backward()
        assert not poisoned.grad.any()
        assert float(nothing.loss.detach()) == 0
        assert not nothing.values.any()
        same(masked, plain)
    nothing = masked.eval()(poisoned, mask=~full)
    assert float(nothing.loss.detach()) == 0


@every
def test_padding_may_be_anything_and_the_rest_must_be_finite(config: QuantizerConfig) -> None:
    quantizer = built(config)
    z, mask = sequences(config, 0), torch.ones(4, LENGTH, dtype=torch.bool)
    quantizer(z)
    z[0, 0, 3] = z[1, 0, 4] = math.nan
    mask[0, 3] = False
    with pytest.raises(NonFiniteError, match="hold 1 values"):
        quantizer.encode(z, mask=mask)
    assert quantizer(z, mask=mask).loss.isnan()
    mask[1, 4] = False
    assert quantizer(z, mask=mask).loss.isfinite()
    codes = quantizer.encode(z, mask=mask)
    assert not codes[0, :, 3].any()
    quantizer.decode(codes)


def test_a_mask_that_does_not_fit_is_refused() -> None:
    quantizer, z = VectorQuantizer(8, 6), torch.randn(2, 6, 5)
    for wrong in (torch.ones(2, 5), torch.ones(2, 6, 5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)):
        for call in (quantizer, quantizer.encode):
            with pytest.raises(ConfigError, match=r"take a bool of the shape \(2, 5\), true where a latent counts"):
                call(z, mask=wrong)


@pytest.mark.parametrize("name", ["vector-ema", "vector-gradient-kmeans-normalize", "residual", "product-vector"])
def test_codes_are_placed_for_what_the_mask_keeps(name: str) -> None:
    config = VARIANTS[name]
    compact, masked = built(config), built(config)
    z, mask = sequences(config, 0, batch=40), some_of_each(0, batch=40)
    compact.fit(z, latents_per_step=20)
    masked.fit(padded(z, mask, math.nan), latents_per_step=20, mask=mask)
    same(compact, masked)


@every
def test_a_frozen_quantizer_stays_as_it_is(config: QuantizerConfig) -> None:
    quantizer, twin = built(config), built(config)
    for step in range(2):
        quantizer(latents(config, step))
        twin(latents(config, step))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1)), *quantizer.parameters()], 0.5, weight_decay=0.1)
    quantizer.freeze()
    before = copy.deepcopy(quantizer.state_dict())
    for step in range(3):
        z = latents(config, 5 + step).requires_grad_()
        result = quantizer.train()(z)
        expected = twin.eval()(latents(config, 5 + step))
        assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))
        (result.values.square().sum() + result.loss).backward()
        assert (z.grad != 0).any()
        optimizer.step()
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    with pytest.raises(ConfigError, match="frozen quantizer cannot be fitted"):
        quantizer.fit(latents(config), latents_per_step=1)
    quantizer.unfreeze()
    assert all(parameter.requires_grad for parameter in quantizer.parameters())
    a, b = quantizer(latents(config, 9)), twin.train()(latents(config, 9))
    assert torch.equal(a.values, b.values)
    same(quantizer, twin)


@every
def test_the_loss_of_a_frozen_quantizer_pulls_the_latents(config: QuantizerConfig) -> None:
    quantizer, z = built(config), latents(config).requires_grad_()
    quantizer(latents(config, 1))
    quantizer.freeze()
    loss = quantizer(z).loss
    layer = getattr(config, "layer", config)
    if layer.name == "scalar" or getattr(vector_layer(config), "gradient", "") == "diveq":
        assert float(loss.detach()) == 0
        return
    loss.backward()
    assert (z.grad != 0).any(dim=1).all()


def test_a_parameter_without_a_gradient_has_none_after_unfreezing() -> None:
    quantizer = ProductQuantizer([VectorQuantizer(8, 3, update="gradient") for _ in range(2)])
    quantizer.layers[0].codebook.requires_grad_(False)
    quantizer.freeze()
    quantizer.freeze()
    assert not any(parameter.requires_grad for parameter in quantizer.parameters())
    quantizer.unfreeze()
    assert [layer.codebook.requires_grad for layer in quantizer.layers] == [False, True]
