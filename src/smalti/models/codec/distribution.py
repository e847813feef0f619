"""Distribution of one quantised coefficient, given by three numbers.

    P(k) = (1 - w) L((k - m) / s) + w L((k - m) / s0)        L(.) the mass of a logistic between k - 1/2 and k + 1/2

m is the mean and s the scale in quantisation steps. The second term, the spike, has so small a scale s0 that it falls
on one integer. It is there because the rate-distortion search rounds coefficients to their prediction, mostly to zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from smalti.models.codec.grid import (
    LOG_SCALE_HIGH,
    LOG_SCALE_LOW,
    SPIKE_HIGH,
    SPIKE_LIMIT,
    SPIKE_LOW,
    SPIKE_SCALE,
)

LEAST = 2.0**-16  # the least probability of the coder


class Distribution(NamedTuple):
    """Parameters of the distributions of some coefficients, each of the same shape."""

    mean: Tensor
    log_scale: Tensor
    spike: Tensor

    def bits(self, values: Tensor) -> Tensor:
        """Information content of values, bits, in their shape; differentiable."""
        away = (values - self.mean).abs()
        wide = _mass(away, torch.exp2(-self.log_scale.clamp(LOG_SCALE_LOW, LOG_SCALE_HIGH)))
        narrow = _mass(away, 1 / SPIKE_SCALE)
        share = torch.sigmoid(self.spike.clamp(SPIKE_LOW, SPIKE_HIGH)) * (self.log_scale < SPIKE_LIMIT)
        return -torch.log2(torch.lerp(wide, narrow, share) + LEAST)

    def detached(self) -> Distribution:
        return Distribution(self.mean.detach(), self.log_scale.detach(), self.spike.detach())


def _mass(away: Tensor, sharpness: Tensor | float) -> Tensor:
    """Mass of a logistic in an interval of length 1 whose centre is `away` from the mean; accurate in the tail."""
    return torch.sigmoid((0.5 - away) * sharpness) - torch.sigmoid((-0.5 - away) * sharpness)
