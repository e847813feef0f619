"""Automatic weight of R1 and R2, estimated from the data: `penalty.gamma=auto`.

    gamma = c V (1 + M / N)     V  variance over the images, summed over pixels and channels
                                N  number of training images, at least 1,000

V is computed separately for each input of D, whether images or feature maps. If the logits of two images differ by
about 1, the gradient of D between them is about 1 / |distance|, and the mean squared distance between images is 2 V. So
a gamma proportional to V gives gamma |grad D|^2 the same weight at any resolution and contrast. With fewer images D
overfits sooner, and a smoother D overfits more slowly, hence the factor 1 + M / N. The batch size does not enter: the
best value at batch 16 is close to the published one at batch 512. c and M are from sweeps on CIFAR-10, a subset of it,
and the emoji: docs/results.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

SHARE = 4.7e-5  # c
MANY = 100_000  # M, images
FEWEST = 1_000  # smallest N; nothing was measured below


def automatic_gamma(batches: Iterable[Sequence[Tensor]], images: int | None) -> Tensor:
    """The weights of R1 and R2, one for each input of D.

    Args:
        batches: the J inputs of D for each batch of training images, (B, C, H, W) each.
        images: number of training images; None: unlimited.

    Returns:
        (J,) float32.
    """
    count, sums, squares = 0, None, None
    for inputs in batches:
        rows = [part.detach().cpu().double().flatten(1) for part in inputs]
        count += len(rows[0])
        sums = [part.sum(0) + (0 if sums is None else sums[j]) for j, part in enumerate(rows)]
        squares = [part.square().sum(0) + (0 if squares is None else squares[j]) for j, part in enumerate(rows)]
    assert sums is not None
    assert squares is not None
    variances = [((b - a.square() / count) / count).clamp_min(0).sum() for a, b in zip(sums, squares, strict=True)]
    few = MANY / max(images, FEWEST) if images else 0.0
    return SHARE * (1 + few) * torch.stack(variances).float()
