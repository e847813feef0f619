"""A discriminator of what a network that is not trained sees in images: one judge for each of its feature maps.

    judge  sqrt(C) times the unit vector of each place | 1x1 to width, LeakyReLU .2 | 3x3 to width, norm, LeakyReLU
           | 1x1 to one logit a place [+ <embedding(label), x> / sqrt(width)]

The network tells objects from each other already, so that the judges know from their first steps on what a picture
lacks; a discriminator of pixels has to learn that first, which takes most of a short training. What is finer than the
maps they do not see: beside a discriminator of pixels they leave that to it. A logit for each place says where a
picture lacks something; with their mean alone a training gets less far. The judges are those of patch_discriminator.py.
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
    """Feature maps of images to a logit for each place of each map.

    Args:
        channels: of each map.
        width: of the judges.
        classes: number of labels they know, 0 without labels.
    """

    def __init__(self, channels: Sequence[int], width: int, classes: int) -> None:
        super().__init__()
        self.judges = nn.ModuleList(MapDiscriminator(count, width) for count in channels)
        self.embeddings = nn.ModuleList(nn.Embedding(classes, width) for _ in channels) if classes else None

    def forward(self, maps: Sequence[Tensor], labels: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """As many maps as judges, (B, C_j, H_j, W_j) each, and (B,) int64 labels -> (B, J, n) float32 logits.

        n is the number of places of the finest map; each of a coarser one, n / k places, stands there k times.
        """
        finest = max(found.shape[2] * found.shape[3] for found in maps)
        logits = []
        for number, (judge, found) in enumerate(zip(self.judges, maps, strict=True)):
            assert isinstance(judge, MapDiscriminator)
            x = judge.features(found)
            places: Tensor = judge.head(x).float().flatten(1)
            if self.embeddings is not None:
                wanted = self.embeddings[number](labels)[:, None]
                places = places + (wanted @ x.float().flatten(2))[:, 0] / x.shape[1] ** 0.5
            logits.append(places.repeat_interleave(finest // places.shape[1], dim=1))
        return torch.stack(logits, dim=1)


class DoubleDiscriminator(nn.Module):
    """One discriminator of the pixels and J judges of feature maps, which count as much together as it does."""

    def __init__(self, pixels: nn.Module, judges: FeatureDiscriminator) -> None:
        super().__init__()
        self.pixels, self.judges = pixels, judges

    def forward(self, seen: Sequence[Tensor], labels: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """Images (B, C, H, W) and their J maps -> (B, 2 J, n) float32 logits: of the pixels, J n times; of the maps."""
        of_pixels: Tensor = self.pixels(seen[0], labels, draws)
        of_maps: Tensor = self.judges(seen[1:], labels)
        return torch.cat([of_pixels[:, None, None].expand_as(of_maps), of_maps], dim=1)
