"""NT-Xent against a loop implementation of its formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smalti.losses.contrastive import nt_xent


def looped(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    views = [*first.double(), *second.double()]
    count = len(first)
    total = 0.0
    for i, z in enumerate(views):
        similar = [math.exp(float(torch.cosine_similarity(z, other, dim=0)) / temperature) for other in views]
        j = (i + count) % (2 * count)
        total += -math.log(similar[j] / (sum(similar) - similar[i]))
    return total / (2 * count)


@given(st.integers(1, 6), st.integers(2, 5), st.sampled_from([0.1, 0.5, 2.0]), st.integers(0, 100))
def test_it_is_the_formula(count: int, width: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, count, width, generator=generator)
    loss, accuracy = nt_xent(first, second, temperature=temperature)
    assert float(loss) == pytest.approx(looped(first, second, temperature), rel=1e-4, abs=1e-5)
    assert 0 <= float(accuracy) <= 1


def test_views_that_agree_are_found_and_length_does_not_matter() -> None:
    eye = torch.eye(5)
    loss, accuracy = nt_xent(eye * 7, eye * 0.1, temperature=0.1)
    assert float(accuracy) == 1
    assert float(loss) < 1e-3
    worse, none = nt_xent(eye, eye.roll(1, 0), temperature=0.1)
    assert worse > loss
    assert float(none) == 0


def test_the_gradient_pulls_views_together_also_from_half_precision() -> None:
    first = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    second = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    loss, _ = nt_xent(first, second, temperature=0.5)
    assert loss.dtype == torch.float32
    loss.backward()
    with torch.no_grad():
        nearer, _ = nt_xent(first.float() - 0.5 * first.grad.float(), second, temperature=0.5)
    assert nearer < loss
