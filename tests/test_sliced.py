"""The sliced distance: small for the same images, growing with damage."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sliced import sliced_wasserstein
from torch import Tensor


def pictures(seed: int, count: int = 128, size: int = 16, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, channels, size // 2, size // 2, generator=generator) * 2 - 1
    noise = 0.05 * torch.randn(count, channels, size, size, generator=generator)
    return (F.interpolate(small, (size, size), mode="bilinear") + noise).clamp(-1, 1)


def distance(a: Tensor, b: Tensor, seed: int = 0) -> float:
    return sliced_wasserstein(a, b, generator=torch.Generator().manual_seed(seed))


def test_the_same_distribution_is_near_and_noise_and_blur_are_farther_the_stronger_they_are() -> None:
    real = pictures(0)
    near = distance(real, pictures(1))
    assert near < 0.15
    noisy = [distance(real, pictures(1) + s * torch.randn(real.shape, generator=torch.Generator().manual_seed(2)))
             for s in (0.3, 0.6, 1.2)]  # fmt: skip
    assert near < noisy[0] < noisy[1] < noisy[2]
    blurred = [
        distance(real, F.avg_pool2d(pictures(1), k, stride=1, padding=k // 2, count_include_pad=False)) for k in (3, 5)
    ]
    assert near < blurred[0] < blurred[1]


def test_it_repeats_with_its_generator_and_nearly_without() -> None:
    a, b = pictures(0), pictures(1) * 0.3
    assert distance(a, b) == distance(a, b)
    assert distance(a, b, 1) == pytest.approx(distance(a, b), rel=0.25)


def test_the_scale_of_the_pixels_does_not_matter() -> None:
    a, b = pictures(0), pictures(1) * 0.5
    assert distance(a * 10, b * 10) == pytest.approx(distance(a, b), rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (6, 20), (7, 7), (8, 9), (14, 13)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_is_compared(shape: tuple[int, int], channels: int) -> None:
    torch.manual_seed(0)
    a = torch.rand(16, channels, *shape)
    assert distance(a, a - 1) > 0.5
    assert math.isfinite(distance(torch.zeros(4, channels, *shape), torch.zeros(4, channels, *shape)))


def test_one_colour_against_itself_is_nothing() -> None:
    assert distance(torch.ones(4, 3, 8, 8), torch.ones(4, 3, 8, 8)) == 0
