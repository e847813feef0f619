"""Gradient estimators against matrices in float64, and against vector_quantize_pytorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from smalti.quantize.gradients import diveq, rotation, straight_through
from smalti.runtime.rng import Draws


def pair(seed: int = 0, *, count: int = 50, dimension: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, codes, and what the loss says about the values."""
    generator = torch.Generator().manual_seed(seed)
    z, q, felt = (torch.randn(count, dimension, generator=generator) for _ in range(3))
    return z.requires_grad_(), q.requires_grad_(), felt


def noise_like(z: Tensor, step: int) -> Tensor:
    return Draws(0, step).normal(*z.shape)


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


@pytest.mark.parametrize("estimator", [straight_through, rotation])
def test_the_values_are_the_codes_to_the_last_bit(estimator) -> None:
    z, q, _ = pair()
    assert torch.equal(estimator(z * 1000, q), q)


def test_straight_through_hands_the_gradient_on() -> None:
    z, q, felt = pair()
    (straight_through(z, q) * felt).sum().backward()
    assert torch.equal(z.grad, felt)
    assert q.grad is None


def test_rotation_is_its_matrix() -> None:
    z, q, felt = pair()
    (rotation(z, q) * felt).sum().backward()
    assert q.grad is None
    for row, code, feeling, found in zip(
        *(x.detach().double().numpy() for x in (z, q, felt)), z.grad.numpy(), strict=True
    ):
        w = unit(unit(row) + unit(code))
        matrix = np.eye(5) - 2 * np.outer(w, w) + 2 * np.outer(unit(code), unit(row))
        np.testing.assert_allclose(matrix @ unit(row), unit(code), atol=1e-12)  # R turns the latent to the code
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(5), atol=1e-12)
        expected = np.linalg.norm(code) / np.linalg.norm(row) * matrix.T @ feeling
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_rotation_is_that_of_vector_quantize_pytorch() -> None:
    peer = pytest.importorskip("vector_quantize_pytorch.vector_quantize_pytorch")
    z, q, felt = pair(1)
    theirs = peer.rotate_to(z, q.detach())
    (gradient,) = torch.autograd.grad((theirs * felt).sum(), z)
    ours = rotation(z, q)
    (ours * felt).sum().backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(z.grad, gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("small", [0.0, 1e-30, 1e-12, 1e-7])
def test_rotation_goes_straight_through_where_nothing_can_turn(small: float) -> None:
    _, q, felt = pair()
    direction = q.detach()
    for z, code in ((direction * small, direction), (direction, direction * small), (direction, -direction)):
        z = z.clone().requires_grad_()
        (rotation(z, code) * felt).sum().backward()
        torch.testing.assert_close(z.grad, felt)


def test_diveq_keeps_the_distance_and_nearly_the_direction() -> None:
    for scale in (1e-4, 1.0, 1e4):
        z, q, _ = (x.detach() * scale for x in pair(2, count=4000, dimension=16))
        values = diveq(z, q, noise_like(z, 3))
        gap, gone = q - z, values - z
        torch.testing.assert_close(gone.norm(dim=1), gap.norm(dim=1), rtol=1e-4, atol=0)
        # The angle has the noise's size: its square is the variance 1e-3, less the one direction it does not show in.
        sine = 1 - torch.nn.functional.cosine_similarity(gone, gap, dim=1).square()
        assert float(sine.mean()) == pytest.approx(1e-3 * 15 / 16, rel=0.05)


def test_diveq_has_the_gradient_of_its_formula() -> None:
    z, q, felt = pair(3)
    values = diveq(z, q, noise_like(z, 1))
    (values * felt).sum().backward()
    gap = (q - z).detach()
    toward = gap / gap.norm(dim=1, keepdim=True)
    direction = (values - z).detach() / gap.norm(dim=1, keepdim=True)
    expected = (felt * direction).sum(dim=1, keepdim=True) * toward
    torch.testing.assert_close(q.grad, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(z.grad, felt - expected, rtol=1e-4, atol=1e-5)


def test_diveq_without_a_gap_has_a_gradient() -> None:
    z, _, felt = pair(4)
    (diveq(z, z.detach(), noise_like(z, 1)) * felt).sum().backward()
    torch.testing.assert_close(z.grad, felt)


def test_diveq_noise_depends_on_the_step_alone() -> None:
    z, q, _ = pair(5)
    before = torch.get_rng_state()
    assert torch.equal(diveq(z, q, noise_like(z, 7)), diveq(z, q, noise_like(z, 7)))
    assert not torch.equal(diveq(z, q, noise_like(z, 7)), diveq(z, q, noise_like(z, 8)))
    assert torch.equal(torch.get_rng_state(), before)
