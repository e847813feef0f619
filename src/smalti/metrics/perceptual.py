"""Perceptual distance between images and their reconstructions, in the feature maps of a network.

    d(x, y) = mean over layers l of  mean over positions (h, w) of  || n(f_l(x))_hw - n(f_l(y))_hw ||^2

where n normalises the channel vector at each position to unit length (code in losses/perceptual.py).
This is equation 1 of Zhang, Isola, Efros, Shechtman and Wang 2018, arXiv:1801.03924 (LPIPS) with all weights w_l = 1,
and with the mean over layers instead of the sum, so that the scale does not depend on the number of layers. Without
weights fitted to human judgements it is not LPIPS: it compares results under the same feature extractor. It ranges
from 0 for equal maps to 4 for opposite ones, or to 2 if the features are never negative.

Layout of a map: (B, C_l, H_l, W_l).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.losses.perceptual import map_distance
from smalti.metrics.distortion import MeanOverImages


class MapExtractor(Protocol):
    """A feature extractor that gives feature maps, such as `smalti.features.extractor.Extractor`."""

    def maps(self, images: np.ndarray) -> Sequence[Tensor]: ...
    def record(self) -> dict[str, Any]: ...


class PerceptualDistance(MeanOverImages):
    """Mean perceptual distance over the images, as `perceptual_distance`."""

    name = "perceptual_distance"
    better = "lower"

    def __init__(self, extractor: MapExtractor) -> None:
        """
        Args:
            extractor: gives feature maps; its `record` holds the keys `name` and `digest`.
        """
        super().__init__()
        self.extractor = extractor
        record = extractor.record()
        self._extractor = str(record["name"]), str(record["digest"])

    def measure(self, originals: np.ndarray, results: np.ndarray) -> np.ndarray:
        """Two (B, H, W, C) uint8 arrays -> (B,) float64.

        Raises:
            DataError: the extractor gives no maps, or NaN or infinite values.
        """
        maps = list(zip(self.extractor.maps(originals), self.extractor.maps(results), strict=True))
        if not maps:
            raise DataError(f"{self._extractor[0]} gives no feature maps, so no perceptual distance; take another")
        distance: np.ndarray = np.mean([map_distance(a, b).double().cpu().numpy() for a, b in maps], axis=0)
        if not np.isfinite(distance).all():
            raise DataError(f"{self._extractor[0]} gives feature maps that are NaN or infinite; try float32 precision")
        return distance

    def check_compatible(self, other: Any) -> None:
        if self._extractor != other._extractor:
            (name, digest), (other_name, other_digest) = self._extractor, other._extractor
            raise ConfigError(
                f"distances under {name} ({digest[:12]}) and {other_name} ({other_digest[:12]}) cannot be merged"
            )

    def note(self) -> str:
        return f"unweighted distance of the feature maps of {self._extractor[0]}; not an LPIPS"
