"""gamma of R1 and R2 from the data: `penalty.gamma=auto`.

    gamma = c V,   V = sum over pixels and channels of the variance over the images

Where D tells two pictures apart by about one, its gradient from one to the other is about 1 / |distance|, and the mean
squared distance of two pictures is 2 V: so gamma |grad D|^2 counts the same for any size and contrast if gamma is in
proportion to V. c is what was best on CIFAR-10: docs/results.md has the sweep.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

SHARE = 6e-4


def automatic_gamma(batches: Iterable[Tensor]) -> float:
    """The weight for images like these.

    Args:
        batches: (B, C, H, W) each, in [-1, 1].
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for images in batches:
        pixels = images.detach().cpu().double().flatten(1)
        count, total, squares = count + len(pixels), total + pixels.sum(0), squares + pixels.square().sum(0)
    variance = (squares - total.square() / count) / count
    return SHARE * float(variance.clamp_min(0).sum())
