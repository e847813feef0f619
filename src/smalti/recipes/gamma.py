"""gamma of R1 and R2 from the data: `penalty.gamma=auto`.

    gamma = c V,   V = sum over pixels and channels of the variance over the images

of whatever D looks at, images or feature maps, of each by itself.
Where D tells two pictures apart by about one, its gradient from one to the other is about 1 / |distance|, and the mean
squared distance of two pictures is 2 V: so gamma |grad D|^2 counts the same for any size and contrast if gamma is in
proportion to V. c was chosen by a sweep on CIFAR-10: docs/results.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

SHARE = 7e-5


def automatic_gamma(batches: Iterable[Sequence[Tensor]]) -> Tensor:
    """The weights for images like these.

    Args:
        batches: for each batch, the J things that D looks at, (B, C, H, W) each.

    Returns:
        (J,) float32.
    """
    count, sums, squares = 0, None, None
    for seen in batches:
        rows = [part.detach().cpu().double().flatten(1) for part in seen]
        count += len(rows[0])
        sums = [part.sum(0) + (0 if sums is None else sums[j]) for j, part in enumerate(rows)]
        squares = [part.square().sum(0) + (0 if squares is None else squares[j]) for j, part in enumerate(rows)]
    assert sums is not None
    assert squares is not None
    variances = [((b - a.square() / count) / count).clamp_min(0).sum() for a, b in zip(sums, squares, strict=True)]
    return SHARE * torch.stack(variances).float()
