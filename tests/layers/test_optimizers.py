"""Each name takes the steps of torch's plain optimizer with the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from smalti.config import OptimizerConfig
from smalti.layers.optimizers import OPTIMIZERS, build_optimizer, descend

CONFIG = {"learning_rate": 0.01, "beta1": 0.6, "beta2": 0.95, "momentum": 0.7, "weight_decay": 0.1}
PLAIN: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.6, 0.95), weight_decay=0.1, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.6, 0.95), weight_decay=0.1, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.7, weight_decay=0.1, foreach=False),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.7, weight_decay=0.1, foreach=False),
}


def network() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(4, 3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_name_takes_the_steps_of_torchs_own(name: str) -> None:
    ours, theirs = network(), network()
    left, right = build_optimizer(ours.parameters(), OptimizerConfig(name, **CONFIG)), PLAIN[name](theirs.parameters())
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
    optimizer = build_optimizer(module.parameters(), OptimizerConfig("sgd", learning_rate=1.0))
    before = module.weight.detach().clone()
    descend(optimizer, module.weight.sum())
    torch.testing.assert_close(module.weight.detach(), before - 1)
