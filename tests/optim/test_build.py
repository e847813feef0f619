"""Each name takes the steps of torch's plain optimizer with the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from smalti.config.optimizer import OptimizerConfig
from smalti.optim.build import OPTIMIZERS, build_optimizer, descend, rate_factor

CONFIG = {"learning_rate": 0.01, "beta1": 0.6, "beta2": 0.95, "momentum": 0.7, "weight_decay": 0.1}
PLAIN: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.6, 0.95), weight_decay=0.1, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.6, 0.95), weight_decay=0.1, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.7, weight_decay=0.1, foreach=False),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.7, weight_decay=0.1, foreach=False),
}
OWN = {"muon"}  # tests/optim/test_muon.py


def network() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(4, 3)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - OWN))
def test_a_name_takes_the_steps_of_torchs_own(name: str) -> None:
    ours, theirs = network(), network()
    left, right = build_optimizer(ours, OptimizerConfig(name, **CONFIG)), PLAIN[name](theirs.parameters())
    for _ in range(5):
        x = torch.randn(6, 4)
        descend(left, ours(x).square().mean())
        right.zero_grad()
        theirs(x).square().mean().backward()
        right.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert not torch.equal(a, dict(zip(theirs.parameters(), network().parameters(), strict=True))[b])


def test_descend_forgets_the_gradients_of_before() -> None:
    module = network()
    module.weight.grad = torch.full_like(module.weight, 1e6)
    optimizer = build_optimizer(module, OptimizerConfig("sgd", learning_rate=1.0))
    before = module.weight.detach().clone()
    descend(optimizer, module.weight.sum())
    torch.testing.assert_close(module.weight.detach(), before - 1)


def test_a_constant_rate_is_constant() -> None:
    assert {rate_factor(OptimizerConfig(), seen, 100) for seen in (1, 50, 100, 1000)} == {1.0}


def test_a_warm_up_rises_in_a_straight_line_and_stays() -> None:
    config = OptimizerConfig(warm_up=40)
    assert [rate_factor(config, seen, 100) for seen in (1, 10, 20, 40, 41, 100)] == [1 / 40, 0.25, 0.5, 1, 1, 1]


def test_a_cosine_falls_from_one_to_nothing() -> None:
    config = OptimizerConfig(schedule="cosine")
    assert rate_factor(config, 0, 1000) == 1
    assert rate_factor(config, 500, 1000) == pytest.approx(0.5)
    assert rate_factor(config, 1000, 1000) == 0
    assert rate_factor(config, 1500, 1000) == 0, "a last batch may reach beyond the end"
    seen = np.arange(1001)
    found = [rate_factor(config, int(each), 1000) for each in seen]
    np.testing.assert_allclose(found, np.cos(np.pi * seen / 2000) ** 2, atol=1e-12)


@given(
    warm_up=st.integers(0, 2000), images=st.integers(1, 2000), seen=st.integers(1, 4000), step=st.integers(1, 500),
    schedule=st.sampled_from(["constant", "cosine"]),
)  # fmt: skip
def test_a_rate_rises_in_the_warm_up_and_never_after_it(
    warm_up: int, images: int, seen: int, step: int, schedule: str
) -> None:
    config = OptimizerConfig(schedule=schedule, warm_up=warm_up)
    now, later = rate_factor(config, seen, images), rate_factor(config, seen + step, images)
    assert 0 <= now <= 1
    if seen >= warm_up:
        assert later <= now
    if schedule == "constant":
        assert later >= now
    both = rate_factor(OptimizerConfig(warm_up=warm_up), seen, images)
    both *= rate_factor(OptimizerConfig(schedule=schedule), seen, images)
    assert math.isclose(now, both)
