"""Exponential moving average (EMA) of weights, with a half-life in images.

    average <- decay * average + (1 - decay) * weights,   decay = 0.5 ** (batch / half_life)

Early in training the average would be dominated by the random initialisation, so the half-life is capped at a
twentieth of the images seen (Karras et al. 2020, arXiv:2006.06676, "EMA ramp-up").
"""

from __future__ import annotations

import copy

import torch
from torch import nn

RAMP = 0.05


class WeightAverage:
    """The EMA of a module's weights. Floating-point buffers are averaged too, other buffers are copied.

    Args:
        module: the module to average; it is copied.
        half_life_images: half-life of the average, in images.

    Attributes:
        module: the averaged module, in eval mode.
    """

    def __init__(self, module: nn.Module, half_life_images: float) -> None:
        self.half_life_images = half_life_images
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, *, batch: int, images_seen: int) -> None:
        """Update the average after an optimization step.

        Args:
            module: the module that is trained.
            batch: batch size over all ranks.
            images_seen: number of images seen, including this step.
        """
        half_life = min(self.half_life_images, images_seen * RAMP)
        decay = 0.5 ** (batch / half_life) if half_life > 0 else 0.0
        averages, values = [], []
        for average, value in zip(_tensors(self.module), _tensors(module), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1.0 - decay)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]
