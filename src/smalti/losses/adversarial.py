"""Adversarial losses of the discriminator and the generator, and regularisers; r = D(real), f = D(fake) are logits.

                  discriminator                                   generator
    relativistic  softplus(f - r)                                 softplus(r - f)     (arXiv:1807.00734; 2501.05441)
    bce           softplus(-r) + softplus(f)                      softplus(-f)        (non-saturating; arXiv:1406.2661)
    hinge         relu(1 - r) + relu(1 + f)                       -f                  (arXiv:1705.02894)
    least-squares ((r - 1)^2 + f^2) / 2                           (f - 1)^2 / 2       (arXiv:1611.04076, eq. 9)
    wasserstein   f - r                                           -f                  (arXiv:1701.07875)

All are means over the batch, and all take logits, including `bce`. `relativistic` compares each fake image with one
real image, so its generator loss needs real logits too. Regularisers of the discriminator:

    R1, R2            E |grad_x D(x)|^2 at real and at fake x (arXiv:1801.04406, equations 9 and 10)
    gradient penalty  E (|grad_x D(x)| - 1)^2 between them    (arXiv:1704.00028, equation 3)
    LeCam             E (r - a_f)^2 + E (f - a_r)^2           (arXiv:2104.03310, equation 7), a running means of logits

They are returned without weights. Norms are over all values of an image. Spectral normalisation is part of the network:
models/gan/sngan.py.  Layout: images (B, C, H, W), logits (B,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.runtime.distributed import all_reduce_sum, world
from smalti.runtime.rng import Draws
from smalti.runtime.state import TrainingState


@dataclass(frozen=True)
class AdversarialLoss:
    """One row of the table above.

    Attributes:
        discriminator: (B,) real and (B,) fake logits -> ().
        generator: the same signature; ignores the real logits unless `paired`.
        paired: whether the loss compares real and fake logits pairwise.
        middle: the decision boundary, the logit at which the discriminator is undecided between real and fake; None if
            only differences between real and fake logits are meaningful.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    paired: bool = False
    middle: float | None = 0.0


ADVERSARIAL_LOSSES: dict[str, AdversarialLoss] = {
    "relativistic": AdversarialLoss(
        lambda r, f: F.softplus(f - r).mean(),
        lambda r, f: F.softplus(r - f).mean(),
        paired=True,
        middle=None,
    ),
    "bce": AdversarialLoss(
        lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean(),
        lambda r, f: F.softplus(-f).mean(),
    ),
    "hinge": AdversarialLoss(
        lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(),
        lambda r, f: -f.mean(),
    ),
    "least-squares": AdversarialLoss(
        lambda r, f: ((r - 1).square().mean() + f.square().mean()) / 2,
        lambda r, f: (f - 1).square().mean() / 2,
        middle=0.5,
    ),
    "wasserstein": AdversarialLoss(
        lambda r, f: f.mean() - r.mean(),
        lambda r, f: -f.mean(),
        middle=None,
    ),
}


def squared_gradients(logits: Tensor, points: Sequence[Tensor]) -> Tensor:
    """Squared gradient norm |grad_x D(x)|^2 for each image and each input x of D; R1 and R2 are its means.

    Args:
        logits: (B,), each a function of its own image only; or (B, J), the j-th a function of the j-th input only.
        points: J tensors (B, C, H, W) that require gradients.

    Returns:
        (B, J) float32, differentiable.
    """
    gradients = torch.autograd.grad(logits.sum(), list(points), create_graph=True)
    return torch.stack([gradient.float().square().flatten(1).sum(dim=1) for gradient in gradients], dim=1)


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
    """Gradient penalty E (|grad_x D(x)| - 1)^2 at x = u real + (1 - u) fake, with u uniform per image.

    Args:
        critic: maps (B, C, H, W) to (B,) logits; twice differentiable.
        real, fake: (B, C, H, W); neither receives a gradient.
        draws: source of u.

    Returns:
        () float32.
    """
    share = draws.uniform(len(real), 1, 1, 1)
    points = torch.lerp(fake.detach().float(), real.detach().float(), share).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return (norms - 1).square().mean()


class LeCam(TrainingState):
    """LeCam regulariser, with exponential moving averages of the real and fake logits, started at the first batch.

    Args:
        judges: number of discriminators J, for logits of shape (B, J); None for logits of shape (B,).
    """

    DECAY = 0.99

    anchors: Tensor
    begun: Tensor

    def __init__(self, judges: int | None = None) -> None:
        anchors = torch.zeros(2, *([] if judges is None else [judges]))  # of real, fake images
        super().__init__(anchors=anchors, begun=torch.zeros((), dtype=torch.bool))

    def __call__(self, real: Tensor, fake: Tensor) -> Tensor:
        """(B,) or (B, J) real and fake logits -> (), from the averages before this batch; then updates the averages."""
        with torch.no_grad():
            now = all_reduce_sum(torch.stack([real.float().mean(dim=0), fake.float().mean(dim=0)])) / world()
            before = torch.where(self.begun, self.anchors, now)
            self.anchors.copy_(torch.lerp(now, before, self.DECAY))
            self.begun.fill_(True)
        return (real - before[1]).square().mean() + (fake - before[0]).square().mean()
