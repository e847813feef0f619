"""Image features from a trained encoder."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from smalti.models.vision_transformer import VisionTransformer
from smalti.pipelines.base import Pipeline
from smalti.pipelines.images import ImagesLike, read_images
from smalti.runtime.pixels import to_tensor


class Encoder(Pipeline):
    """Pipeline of a model trained with the recipe `contrastive`: images to feature vectors.

    smalti.Encoder.from_pretrained("runs/encoder").features(["cat.jpg", "dog.jpg"])
    """

    missing: ClassVar[str] = "has no features; give a model trained with the preset smalti-vit"

    @property
    def dimension(self) -> int:
        """D, the length of a feature vector."""
        return self._network.dimension

    @torch.no_grad()
    def features(self, images: ImagesLike, *, batch: int = 64) -> np.ndarray:
        """Compute the features of images of any size.

        Args:
            images: in any form that pipelines/images.py lists.
            batch: batch size of the network.

        Returns:
            (N, D) float32.

        Raises:
            ConfigError, DataError: the images do not fit the model.
        """
        found = read_images(images, channels=self.card.image.shape[0], owner=self.path)
        parts = [
            (part if isinstance(part, Tensor) else to_tensor(part.copy())).to(self.device, torch.float32)
            for part in (found[start : start + batch] for start in range(0, len(found), batch))
        ]
        with self.autocast():
            return np.concatenate([self._network(part).float().cpu().numpy() for part in parts])

    @property
    def _network(self) -> VisionTransformer:
        return cast(VisionTransformer, self.module)
