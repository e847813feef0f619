"""Perceptual loss: distance between two images in the feature maps of a network.

    d(x, y) = mean over layers l of  mean over positions (h, w) of  || n(f_l(x))_hw - n(f_l(y))_hw ||^2
    n(f)_hw = f_hw / (|| f_hw || + 1e-10)                          the channel vector at a position, at unit length

Equation 1 of Zhang, Isola, Efros, Shechtman and Wang 2018, arXiv:1801.03924 (LPIPS), with all weights w_l = 1 and the
mean over layers instead of the sum.  Layout of a map: (B, C_l, H_l, W_l).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def map_distance(a: Tensor, b: Tensor) -> Tensor:
    """Distance in one layer: two (B, C, H, W) maps -> (B,) float32, from 0 for equal maps to 4 for opposite ones."""
    return (unit_vectors(a) - unit_vectors(b)).square().sum(dim=1).mean(dim=(1, 2))


class PerceptualLoss(nn.Module):
    """Perceptual distance as a differentiable loss.

    Args:
        maps: the frozen network, from preprocessed images to feature maps of a few layers.
        prepare: preprocessing, from (B, C, H, W) in [-1, 1] to the input of the network, including the resize.
        size: (height, width) of the input of the network. Larger images are split into tiles of that size, so that fine
            detail is not lost in a resize; the bottom and right edges are padded by replication.
    """

    def __init__(
        self,
        maps: Callable[[Tensor], Sequence[Tensor]],
        prepare: Callable[[Tensor], Tensor],
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.maps, self.prepare, self.size = maps, prepare, size

    def forward(self, result: Tensor, original: Tensor) -> Tensor:
        """Two (B, C, H, W) tensors in [-1, 1] -> () float32; only `result` receives a gradient."""
        return self.distance(*self.compare(result, original))

    def compare(self, result: Tensor, original: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The feature maps of both, from fine to coarse; those of `result` carry gradients."""
        with torch.no_grad():
            wanted = self.maps(self._tiles(original))
        return self.maps(self._tiles(result)), wanted

    def distance(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """Distance between the maps returned by `compare`: () float32."""
        return torch.stack([map_distance(a, b).mean() for a, b in zip(found, wanted, strict=True)]).mean()

    def _tiles(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B * tiles, ...), preprocessed."""
        height, width = (min(limit, side) for limit, side in zip(self.size, images.shape[2:], strict=True))
        down, right = -images.shape[2] % height, -images.shape[3] % width
        padded = nn.functional.pad(images, (0, right, 0, down), mode="replicate") if down or right else images
        batch, channels = padded.shape[:2]
        rows, columns = padded.shape[2] // height, padded.shape[3] // width
        parts = padded.reshape(batch, channels, rows, height, columns, width)
        return self.prepare(parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))


def unit_vectors(maps: Tensor) -> Tensor:
    """Maps with the channel vector at each position normalised to length 1: (B, C, H, W) -> (B, C, H, W) float32."""
    maps = maps.float()
    # Clamped because the square root has no finite derivative at 0.
    return maps / (maps.square().sum(dim=1, keepdim=True).clamp_min(1e-20).sqrt() + 1e-10)
