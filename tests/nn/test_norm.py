"""RMSNorm against torch's own, and its gradient against differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from smalti.nn.norm import RMSNorm


def pair(width: int) -> tuple[RMSNorm, nn.RMSNorm]:
    ours, theirs = RMSNorm(width), nn.RMSNorm(width)
    with torch.no_grad():
        for module in (ours, theirs):
            module.weight.copy_(torch.linspace(-1, 2, width))
    return ours, theirs


@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 5, 6), (2, 3, 4, 6), (3, 1)])
@pytest.mark.parametrize("size", [0.0, 1e-4, 1.0, 1e4])
def test_it_and_its_gradient_are_torchs(shape: tuple[int, ...], size: float) -> None:
    ours, theirs = pair(shape[-1])
    torch.manual_seed(0)
    x = (size * torch.randn(shape)).requires_grad_()
    other = x.detach().clone().requires_grad_()
    slope = torch.randn(shape)
    found, expected = ours(x), theirs(other)
    torch.testing.assert_close(found, expected)
    found.backward(slope)
    expected.backward(slope)
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-4, atol=1e-5 / max(size, 1e-4))
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_and_no_gradient(dtype: torch.dtype) -> None:
    ours, theirs = pair(8)
    x: Tensor = torch.randn(4, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.to(dtype)(x.to(dtype)), theirs.to(dtype)(x.to(dtype)))
