"""Muon against a singular value decomposition, against torch's own, and AdamW for what is no matrix."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from smalti.config.optimizer import OptimizerConfig
from smalti.optim.build import build_optimizer, descend
from smalti.optim.muon import Muon, orthogonal, split


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 6)
        self.kernel = nn.Conv1d(6, 4, 3, padding=1)
        self.out = nn.Linear(4, 9, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.kernel(self.embedding(x).transpose(1, 2))).transpose(1, 2))


def network() -> Network:
    torch.manual_seed(1)
    return Network()


def batch() -> torch.Tensor:
    return torch.randint(5, (7, 8))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([1e-4, 1.0, 1e4]))
def test_it_is_the_product_of_the_singular_vectors(rows: int, columns: int, seed: int, scale: float) -> None:
    noise = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    left, values, right = torch.linalg.svd(noise, full_matrices=False)
    values = values.clamp(min=0.1 * float(values.max()))  # smaller ones take more than five iterations
    found = orthogonal(scale * (left * values) @ right)
    assert found.shape == noise.shape
    inside = left.T @ found @ right.T
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=1e-6)
    assert float(inside.diagonal().min()) > 0.6
    assert float(inside.diagonal().max()) < 1.3


def test_of_nothing_it_is_nothing() -> None:
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has none of its own")
def test_matrices_take_the_steps_of_torchs_own() -> None:
    torch.manual_seed(1)
    ours, theirs = (nn.Linear(12, 20, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    before = ours.weight.detach().clone()
    left = Muon([ours.weight], [], 0.01, (0.9, 0.99), 0.1, torch.bfloat16)
    right = torch.optim.Muon([theirs.weight], 0.01, 0.1, 0.9, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        x = torch.randn(64, 12)
        for module, optimizer in ((ours, left), (theirs, right)):
            optimizer.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()
    # Momentum is a sum here and a mean there, which the scale of the iteration takes away but for rounding.
    ended = ours.weight.detach()
    assert float((ended - theirs.weight.detach()).norm()) < 0.05 * float((ended - before).norm())


def test_all_others_take_the_steps_of_adamw() -> None:
    ours = network()
    before = copy.deepcopy(ours)
    numbers = OptimizerConfig("muon", 0.01, 0.6, 0.95, weight_decay=0.1)
    left = build_optimizer(ours, numbers)
    theirs = copy.deepcopy(ours)
    right = torch.optim.AdamW([theirs.embedding.weight, theirs.kernel.bias], 0.01, (0.6, 0.95), weight_decay=0.1)
    for _ in range(5):
        descend(left, ours(batch()).square().mean())
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            b.grad = None if a.grad is None else a.grad.clone()
        right.step()
    assert torch.allclose(ours.embedding.weight, theirs.embedding.weight, rtol=1e-5, atol=1e-6)
    assert torch.allclose(ours.kernel.bias, theirs.kernel.bias, rtol=1e-5, atol=1e-6)
    assert all(not torch.equal(a, b) for a, b in zip(ours.parameters(), before.parameters(), strict=True))


def test_a_step_is_as_large_as_one_of_adamw() -> None:
    module = nn.Linear(64, 32, bias=False)
    before = module.weight.detach().clone()
    optimizer = build_optimizer(module, OptimizerConfig("muon", 0.01))
    descend(optimizer, (module.weight * torch.randn(32, 64)).sum())
    size = (module.weight.detach() - before).square().mean().sqrt()
    assert 0.8 * 0.2 * 0.01 < float(size) < 1.2 * 0.2 * 0.01


def test_kernels_and_linear_weights_are_matrices() -> None:
    module = network()
    matrices, others = split(module)
    assert {id(p) for p in matrices} == {id(module.kernel.weight), id(module.out.weight)}
    assert {id(p) for p in others} == {id(module.embedding.weight), id(module.kernel.bias)}


def test_a_weight_that_is_computed_from_a_matrix_is_one_and_is_left_as_it_is() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
    before = copy.deepcopy(layer.state_dict())
    matrices, others = split(nn.Sequential(layer))
    assert [id(p) for p in matrices] == [id(layer.parametrizations.weight.original)]
    assert [id(p) for p in others] == [id(layer.bias)]
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_what_has_no_gradient_stays() -> None:
    module = network()
    module.out.requires_grad_(False)
    before = module.out.weight.detach().clone()
    descend(build_optimizer(module, OptimizerConfig("muon", weight_decay=1.0)), module(batch()).square().mean())
    assert torch.equal(module.out.weight, before)


def test_it_goes_on_from_its_state_as_if_nothing_had_been() -> None:
    whole, first, second = network(), network(), network()
    numbers, batches = OptimizerConfig("muon", 0.01), [batch() for _ in range(4)]
    optimizer = build_optimizer(whole, numbers)
    for x in batches:
        descend(optimizer, whole(x).square().mean())
    optimizer = build_optimizer(first, numbers)
    for x in batches[:2]:
        descend(optimizer, first(x).square().mean())
    second.load_state_dict(first.state_dict())
    resumed = build_optimizer(second, numbers)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for x in batches[2:]:
        descend(resumed, second(x).square().mean())
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
