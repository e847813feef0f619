"""Quantizers with fixed or frozen codes against numpy, and against vector_quantize_pytorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smalti.errors import ConfigError
from smalti.quantize import BinaryQuantizer, ScalarQuantizer, SimVectorQuantizer

LEVELS = [(2,), (3,), (8, 8, 8), (8, 6, 5), (7, 5, 5, 5, 5), (256, 2)]


def latents(channels: int, *, seed: int = 0, scale: float = 1.5) -> Tensor:
    return scale * torch.randn(3, channels, 6, 7, generator=torch.Generator().manual_seed(seed))


def rows_of(z: Tensor) -> np.ndarray:
    return np.moveaxis(z.detach().double().numpy(), 1, -1).reshape(-1, z.shape[1])


def peers() -> Any:
    return pytest.importorskip("vector_quantize_pytorch")


# Finite scalars


@pytest.mark.parametrize("levels", LEVELS)
def test_scalars_are_their_formula(levels: tuple[int, ...]) -> None:
    quantizer = ScalarQuantizer(levels)
    z = latents(len(levels))
    result = quantizer(z)
    rows = rows_of(z)
    codes, place = np.zeros(len(rows), dtype=np.int64), 1
    for d, count in enumerate(levels):
        half = (count - 1) * 1.001 / 2
        offset = 0.5 if count % 2 == 0 else 0.0
        level = np.round(half * np.tanh(rows[:, d] + np.arctanh(offset / half)) - offset)
        assert set(level) <= set(range(-(count // 2), (count - 1) // 2 + 1))
        np.testing.assert_allclose(rows_of(result.values)[:, d], level / (count // 2), rtol=1e-6)
        codes += (level.astype(np.int64) + count // 2) * place
        place *= count
    assert np.array_equal(result.codes.view(-1).numpy(), codes)
    assert float(result.loss) == 0


@pytest.mark.parametrize("levels", [levels for levels in LEVELS if 2 not in levels])  # theirs takes 3 or more
def test_scalars_are_those_of_vector_quantize_pytorch(levels: tuple[int, ...]) -> None:
    theirs, z = peers().FSQ(list(levels), channel_first=True), latents(len(levels), seed=1)
    expected, codes = theirs(z)
    ours = ScalarQuantizer(levels)(z)
    torch.testing.assert_close(ours.values, expected, rtol=0, atol=1e-6)
    assert torch.equal(ours.codes[:, 0], codes.long())


def test_every_scalar_code_can_be_reached_and_decoded() -> None:
    quantizer = ScalarQuantizer((5, 4, 3))
    codes = torch.arange(60).view(1, 1, 6, 10)
    values = quantizer.decode(codes)
    assert len({tuple(row) for row in rows_of(values).round(6).tolist()}) == 60
    assert torch.equal(quantizer.encode_rows(quantizer._rows(values)), torch.arange(60)[:, None])
    everywhere = torch.cartesian_prod(*[torch.linspace(-4, 4, 30)] * 3)
    assert len(quantizer.encode(everywhere.T[None, :, :, None]).unique()) == 60


def test_the_gradient_of_scalars_is_that_of_the_bound() -> None:
    z = latents(2).requires_grad_()
    ScalarQuantizer((5, 8))(z).values.sum().backward()
    for channel, (count, offset) in enumerate([(5, 0.0), (8, 0.5)]):
        half = (count - 1) * 1.001 / 2
        inner = rows_of(z)[:, channel] + np.arctanh(offset / half)
        expected = half * (1 - np.tanh(inner) ** 2) / (count // 2)
        np.testing.assert_allclose(rows_of(z.grad)[:, channel], expected, rtol=1e-3, atol=1e-6)


@settings(max_examples=50)
@given(st.lists(st.integers(2, 16), min_size=1, max_size=5).map(tuple), st.floats(0, 1e30), st.integers(0, 99))
def test_scalar_codes_lie_in_their_alphabet(levels: tuple[int, ...], scale: float, seed: int) -> None:
    quantizer = ScalarQuantizer(levels).eval()
    z = latents(len(levels), seed=seed, scale=scale)
    result = quantizer(z)
    assert 0 <= int(result.codes.min()) <= int(result.codes.max()) < quantizer.codebook_sizes[0]
    assert float(result.values.abs().max()) <= 1
    assert torch.equal(quantizer.decode(result.codes), result.values)


@pytest.mark.parametrize(
    ("levels", "message"),
    [((), "has 0 numbers"), ((1, 8), "is 1, but must be from 2"), ((257,), "is 257"), ((2,) * 17, "has 17 numbers"),
     ((256,) * 3, "levels make 16,777,216 codes, but may make 1,048,576"), ((8, 2.5), "must be a list of int")],
)  # fmt: skip
def test_levels_that_do_not_fit_are_named(levels: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScalarQuantizer(levels)


# Signs


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize("bits", [1, 6, 20])
def test_signs_are_their_formula(bits: int, spherical: bool) -> None:
    quantizer = BinaryQuantizer(bits, spherical=spherical, entropy=0.0)
    z = latents(bits)
    result = quantizer(z)
    rows = rows_of(z)
    values = np.where(rows > 0, 1.0, -1.0) / (np.sqrt(bits) if spherical else 1)
    np.testing.assert_allclose(rows_of(result.values), values, rtol=1e-6)
    assert np.array_equal(result.codes.view(-1).numpy(), (rows > 0) @ (2 ** np.arange(bits)))
    bounded = rows / np.linalg.norm(rows, axis=1)[:, None] if spherical else rows
    assert float(result.loss) == pytest.approx(0.25 * ((bounded - values) ** 2).mean(), rel=1e-4)


@pytest.mark.parametrize("spherical", [True, False])
def test_signs_are_those_of_vector_quantize_pytorch(spherical: bool) -> None:
    peer = peers().LFQ(
        codebook_size=2**6, dim=6, spherical=spherical, entropy_loss_weight=0.1, commitment_loss_weight=0.25
    )
    z = latents(6, seed=2)
    theirs, loss = peer(z, return_loss_breakdown=True, inv_temperature=1.0)
    ours = BinaryQuantizer(6, spherical=spherical)(z)
    torch.testing.assert_close(ours.values, theirs[0], rtol=0, atol=1e-6)
    reverse = sum(((ours.codes[:, 0] >> bit) & 1) << (5 - bit) for bit in range(6))  # theirs begins with the high bit
    assert torch.equal(reverse, theirs[1])
    assert float(ours.loss) == pytest.approx(float(theirs[2]), rel=1e-4)
    assert float(loss.per_sample_entropy) > 0


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 7, 10])
def test_the_entropy_term_is_that_of_all_codes(bits: int, spherical: bool) -> None:
    quantizer = BinaryQuantizer(bits, spherical=spherical, commitment=0.0, entropy=0.5, inverse_temperature=1.3)
    z = latents(bits)
    rows = rows_of(z)
    rows = rows / np.linalg.norm(rows, axis=1)[:, None] if spherical else rows
    book = np.array(list(itertools.product([-1.0, 1.0], repeat=bits))) / (np.sqrt(bits) if spherical else 1)
    scores = -1.3 * ((rows[:, None] - book[None]) ** 2).sum(axis=2)
    soft = np.exp(scores - scores.max(axis=1, keepdims=True))
    soft /= soft.sum(axis=1, keepdims=True)
    entropy = lambda p: -(p * np.log(np.maximum(p, 1e-300))).sum(axis=-1)  # noqa: E731
    expected = 0.5 * (entropy(soft).mean() - entropy(soft.mean(axis=0)))
    assert float(quantizer(z).loss) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_entropy_term_of_many_bits_is_a_sum_over_groups() -> None:
    z = latents(13)
    whole = BinaryQuantizer(13, spherical=False, commitment=0.0, entropy=1.0)(z).loss
    parts = [
        BinaryQuantizer(len(part[0]), spherical=False, commitment=0.0, entropy=1.0)(part).loss
        for part in z.tensor_split(2, dim=1)
    ]
    torch.testing.assert_close(whole, sum(parts))


def test_the_entropy_term_spreads_latents_over_the_codes() -> None:
    z = torch.nn.Parameter(0.1 * latents(4) + 1.0)  # all of one code
    quantizer = BinaryQuantizer(4, entropy=1.0, commitment=0.0)
    assert len(quantizer.encode(z).unique()) < 3
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        quantizer(z).loss.backward()
        optimizer.step()
    assert len(quantizer.encode(z).unique()) > 12


# SimVQ


def test_simvq_is_its_formula() -> None:
    torch.manual_seed(0)
    quantizer = SimVectorQuantizer(9, 4, commitment=0.3)
    z = latents(4).requires_grad_()
    result = quantizer(z)
    rows, weight = rows_of(z), quantizer.map.weight.detach().double().numpy()
    book = quantizer.frozen.double().numpy() @ weight.T
    chosen = ((rows[:, None] - book[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert np.array_equal(result.codes.view(-1).numpy(), chosen)
    np.testing.assert_allclose(rows_of(result.values), book[chosen], rtol=1e-4, atol=1e-5)
    gap = rows - book[chosen]
    assert float(result.loss.detach()) == pytest.approx(1.3 * (gap**2).mean(), rel=1e-4)
    result.loss.backward()
    expected = -2 * gap.T @ quantizer.frozen.double().numpy()[chosen] / gap.size
    np.testing.assert_allclose(quantizer.map.weight.grad.numpy(), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(rows_of(z.grad), 0.3 * 2 * gap / gap.size, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("turns", [False, True])
def test_simvq_is_that_of_vector_quantize_pytorch(turns: bool) -> None:
    torch.manual_seed(0)
    ours = SimVectorQuantizer(32, 6, gradient="rotation" if turns else "straight-through")
    theirs = peers().SimVQ(dim=6, codebook_size=32, channel_first=True, rotation_trick=turns)
    theirs.frozen_codebook.copy_(ours.frozen)
    theirs.code_transform.load_state_dict(ours.map.state_dict())
    a, b = latents(6).requires_grad_(), latents(6).requires_grad_()
    found, (values, codes, loss) = ours(a), theirs(b)
    assert torch.equal(found.codes[:, 0], codes)
    torch.testing.assert_close(found.values, values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.loss, loss)
    (found.values.square().sum() + found.loss).backward()
    (values.square().sum() + loss).backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)


def test_simvq_has_codes_of_about_unit_length_that_no_step_moves() -> None:
    quantizer = SimVectorQuantizer(4096, 64)
    assert float(quantizer.frozen.norm(dim=1).mean()) == pytest.approx(1, abs=0.01)
    assert [name for name, _ in quantizer.named_parameters()] == ["map.weight"]


@pytest.mark.parametrize("codes", [0, 1])
def test_simvq_has_two_codes_or_more(codes: int) -> None:
    with pytest.raises(ConfigError, match=f"codes is {codes}, but must be from 2"):
        SimVectorQuantizer(codes, 4)
