"""gamma of R1 and R2 from the data: `penalty.gamma=auto`.

    gamma = c V (1 + M / N)     V  sum over pixels and channels of the variance over the images
                                N  how many images there are to train on, 1,000 at least

V is of whatever D looks at, images or feature maps, of each by itself. Where D tells two pictures apart by about one,
its gradient from one to the other is about 1 / |distance|, and the mean squared distance of two pictures is 2 V: so
gamma |grad D|^2 counts the same for any size and contrast if gamma is in proportion to V. The fewer images there are,
the sooner D knows them by heart, and a smooth D takes longer to. The batch does not enter: what is best for 16 images a
step is near the published value for 512. c and M were chosen by sweeps on CIFAR-10, on a part of it, and on the emoji:
docs/results.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

SHARE = 4.7e-5  # c
MANY = 100_000  # M, images
FEWEST = 1_000  # fewer count as so many: nothing was measured there


def automatic_gamma(batches: Iterable[Sequence[Tensor]], images: int | None) -> Tensor:
    """The weights for images like these.

    Args:
        batches: for each batch, the J things that D looks at, (B, C, H, W) each.
        images: how many there are to train on; None: always new ones.

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
    few = MANY / max(images, FEWEST) if images else 0.0
    return SHARE * (1 + few) * torch.stack(variances).float()
