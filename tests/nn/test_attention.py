"""Attention against torch's own, on either side of the number of tokens where the way of computing it changes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.nn.attention import FEW_POSITIONS, SpatialAttention, attention


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tokens", [1, 4, FEW_POSITIONS, FEW_POSITIONS + 1, 100])
@pytest.mark.parametrize("width", [1, 8])
def test_attention_is_torchs_attention(tokens: int, width: int) -> None:
    theirs = [each.requires_grad_() for each in noise(3, 2, 3, tokens, width).unbind()]
    ours = [each.detach().clone().requires_grad_() for each in theirs]
    expected, found = F.scaled_dot_product_attention(*theirs), attention(*ours)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected.square().sum().backward()
    found.square().sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masks", [0, 1, 7])
def test_more_heads_than_a_launch_takes_go_in_several(monkeypatch: pytest.MonkeyPatch, masks: int) -> None:
    parts = noise(3, 7, 3, FEW_POSITIONS + 1, 4).unbind()
    mask = noise(masks, 1, FEW_POSITIONS + 1, FEW_POSITIONS + 1) > -1 if masks else None
    whole = attention(*parts, mask)
    monkeypatch.setattr("smalti.nn.attention.MOST_HEADS", 6)
    torch.testing.assert_close(attention(*parts, mask), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tokens", [4, 100])
def test_attention_is_its_formula(tokens: int) -> None:
    query, key, value = noise(3, 1, 2, tokens, 5).double()
    weights = torch.exp(query @ key.mT / 5**0.5)
    expected = weights @ value / weights.sum(dim=3, keepdim=True)
    torch.testing.assert_close(attention(query.float(), key.float(), value.float()), expected.float())


def random_places(width: int = 6) -> SpatialAttention:
    torch.manual_seed(0)
    module = SpatialAttention(width)
    torch.nn.init.normal_(module.merge.weight)
    return module


@pytest.mark.parametrize("shape", [(2, 6, 1, 1), (2, 6, 3, 5), (1, 6, 10, 9)])
def test_places_attend_as_torchs_layer_does(shape: tuple[int, ...]) -> None:
    module, x = random_places(), noise(*shape)
    layer = torch.nn.MultiheadAttention(6, 1, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.copy_(module.attend.weight.flatten(1))
        layer.in_proj_bias.copy_(module.attend.bias)
        layer.out_proj.weight.copy_(module.merge.weight.flatten(1))
        layer.out_proj.bias.copy_(module.merge.bias)
    places = module.norm(x).flatten(2).mT
    expected = x + layer(places, places, places, need_weights=False)[0].mT.view(shape)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


def test_places_have_no_order() -> None:
    module, x = random_places(), noise(2, 6, 4, 4)
    torch.testing.assert_close(module(x.mT.contiguous()), module(x).mT, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module(x.flip(2)), module(x).flip(2), rtol=1e-4, atol=1e-5)


def test_a_fresh_one_is_the_identity_and_learns() -> None:
    module, x = SpatialAttention(6), noise(2, 6, 3, 3)
    assert torch.equal(module(x), x)
    module(x).square().sum().backward()
    assert bool(module.merge.weight.grad.any())


def test_inside_autocast_it_is_finite_and_near() -> None:
    module, x = random_places(), noise(2, 6, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(x)
    torch.testing.assert_close(found.float(), module(x), rtol=0.1, atol=0.1)
