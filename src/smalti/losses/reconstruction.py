"""Reconstruction losses between an image and its reconstruction: means over all elements, in float32.

mse          (a - b)^2
l1           |a - b|
huber        (a - b)^2 / 2 where |a - b| <= d, else d (|a - b| - d / 2), d = 0.1     (Huber 1964)
charbonnier  sqrt((a - b)^2 + e^2), e = 1e-3                                        (Charbonnier et al. 1994)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

HUBER_DELTA = 0.1  # for pixels in [-1, 1]: a twentieth of the range
CHARBONNIER_EPSILON = 1e-3


def mse(a: Tensor, b: Tensor) -> Tensor:
    return F.mse_loss(a.float(), b.float())


def l1(a: Tensor, b: Tensor) -> Tensor:
    return F.l1_loss(a.float(), b.float())


def huber(a: Tensor, b: Tensor) -> Tensor:
    return F.huber_loss(a.float(), b.float(), delta=HUBER_DELTA)


def charbonnier(a: Tensor, b: Tensor) -> Tensor:
    return torch.sqrt((a.float() - b.float()).square() + CHARBONNIER_EPSILON**2).mean()


RECONSTRUCTION_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "l1": l1,
    "huber": huber,
    "charbonnier": charbonnier,
}
