"""Sliced Wasserstein distance between two sets of images: a cheap check that needs no network.

Patches of 7x7 pixels, at full and at half resolution, normalised per channel over both sets, are projected on random
directions; the mean absolute difference of the sorted projections is the distance on each line.
After Karras et al. 2018, arXiv:1710.10196, section 5; smaller is better, 0 is the same patch distribution. It is used
to keep the best of a run's own checkpoints, not to compare runs with the world: patches know nothing of global shape.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 7
PATCHES_PER_IMAGE = 16
DIRECTIONS = 128


def sliced_wasserstein(a: Tensor, b: Tensor, *, generator: torch.Generator) -> float:
    """Distance between the patch distributions of two equally large sets.

    Args:
        a, b: (N, C, H, W) float32 in [-1, 1].
        generator: draws the patches' places and the directions.

    Returns:
        Mean over two scales, in units of the patches' standard deviation.
    """
    down, right = (max(0, PATCH - side) for side in a.shape[-2:])
    if down or right:  # smaller than a patch: the edge is repeated, or there would be nothing to compare
        a, b = (F.pad(images, (0, right, 0, down), mode="replicate") for images in (a, b))
    distances = []
    for _ in range(2):
        if min(a.shape[-2:]) < PATCH:
            break
        both = torch.stack([_patches(a, generator), _patches(b, generator)])
        mean = both.mean(dim=(0, 1, 3), keepdim=True)
        spread = both.std(dim=(0, 1, 3), keepdim=True).clamp_min(1e-6)
        rows = ((both - mean) / spread).flatten(2)
        directions = torch.randn(rows.shape[2], DIRECTIONS, generator=generator, device=generator.device)
        directions = F.normalize(directions, dim=0).to(rows.device)
        projected = (rows @ directions).sort(dim=1).values
        distances.append(float((projected[0] - projected[1]).abs().mean()))
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return sum(distances) / len(distances)


def _patches(images: Tensor, generator: torch.Generator) -> Tensor:
    """(N, C, H, W) -> (N * PATCHES_PER_IMAGE, C, PATCH * PATCH), the same places in every image of one call."""
    height, width = images.shape[-2:]
    device = generator.device
    rows = torch.randint(height - PATCH + 1, (PATCHES_PER_IMAGE,), generator=generator, device=device).tolist()
    columns = torch.randint(width - PATCH + 1, (PATCHES_PER_IMAGE,), generator=generator, device=device).tolist()
    cut = [images[:, :, y : y + PATCH, x : x + PATCH].flatten(2) for y, x in zip(rows, columns, strict=True)]
    return torch.cat(cut)
