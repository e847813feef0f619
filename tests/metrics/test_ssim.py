"""SSIM and MS-SSIM against scikit-image, torchmetrics and an independent implementation of the formula."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from smalti.errors import ConfigError, DataError
from smalti.metrics.ssim import WEIGHTS, MultiScaleStructuralSimilarity, StructuralSimilarity, TooSmallError, scales_for


def pictures(count: int, height: int, width: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(height * width)
    clouds = scipy.ndimage.gaussian_filter(generator.normal(size=(count, height, width, channels)), (0, 2, 2, 0))
    clouds = (clouds - clouds.min()) / (clouds.max() - clouds.min()) * 255
    damaged = np.clip(clouds + 20 * generator.normal(size=clouds.shape), 0, 255)
    return clouds.astype(np.uint8), damaged.astype(np.uint8)


def as_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize("shape", [(3, 32, 32, 3), (2, 11, 11, 1), (2, 12, 80, 4), (1, 150, 75, 3)])
def test_ssim_equals_that_of_scikit_image(shape: tuple[int, int, int, int]) -> None:
    originals, results = pictures(*shape)
    ours = StructuralSimilarity().measure(originals, results)
    theirs = [
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
        )
        for a, b in zip(originals, results, strict=True)
    ]
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("shape", [(2, 176, 176, 3), (1, 183, 240, 1), (3, 32, 32, 3), (2, 15, 40, 3), (1, 99, 100, 4)])
def test_ms_ssim_equals_that_of_torchmetrics(shape: tuple[int, int, int, int]) -> None:
    originals, results = pictures(*shape)
    metric = MultiScaleStructuralSimilarity()
    ours = metric.measure(originals, results)
    weights = np.array(WEIGHTS[: metric.scales])
    theirs = multiscale_structural_similarity_index_measure(
        as_tensor(results),
        as_tensor(originals),
        data_range=255.0,
        betas=tuple((weights / weights.sum()).tolist()),
        reduction="none",
    )
    assert ours == pytest.approx(theirs.numpy(), abs=5e-6)  # theirs in float32
    assert metric.scales == (5 if min(shape[1:3]) >= 176 else scales_for(*shape[1:3]))


def by_hand(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    """MS-SSIM of two (H, W) float64 images with windows inside the image, by scipy's Gaussian filter."""

    def smooth(x: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(x, 1.5, radius=5)[5:-5, 5:-5]

    value = 1.0
    for scale, weight in enumerate(weights):
        mean_a, mean_b = smooth(a), smooth(b)
        contrast = (2 * (smooth(a * b) - mean_a * mean_b) + 58.5225) / (
            smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2 + 58.5225
        )
        luminance = (2 * mean_a * mean_b + 6.5025) / (mean_a**2 + mean_b**2 + 6.5025)
        term = (contrast * luminance if scale == len(weights) - 1 else contrast).mean()
        value *= max(term, 0.0) ** weight
        height, width = (side // 2 * 2 for side in a.shape)
        a, b = (x[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for x in (a, b))
    return value


@pytest.mark.parametrize("size", [32, 45, 176])
def test_ms_ssim_with_windows_inside_equals_the_formula(size: int) -> None:
    originals, results = pictures(2, size, size + 3, 3)
    metric = MultiScaleStructuralSimilarity(border="inside")
    ours = metric.measure(originals, results)
    weights = np.array(WEIGHTS[: metric.scales]) / sum(WEIGHTS[: metric.scales])
    channels = [
        [by_hand(a[..., c].astype(float), b[..., c].astype(float), weights) for c in range(3)]
        for a, b in zip(originals, results, strict=True)
    ]
    assert ours == pytest.approx(np.mean(channels, axis=1), abs=1e-9)
    metric.update(originals, results)
    assert "inside" in metric.compute()[0].note


@pytest.mark.parametrize(
    ("side", "scales"), [(11, 1), (21, 1), (22, 2), (32, 2), (44, 3), (64, 3), (175, 4), (176, 5), (999, 5)]
)
def test_small_images_get_fewer_scales_and_the_note_says_so(side: int, scales: int) -> None:
    assert scales_for(side, side + 7) == scales_for(side + 7, side) == scales
    if side < 100:
        metric = MultiScaleStructuralSimilarity()
        metric.update(*pictures(1, side, side, 1))
        assert f"{scales} scale" in metric.compute()[0].note


def test_five_scales_need_no_note() -> None:
    metric = MultiScaleStructuralSimilarity()
    metric.update(*pictures(1, 176, 176, 1))
    assert metric.compute()[0].note == ""


@pytest.mark.parametrize("metric", [StructuralSimilarity(), MultiScaleStructuralSimilarity()])
def test_an_image_smaller_than_the_window_has_an_error_of_its_own(metric: StructuralSimilarity) -> None:
    with pytest.raises(TooSmallError, match="at least 11 pixels, found 10x40"):
        metric.update(*pictures(2, 10, 40, 3))
    assert issubclass(TooSmallError, DataError)


def test_sizes_with_room_for_other_numbers_of_scales_are_not_mixed() -> None:
    metric, other = MultiScaleStructuralSimilarity(), MultiScaleStructuralSimilarity()
    metric.update(*pictures(1, 32, 32, 3))
    metric.update(*pictures(1, 40, 33, 3))
    with pytest.raises(DataError, match="room for 2 scales, and now some with room for 3"):
        metric.update(*pictures(1, 48, 48, 3))
    other.update(*pictures(1, 48, 48, 3))
    with pytest.raises(DataError, match="measure them apart"):
        metric.merge(other)
    assert metric.compute()[0].count == 2


def test_unknown_borders_are_refused() -> None:
    with pytest.raises(ConfigError, match="mirrored, inside"):
        MultiScaleStructuralSimilarity(border="wrapped")


def test_opposite_structure_is_below_zero_for_ssim_and_zero_for_ms_ssim() -> None:
    board = np.indices((24, 24)).sum(0) % 2 * 255
    originals = board.astype(np.uint8)[None, :, :, None]
    assert StructuralSimilarity().measure(originals, 255 - originals) < -0.9
    assert MultiScaleStructuralSimilarity().measure(originals, 255 - originals) == 0


def test_many_images_are_measured_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    originals, results = pictures(7, 24, 24, 3)
    whole = MultiScaleStructuralSimilarity().measure(originals, results)
    monkeypatch.setattr("smalti.metrics.ssim._AT_ONCE", 2 * 24 * 24 * 3)
    assert MultiScaleStructuralSimilarity().measure(originals, results) == pytest.approx(whole, abs=1e-12)
