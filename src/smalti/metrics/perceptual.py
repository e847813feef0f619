"""How far apart two images are in the feature maps of a network.

    d(x, y) = mean over layers l of  mean over places (h, w) of  || n(f_l(x))_hw - n(f_l(y))_hw ||^2

with n making the vector of channels at a place unit length: the formula and its code are in losses/perceptual.py.
This is equation 1 of Zhang, Isola, Efros, Shechtman and Wang 2018, arXiv:1801.03924 (LPIPS) with all weights w_l = 1
and the mean of the layers in place of their sum, so that extractors with more layers do not count for more. No
weights are fitted to human judgements: the number compares results under one extractor, and is not an LPIPS. It runs
from 0 for equal maps to 4 for opposite ones, 2 where the features are never negative.

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
    """What is needed of a feature extractor."""

    def maps(self, images: np.ndarray) -> Sequence[Tensor]: ...
    def record(self) -> dict[str, Any]: ...


class PerceptualDistance(MeanOverImages):
    """The mean distance over the images: figure `perceptual_distance`."""

    name = "perceptual_distance"
    better = "lower"

    def __init__(self, extractor: MapExtractor) -> None:
        """`extractor` gives feature maps by `maps` and says what it is by `record`, with the keys name and digest."""
        super().__init__()
        self.extractor = extractor
        record = extractor.record()
        self._extractor = str(record["name"]), str(record["digest"])

    def measure(self, originals: np.ndarray, results: np.ndarray) -> np.ndarray:
        """(B, H, W, C) uint8 twice -> (B,) float64.

        Raises:
            DataError: the extractor gives no maps, or maps that are NaN or infinite.
        """
        maps = list(zip(self.extractor.maps(originals), self.extractor.maps(results), strict=True))
        if not maps:
            raise DataError(f"{self._extractor[0]} gives no feature maps, so no perceptual distance; take another")
        distance = np.mean([map_distance(a, b).double().cpu().numpy() for a, b in maps], axis=0)
        if not np.isfinite(distance).all():
            raise DataError(f"{self._extractor[0]} gives feature maps that are NaN or infinite; try float32 precision")
        return distance

    def agree(self, other: Any) -> None:
        if self._extractor != other._extractor:
            (name, digest), (other_name, other_digest) = self._extractor, other._extractor
            raise ConfigError(
                f"distances under {name} ({digest[:12]}) and {other_name} ({other_digest[:12]}) cannot be merged"
            )

    def note(self) -> str:
        return f"unweighted distance of the feature maps of {self._extractor[0]}; not an LPIPS"
