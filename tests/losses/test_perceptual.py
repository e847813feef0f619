"""Perceptual loss: against numpy, its gradients, and images of various sizes and channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.features.extractor import extractor
from smalti.features.resizing import Preprocessing
from smalti.losses.perceptual import PerceptualLoss, map_distance
from smalti.metrics.perceptual import PerceptualDistance


class RandomNetwork(nn.Module):
    """Two convolutions with random weights; each layer's output is a map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 16, 3)])
        self.requires_grad_(False)
        self.seen: list[Tensor] = []

    def maps(self, images: Tensor) -> Sequence[Tensor]:
        self.seen.append(images.detach())
        found = []
        for layer in self.layers:
            images = F.relu(layer(images))
            found.append(images)
        return found


def made(side: int = 16) -> tuple[PerceptualLoss, RandomNetwork]:
    network, preprocessing = RandomNetwork(), Preprocessing((side, side), 3, (127.5,), (127.5,))
    return PerceptualLoss(network.maps, preprocessing.apply_to_tensor, preprocessing.size), network


def images(count: int = 2, height: int = 16, width: int = 16, *, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def by_hand(maps_a: Sequence[Tensor], maps_b: Sequence[Tensor]) -> float:
    layers = []
    for a, b in zip(maps_a, maps_b, strict=True):
        x, y = (each.double().numpy() for each in (a, b))
        x, y = (each / (np.linalg.norm(each, axis=1, keepdims=True) + 1e-10) for each in (x, y))
        layers.append(((x - y) ** 2).sum(axis=1).mean())
    return float(np.mean(layers))


def test_it_is_its_formula() -> None:
    loss, network = made()
    a, b = images(), images(seed=1)
    assert float(loss(a, b)) == pytest.approx(by_hand(network.maps(a), network.maps(b)), rel=1e-5)
    assert float(loss(a, b)) == pytest.approx(float(loss(b, a)), rel=1e-6)


def test_equal_images_are_no_distance_apart_and_opposite_maps_four() -> None:
    loss, _ = made()
    assert float(loss(images(), images())) == 0
    maps = torch.randn(3, 5, 2, 2)
    torch.testing.assert_close(map_distance(maps, -7 * maps), torch.full((3,), 4.0))
    torch.testing.assert_close(map_distance(maps, 7 * maps), torch.zeros(3))


def test_the_gradient_goes_to_the_result_alone_and_points_downhill() -> None:
    loss, network = made()
    result, original = images().requires_grad_(), images(seed=1).requires_grad_()
    before = loss(result, original)
    before.backward()
    assert original.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())
    assert result.grad is not None
    assert bool(result.grad.any())
    step = result.detach() - 0.1 * result.grad / result.grad.norm()
    assert float(loss(step, original)) < float(before.detach())


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_flat_images_and_dead_maps_have_a_finite_gradient(value: float) -> None:
    loss, network = made()
    for layer in network.layers:
        layer.bias.fill_(-100.0)  # makes all activations negative
    result = torch.full((2, 3, 16, 16), value).requires_grad_()
    loss(result, images()).backward()
    assert bool(result.grad.isfinite().all())


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 20), (16, 47), (40, 7)])
def test_larger_images_are_taken_apart_into_tiles(height: int, width: int) -> None:
    loss, network = made()
    a, b = images(2, height, width), images(2, height, width, seed=1)
    found = float(loss(a, b))
    down, right = -height % 16, -width % min(16, width)
    parts = []
    for image in (a, b):
        padded = np.pad(image.numpy(), ((0, 0), (0, 0), (0, down), (0, right)), mode="edge")
        side = min(16, width)
        parts.append(
            torch.from_numpy(
                np.concatenate(
                    [
                        padded[:, :, row : row + 16, column : column + side]
                        for row in range(0, height, 16)
                        for column in range(0, width, side)
                    ]
                )
            )
        )
    assert found == pytest.approx(float(loss(*parts)), rel=1e-5)
    assert network.seen[0].shape == (len(parts[0]), 3, 16, 16)


def test_smaller_images_are_made_larger() -> None:
    loss, network = made()
    a, b = images(2, 8, 8), images(2, 8, 8, seed=1)
    found = float(loss(a, b))
    assert network.seen[0].shape == (2, 3, 16, 16)
    larger = [F.interpolate(image, (16, 16), mode="bilinear", antialias=True) for image in (a, b)]
    assert found == pytest.approx(float(loss(*larger)), rel=1e-4)


@pytest.mark.parametrize("size", [8, 16, 20])
def test_grey_images_are_colour_images_without_colour(size: int) -> None:
    loss, _ = made()
    a, b = images(2, size, size, channels=1), images(2, size, size, channels=1, seed=1)
    expected = float(loss(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)))
    assert float(loss(a, b)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [8, 16])
def test_transparency_counts_as_white(size: int) -> None:
    loss, _ = made()
    a, b = images(2, size, size), images(2, size, size, seed=1)
    opaque, clear = torch.ones(2, 1, size, size), torch.full((2, 1, size, size), -1.0)
    assert float(loss(torch.cat([a, opaque], 1), torch.cat([b, opaque], 1))) == pytest.approx(
        float(loss(a, b)), rel=1e-4
    )
    assert float(loss(torch.cat([a, clear], 1), torch.cat([b, clear], 1))) == pytest.approx(0, abs=1e-6)
    result = torch.cat([a, clear], 1).requires_grad_()
    loss(result, torch.cat([b, opaque], 1)).backward()
    assert bool(result.grad.isfinite().all())


def test_the_extractor_that_comes_along_measures_the_same_as_a_figure() -> None:
    network = extractor("smalti-vit")
    height, width = network._preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, height, width, 3), dtype=np.uint8)
    figure = PerceptualDistance(network)
    figure.update(pixels[0], pixels[1])
    a, b = (torch.from_numpy(each).permute(0, 3, 1, 2).float() / 127.5 - 1 for each in pixels)
    result = a.clone().requires_grad_()
    loss = network.perceptual_loss()(result, b)
    assert float(loss.detach()) == pytest.approx(figure.compute()[0].value, rel=1e-4)
    loss.backward()
    assert bool(result.grad.isfinite().all())
    assert bool(result.grad.any())
