"""A discriminator on the feature maps of a fixed pretrained network, with one head for each map.

    head   sqrt(C) times the unit vector of each position | 1x1 to width, LeakyReLU .2 | 3x3 to width, norm, LeakyReLU
           | 1x1 to one logit a position [+ <embedding(label), x> / sqrt(width)]

The network already distinguishes objects, so the heads give useful gradients from the first steps on; a discriminator
of pixels has to learn that first, which takes most of a short training. Details finer than the maps are left to the
discriminator of pixels beside them. A logit for each position says where an image is wrong; training on their mean
alone is worse. The heads are those of patch_discriminator.py.
Source: after Sauer et al. 2021, arXiv:2111.01007, section 3.2.
Layout: maps (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smalti.models.autoencoder.patch_discriminator import MapDiscriminator
from smalti.runtime.rng import Draws


class FeatureDiscriminator(nn.Module):
    """Feature maps of images to a logit for each position of each map.

    Args:
        channels: of each map.
        width: of the heads.
        classes: number of labels, 0 without labels.
    """

    def __init__(self, channels: Sequence[int], width: int, classes: int) -> None:
        super().__init__()
        self.judges = nn.ModuleList(MapDiscriminator(count, width) for count in channels)
        self.embeddings = nn.ModuleList(nn.Embedding(classes, width) for _ in channels) if classes else None

    def forward(self, maps: Sequence[Tensor], labels: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """As many maps as heads, (B, C_j, H_j, W_j) each, and (B,) int64 labels -> (B, J, n) float32 logits.

        n is the number of positions of the finest map; logits of a coarser one, n / k positions, are repeated k times.
        """
        finest = max(found.shape[2] * found.shape[3] for found in maps)
        logits = []
        for number, (head, found) in enumerate(zip(self.judges, maps, strict=True)):
            assert isinstance(head, MapDiscriminator)
            x = head.features(found)
            scores: Tensor = head.head(x).float().flatten(1)
            if self.embeddings is not None:
                wanted = self.embeddings[number](labels)[:, None]
                scores = scores + (wanted @ x.float().flatten(2))[:, 0] / x.shape[1] ** 0.5
            logits.append(scores.repeat_interleave(finest // scores.shape[1], dim=1))
        return torch.stack(logits, dim=1)


class DoubleDiscriminator(nn.Module):
    """One discriminator of the pixels and J heads on feature maps, which together have the same weight."""

    def __init__(self, pixels: nn.Module, judges: FeatureDiscriminator) -> None:
        super().__init__()
        self.pixels, self.judges = pixels, judges

    def forward(self, seen: Sequence[Tensor], labels: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """Images (B, C, H, W) and their J maps -> (B, 2 J, n) float32 logits: of the pixels, J n times; of the maps."""
        of_pixels: Tensor = self.pixels(seen[0], labels, draws)
        of_maps: Tensor = self.judges(seen[1:], labels)
        return torch.cat([of_pixels[:, None, None].expand_as(of_maps), of_maps], dim=1)
