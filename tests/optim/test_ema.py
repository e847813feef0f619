"""The averaged weights against a loop written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from smalti.optim.ema import WeightAverage


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


@pytest.mark.parametrize("half_life", [0, 40, 1000])
def test_the_average_is_its_formula(half_life: int) -> None:
    module, batch = network(), 16
    average = WeightAverage(module, half_life)
    expected = {name: tensor.double().clone() for name, tensor in module.state_dict().items()}
    for step in range(1, 40):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        module(torch.randn(2, 1, 6, 6))
        seen = step * batch
        average.update(module, batch=batch, images_seen=seen)
        ramped = min(half_life, 0.05 * seen)
        decay = 0.5 ** (batch / ramped) if ramped else 0.0
        for name, tensor in module.state_dict().items():
            floating = tensor.is_floating_point()
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double() if floating else tensor.double()
    for name, tensor in average.module.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    if half_life == 0:
        assert all(torch.equal(a, b) for a, b in zip(average.module.parameters(), module.parameters(), strict=True))


def test_half_of_what_was_is_left_after_a_half_life() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = WeightAverage(module, 64)
    nn.init.ones_(module.weight)
    for step in range(4):
        average.update(module, batch=16, images_seen=10_000 + step * 16)
    assert float(average.module.weight) == pytest.approx(0.5)


def test_the_average_is_a_module_of_its_own_that_is_never_trained() -> None:
    module = network()
    average = WeightAverage(module, 100)
    assert not average.module.training
    assert module.training
    assert not any(p.requires_grad for p in average.module.parameters())
    assert not {p.data_ptr() for p in module.parameters()} & {p.data_ptr() for p in average.module.parameters()}
