"""Perceptual distance with a stand-in feature extractor, a random network of two layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import ConfigError, DataError
from smalti.metrics.perceptual import PerceptualDistance


class RandomNetwork:
    """Two convolutions with random weights; each layer's output is a map."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.seed = seed
        self.weights = [torch.randn(shape, generator=generator) for shape in ((8, 3, 3, 3), (16, 8, 3, 3))]

    def maps(self, images: np.ndarray) -> list[Tensor]:
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)) / 127.5 - 1
        layers = []
        for weight in self.weights:
            x = F.relu(F.conv2d(x, weight, stride=2))
            layers.append(x)
        return layers

    def record(self) -> dict[str, Any]:
        return {"name": "random network", "digest": f"{self.seed:064x}"}


def pictures(count: int = 6, size: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def figure_of(originals: np.ndarray, results: np.ndarray, extractor: Any = None) -> Any:
    metric = PerceptualDistance(extractor or RandomNetwork())
    metric.update(originals, results)
    return metric.compute()[0]


def test_it_is_nothing_for_the_same_images_and_grows_with_blur() -> None:
    images = pictures()
    blurred = [scipy.ndimage.gaussian_filter(images, (0, sigma, sigma, 0)) for sigma in (0.0, 0.4, 0.8, 1.6)]
    values = [figure_of(images, each).value for each in blurred]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[1] > 0.001


def test_it_is_the_formula_of_the_paper_with_weights_of_one() -> None:
    network, a, b = RandomNetwork(), pictures(), pictures()[::-1]
    layers = []
    for x, y in zip(network.maps(a), network.maps(b), strict=True):
        x, y = (m.numpy().astype(np.float64) for m in (x, y))
        x, y = (m / (np.linalg.norm(m, axis=1, keepdims=True) + 1e-10) for m in (x, y))
        count, _, height, width = x.shape
        layers.append([((x[i] - y[i]) ** 2).sum() / (height * width) for i in range(count)])
    expected = np.mean(layers, axis=0)
    figure = figure_of(a, b, network)
    assert PerceptualDistance(network).measure(a, b) == pytest.approx(expected, rel=1e-5)
    assert figure.value == pytest.approx(expected.mean(), rel=1e-5)
    assert figure.name == "perceptual_distance"
    assert figure.better == "lower"
    assert "random network" in figure.note


def test_it_is_symmetric_and_knows_nothing_of_the_strength_of_features() -> None:
    class Louder(RandomNetwork):
        def maps(self, images: np.ndarray) -> list[Tensor]:
            return [7 * layer for layer in super().maps(images)]

    a, b = pictures(), pictures()[::-1]
    value = figure_of(a, b).value
    assert figure_of(b, a).value == pytest.approx(value, rel=1e-6)
    assert figure_of(a, b, Louder()).value == pytest.approx(value, rel=1e-5)


def test_features_that_vanish_are_at_no_distance_from_each_other() -> None:
    class Dead(RandomNetwork):
        def maps(self, images: np.ndarray) -> list[Tensor]:
            return [torch.zeros(len(images), 4, 2, 2)]

    assert figure_of(pictures(), pictures()[::-1], Dead()).value == 0


def test_different_extractors_are_not_merged() -> None:
    with pytest.raises(ConfigError, match="random network"):
        PerceptualDistance(RandomNetwork(0)).merge(PerceptualDistance(RandomNetwork(1)))
    same = PerceptualDistance(RandomNetwork(0))
    same.update(pictures(), pictures()[::-1])
    merged = PerceptualDistance(RandomNetwork(0))
    merged.merge(same)
    assert merged.compute() == same.compute()


@pytest.mark.parametrize(("value", "what"), [(None, "no feature maps"), (float("nan"), "NaN"), (float("inf"), "NaN")])
def test_maps_that_cannot_be_compared_are_refused(value: float | None, what: str) -> None:
    class Broken(RandomNetwork):
        def maps(self, images: np.ndarray) -> list[Tensor]:
            return [] if value is None else [torch.full((len(images), 2, 3, 3), value)]

    with pytest.raises(DataError, match=what):
        PerceptualDistance(Broken()).update(pictures(), pictures())
