"""Translators: the networks of restorers, and the heads that compare patches of them in training.

Sources: Park et al. 2020, arXiv:2007.15651, section 3 and appendix B (the heads: two layers each).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.translator import TranslatorConfig
from smalti.data.spec import ImageSpec
from smalti.models.restorer.restorer import Restorer


class PatchHeads(nn.Module):
    """A head for each feature map: the vectors of positions as unit vectors that are compared.

    Args:
        channels: of each map.
        embedding: length of the vectors.
    """

    def __init__(self, channels: Sequence[int], embedding: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(count, embedding), nn.ReLU(), nn.Linear(embedding, embedding)) for count in channels
        )

    def forward(self, maps: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """The vectors at some places of each map.

        Args:
            maps: (B, C_l, H_l, W_l) each.
            places: (B, S_l) int64 each, in 0 .. H_l W_l - 1.

        Returns:
            (B, S_l, embedding) float32 of length 1 each.
        """
        found = []
        for head, values, where in zip(self.heads, maps, places, strict=True):
            vectors = values.flatten(2).transpose(1, 2)
            chosen = vectors.gather(1, where[:, :, None].expand(-1, -1, vectors.shape[2]))
            found.append(F.normalize(head(chosen).float(), dim=2))
        return found


def build_translator(config: TranslatorConfig, spec: ImageSpec, classes: int, tokenizer: nn.Module | None) -> Restorer:
    """The network of the kind `translate`, without its weights."""
    return Restorer(config, spec.channels)
