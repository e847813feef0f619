"""What the discriminator and the generator minimise, from logits; r = D(real), f = D(fake).

                  discriminator                                   generator
    bce           softplus(-r) + softplus(f)                      softplus(-f)        (non-saturating; arXiv:1406.2661)
    hinge         relu(1 - r) + relu(1 + f)                       -f                  (arXiv:1705.02894)
    least-squares ((r - 1)^2 + f^2) / 2                           (f - 1)^2 / 2       (arXiv:1611.04076, eq. 9)
    wasserstein   f - r                                           -f                  (arXiv:1701.07875)

All are means over the batch. No sigmoid stands before any of them: `bce` takes logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.layers.randomness import Draws


@dataclass(frozen=True)
class AdversarialLoss:
    """One row of the table above: `discriminator(real_logits, fake_logits)` and `generator(fake_logits)`."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


ADVERSARIAL_LOSSES: dict[str, AdversarialLoss] = {
    "bce": AdversarialLoss(
        lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean(),
        lambda f: F.softplus(-f).mean(),
    ),
    "hinge": AdversarialLoss(
        lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(),
        lambda f: -f.mean(),
    ),
    "least-squares": AdversarialLoss(
        lambda r, f: ((r - 1).square().mean() + f.square().mean()) / 2,
        lambda f: (f - 1).square().mean() / 2,
    ),
    "wasserstein": AdversarialLoss(
        lambda r, f: f.mean() - r.mean(),
        lambda f: -f.mean(),
    ),
}


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
    """E (|grad_x D(x)|_2 - 1)^2 at x = u real + (1 - u) fake, u uniform per image (arXiv:1704.00028, equation 3).

    Args:
        critic: maps (B, C, H, W) to (B,) logits, differentiable twice.
        real, fake: (B, C, H, W); neither receives a gradient.

    Returns:
        () float32, not weighted.
    """
    share = draws.uniform(len(real), 1, 1, 1)
    points = torch.lerp(fake.detach().float(), real.detach().float(), share).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
