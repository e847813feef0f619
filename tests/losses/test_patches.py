"""PatchNCE against a loop implementation of its formula."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from smalti.losses.patches import patch_nce


def looped(found: torch.Tensor, given: torch.Tensor, temperature: float) -> float:
    losses = []
    for v, w in zip(found.double(), given.double(), strict=True):
        for s in range(len(v)):
            shares = [math.exp(float(v[s] @ w[t]) / temperature) for t in range(len(w))]
            losses.append(-math.log(shares[s] / sum(shares)))
    return sum(losses) / len(losses)


@given(st.integers(1, 3), st.integers(1, 6), st.integers(2, 5), st.sampled_from([0.07, 0.5, 2.0]), st.integers(0, 100))
def test_it_is_the_formula(batch: int, places: int, width: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    found, given = F.normalize(torch.randn(2, batch, places, width, generator=generator), dim=3)
    loss = patch_nce(found, given, temperature=temperature)
    assert float(loss) == pytest.approx(looped(found, given, temperature), rel=1e-4, abs=1e-5)


def test_patches_of_other_images_make_no_difference() -> None:
    first, second = F.normalize(torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0)), dim=3)
    alone = [patch_nce(a[None], b[None], temperature=0.07) for a, b in zip(first, second, strict=True)]
    assert float(patch_nce(first, second, temperature=0.07)) == pytest.approx(
        float(torch.stack(alone).mean()), rel=1e-5
    )


def test_the_right_patches_are_rewarded_and_the_input_gets_no_gradient() -> None:
    vectors = torch.eye(6)[None]
    assert float(patch_nce(vectors, vectors, temperature=0.07)) < 1e-4
    assert float(patch_nce(vectors, vectors.roll(1, 1), temperature=0.07)) > 10
    assert float(patch_nce(torch.ones(1, 6, 6), vectors, temperature=1.0)) == pytest.approx(math.log(6))
    found, given = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    patch_nce(found, given, temperature=1.0).backward()
    assert found.grad is not None
    assert given.grad is None
