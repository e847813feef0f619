"""Gradient estimators for the choice of a code. The forward value is q; they differ in the derivative.

    straight-through   q' = z + sg(q - z)                            dq'/dz = I
    rotation           q' = sg(|q|/|z| R) z,                         dq'/dz = |q|/|z| R
                       R = I - 2 w w^T + 2 q^ z^T,  w = norm(z^ + q^),  x^ = norm(x)
    diveq              q' = z + |q - z| sg(norm(q - z + noise))      dq' reaches z and q both

sg is the gradient's stop, norm(x) = x/|x|. R turns z^ into q^, so that angles between the gradient and the code are
kept as angles to the latent. With DiVeQ the codebook learns from the main loss and needs no other.
Sources: Bengio et al. 2013, arXiv:1308.3432; Fifty et al. 2024, arXiv:2410.06424, section 4.2; Vali et al. 2025,
arXiv:2509.26469.  Layout: (N, D) rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.nn.export import is_exporting

SMALLEST_NORM = 1e-6  # of a vector that still has a direction
SMALLEST_SUM = 1e-4  # of two unit vectors that still have a direction between them
DIVEQ_VARIANCE = 1e-3


class _StraightThrough(torch.autograd.Function):
    """z + sg(q - z), but to the last bit q, and without the memory of a sum."""

    @staticmethod
    def forward(_ctx: torch.autograd.function.FunctionCtx, _z: Tensor, q: Tensor) -> Tensor:
        return q.view_as(q)

    @staticmethod
    def backward(_ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def straight_through(z: Tensor, q: Tensor) -> Tensor:
    """The gradient of q' goes to z as it is, and none to q."""
    if is_exporting():  # which does not know the function above; what is added is zero
        return q.detach() + (z - z.detach())
    found: Tensor = _StraightThrough.apply(z, q.detach())  # type: ignore[no-untyped-call,unused-ignore]
    return found


def rotation(z: Tensor, q: Tensor) -> Tensor:
    """The gradient of q' goes to z turned back; straight through where z, q or their sum has no direction."""
    with torch.no_grad():
        z_norm, q_norm = (torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (z, q))
        z_unit, q_unit = F.normalize(z, dim=1, eps=SMALLEST_NORM), F.normalize(q, dim=1, eps=SMALLEST_NORM)
        between = z_unit + q_unit
        turns = (z_norm > SMALLEST_NORM) & (q_norm > SMALLEST_NORM)
        turns &= torch.linalg.vector_norm(between, dim=1, keepdim=True) > SMALLEST_SUM
        w = F.normalize(between, dim=1, eps=SMALLEST_SUM)
        scale = torch.where(turns, q_norm / z_norm.clamp_min(SMALLEST_NORM), 1.0)
    # R z without the D x D matrix.
    turned = z - 2 * (z * w).sum(dim=1, keepdim=True) * w + 2 * (z * z_unit).sum(dim=1, keepdim=True) * q_unit
    return straight_through(torch.where(turns, scale * turned, z), q)


def diveq(z: Tensor, q: Tensor, noise: Tensor) -> Tensor:
    """The gradient of q' goes to the latent and to the code, along the line between them.

    The paper's noise has the variance 1e-3 whatever the latents' scale. Here it is that share of |q - z|^2, so that
    the direction is as exact for small latents as for large ones.

    Args:
        noise: (N, D) from N(0, 1), of the training step.
    """
    with torch.no_grad():
        gap = q - z
        spread = torch.linalg.vector_norm(gap, dim=1, keepdim=True) * (DIVEQ_VARIANCE / z.shape[1]) ** 0.5
        direction = F.normalize(gap + spread * noise, dim=1)
    distance: Tensor = torch.linalg.vector_norm(q - z, dim=1, keepdim=True)
    return z + distance * direction


ESTIMATORS = {"straight-through": straight_through, "rotation": rotation}
