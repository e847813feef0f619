"""How far apart two images are in the feature maps of a network.

    d(x, y) = mean over layers l of  mean over places (h, w) of  || n(f_l(x))_hw - n(f_l(y))_hw ||^2
    n(f)_hw = f_hw / (|| f_hw || + 1e-10)                          the vector of channels at a place, made unit length

Equation 1 of Zhang, Isola, Efros, Shechtman and Wang 2018, arXiv:1801.03924 (LPIPS) with all weights w_l = 1 and the
mean of the layers in place of their sum.  Layout of a map: (B, C_l, H_l, W_l).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def map_distance(a: Tensor, b: Tensor) -> Tensor:
    """Distance in one layer: (B, C, H, W) twice -> (B,) float32, from 0 for equal maps to 4 for opposite ones."""
    return (unit_vectors(a) - unit_vectors(b)).square().sum(dim=1).mean(dim=(1, 2))


class PerceptualLoss(nn.Module):
    """The distance as a loss.

    Args:
        maps: images as the network takes them -> feature maps of a few layers; its weights are not trained.
        prepare: (B, C, H, W) in [-1, 1] -> images as the network takes them, resized to what it sees.
        size: (height, width) that the network sees. Larger images are taken apart into tiles of that size, so that
            detail counts; tiles at the far edges are extended by repeating the border.
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
        """(B, C, H, W) twice, in [-1, 1] -> () float32; the gradient goes to `result` alone."""
        return self.distance(*self.compare(result, original))

    def compare(self, result: Tensor, original: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The maps of both, from fine to coarse: those of `result` with gradients."""
        with torch.no_grad():
            wanted = self.maps(self._see(original))
        return self.maps(self._see(result)), wanted

    def distance(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """() float32, of maps from `compare`."""
        return torch.stack([map_distance(a, b).mean() for a, b in zip(found, wanted, strict=True)]).mean()

    def _see(self, images: Tensor) -> Tensor:
        height, width = (min(seen, side) for seen, side in zip(self.size, images.shape[2:], strict=True))
        down, right = -images.shape[2] % height, -images.shape[3] % width
        padded = nn.functional.pad(images, (0, right, 0, down), mode="replicate") if down or right else images
        parts = padded.unflatten(3, (-1, width)).unflatten(2, (-1, height))  # (B, C, rows, height, columns, width)
        return self.prepare(parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))


def unit_vectors(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> the same in float32, the vector of channels at each place with length 1."""
    maps = maps.float()
    # The root has no finite slope at 0.
    return maps / (maps.square().sum(dim=1, keepdim=True).clamp_min(1e-20).sqrt() + 1e-10)
