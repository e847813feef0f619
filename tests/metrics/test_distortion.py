"""PSNR as in the compression literature, and properties of all pair metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.image import PeakSignalNoiseRatio

from smalti.errors import ConfigError, DataError
from smalti.metrics.distortion import PeakSignalToNoise, psnr_db, squared_error, squared_error_uint8
from smalti.metrics.metric import MetricValue, PairMetric
from smalti.metrics.perceptual import PerceptualDistance
from smalti.metrics.ssim import MultiScaleStructuralSimilarity, StructuralSimilarity


def test_the_psnr_of_an_error_known_by_heart() -> None:
    a = torch.zeros(2, 3, 4, 5)
    total, count = squared_error(a, a + 0.2)  # 0.1 in [0, 1] units: 20 dB
    assert count == 120
    assert psnr_db(total, count) == pytest.approx(20, abs=1e-5)
    assert psnr_db(*squared_error_uint8(np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8))) == pytest.approx(0)
    assert psnr_db(0.0, 7) == math.inf


def test_both_kinds_of_pixels_agree() -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8) for _ in range(2))
    total, count = squared_error_uint8(a, b)
    expected = np.mean((a / 255 - b / 255) ** 2)
    assert psnr_db(total, count) == pytest.approx(-10 * math.log10(expected))
    floats = squared_error(*(torch.from_numpy(x).double() / 127.5 - 1 for x in (a, b)))
    assert floats == (pytest.approx(total), count)


def test_the_error_is_pooled_before_the_logarithm() -> None:
    parts = [squared_error(torch.zeros(10), torch.full((10,), d)) for d in (0.02, 0.2)]
    pooled = psnr_db(sum(p[0] for p in parts), sum(p[1] for p in parts))
    assert pooled < np.mean([psnr_db(*p) for p in parts])
    assert pooled == pytest.approx(-10 * math.log10((0.01**2 + 0.1**2) / 2), abs=1e-5)


def test_equal_images_have_no_error() -> None:
    a = torch.rand(2, 3, 4, 4)
    assert psnr_db(*squared_error(a, a)) == math.inf


PAIR_METRICS: dict[str, Callable[[], PairMetric]] = {
    "psnr": PeakSignalToNoise,
    "ssim": StructuralSimilarity,
    "ms-ssim": MultiScaleStructuralSimilarity,
    "ms-ssim inside": lambda: MultiScaleStructuralSimilarity(border="inside"),
    "perceptual": lambda: PerceptualDistance(Edges()),
}


class Edges:
    """A stand-in for a feature extractor: differences to the left and upper neighbour, and their size."""

    def maps(self, images: np.ndarray) -> list[torch.Tensor]:
        x = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)
        across, down = x[..., 1:, 1:] - x[..., 1:, :-1], x[..., 1:, 1:] - x[..., :-1, 1:]
        return [torch.cat([across, down, x[..., 1:, 1:]], 1)]

    def record(self) -> dict[str, Any]:
        return {"name": "edges", "digest": "0" * 64}


def pairs(seed: int, count: int, size: int = 16, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Smooth pictures and noisy copies, with a different noise level for each image."""
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 255, (4, count, 1, 1, channels))
    y, x = np.meshgrid(*[np.linspace(0, 1, size)] * 2, indexing="ij")
    y, x = y[None, :, :, None], x[None, :, :, None]
    smooth = corners[0] * y * x + corners[1] * y * (1 - x) + corners[2] * (1 - y) * x + corners[3] * (1 - y) * (1 - x)
    noise = generator.normal(size=smooth.shape) * generator.uniform(2, 30, (count, 1, 1, 1))
    return smooth.astype(np.uint8), np.clip(smooth + noise, 0, 255).astype(np.uint8)


def measured(metric: PairMetric, originals: np.ndarray, results: np.ndarray) -> MetricValue:
    metric.update(originals, results)
    return metric.compute()[0]


@pytest.mark.parametrize("name", PAIR_METRICS)
@hypothesis.given(
    counts=st.lists(st.integers(0, 3), min_size=2, max_size=5).filter(any), channels=st.sampled_from([1, 3, 4])
)
@hypothesis.settings(max_examples=8)
def test_parts_that_are_merged_in_any_order_give_what_one_pass_gives(
    name: str, counts: list[int], channels: int
) -> None:
    originals, results = pairs(sum(counts), sum(counts), channels=channels)
    whole = measured(PAIR_METRICS[name](), originals, results)
    ends = np.cumsum(counts)
    parts = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        part = PAIR_METRICS[name]()
        part.update(originals[start:end], results[start:end])
        parts.append(part)
    merged = parts.pop()
    for part in parts:
        merged.merge(part)
    again = merged.compute()[0]
    assert again.count == whole.count == sum(counts)
    for end in ("value", "low", "high"):
        theirs = getattr(whole, end)
        assert getattr(again, end) == (theirs if theirs is None else pytest.approx(theirs, rel=1e-6))


@pytest.mark.parametrize("name", PAIR_METRICS)
def test_an_interval_holds_its_value_and_equal_images_are_the_best_there_is(name: str) -> None:
    originals, results = pairs(0, 40)
    figure = measured(PAIR_METRICS[name](), originals, results)
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low < figure.value < figure.high
    perfect = measured(PAIR_METRICS[name](), originals, originals)
    assert perfect.value == pytest.approx({"psnr": math.inf, "perceptual": 0}.get(name, 1), abs=1e-12)
    assert (perfect.value > figure.high) == (figure.better == "higher")


@pytest.mark.parametrize("name", PAIR_METRICS)
@pytest.mark.parametrize("colours", [(0, 0), (255, 255), (0, 255)])
def test_images_of_one_colour_have_a_finite_distance(name: str, colours: tuple[int, int]) -> None:
    originals, results = (np.full((2, 12, 12, 3), colour, np.uint8) for colour in colours)
    value = measured(PAIR_METRICS[name](), originals, results).value
    assert math.isfinite(value) or (name == "psnr" and colours[0] == colours[1])


@pytest.mark.parametrize("name", PAIR_METRICS)
def test_one_image_has_a_figure_and_no_interval(name: str) -> None:
    figure = measured(PAIR_METRICS[name](), *pairs(0, 1))
    assert (figure.low, figure.high, figure.count) == (None, None, 1)


@pytest.mark.parametrize("name", PAIR_METRICS)
def test_pairs_that_are_none_are_refused_and_leave_nothing_behind(name: str) -> None:
    metric = PAIR_METRICS[name]()
    image = np.zeros((2, 16, 16, 3), np.uint8)
    for originals, results, what in (
        (image, image[:1], "same size"),
        (image, image[..., :1], "same size"),
        (image, np.zeros((2, 16, 15, 3), np.uint8), "same size"),
        (image.astype(np.float32), image, "float32, but must be uint8"),
        (image, image.astype(np.int64), "int64, but must be uint8"),
        (image[0], image[0], "expected"),
        (image[:, :0], image[:, :0], "expected"),
    ):
        with pytest.raises(DataError, match=what):
            metric.update(originals, results)
    with pytest.raises(DataError, match="before any image"):
        metric.compute()
    metric.update(image[:0], image[:0])  # an empty batch is valid
    with pytest.raises(DataError, match="before any image"):
        metric.compute()


def test_different_metrics_are_not_merged() -> None:
    with pytest.raises(ConfigError, match="merge like with like"):
        PeakSignalToNoise().merge(StructuralSimilarity())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="merge like with like"):
        StructuralSimilarity().merge(MultiScaleStructuralSimilarity())
    with pytest.raises(ConfigError, match="'mirrored' and with 'inside'"):
        MultiScaleStructuralSimilarity().merge(MultiScaleStructuralSimilarity(border="inside"))


def test_the_psnr_equals_that_of_two_libraries() -> None:
    originals, results = pairs(1, 9)
    figure = measured(PeakSignalToNoise(), originals, results)
    assert figure.value == pytest.approx(peak_signal_noise_ratio(originals, results, data_range=255), abs=1e-9)
    theirs = PeakSignalNoiseRatio(data_range=255.0)
    theirs.update(torch.from_numpy(results).double(), torch.from_numpy(originals).double())
    assert figure.value == pytest.approx(float(theirs.compute()), abs=1e-5)


def test_images_of_several_sizes_are_pooled_by_the_pixel() -> None:
    metric = PeakSignalToNoise()
    for size, error in ((4, 10), (8, 20)):
        metric.update(np.zeros((3, size, size, 3), np.uint8), np.full((3, size, size, 3), error, np.uint8))
    figure = metric.compute()[0]
    assert figure.value == pytest.approx(-10 * math.log10((16 * 10**2 + 64 * 20**2) / 80 / 255**2))
    assert figure.low < figure.value < figure.high  # type: ignore[operator]


def test_a_psnr_without_error_is_infinite_and_few_errors_make_an_interval_that_reaches_there() -> None:
    image = np.zeros((3, 8, 8, 1), np.uint8)
    perfect = measured(PeakSignalToNoise(), image, image)
    assert (perfect.value, perfect.low, perfect.high) == (math.inf, math.inf, math.inf)
    assert perfect.note
    other = image.copy()
    other[0] = 5
    some = measured(PeakSignalToNoise(), image, other)
    assert some.low is not None
    assert math.isfinite(some.value)
    assert math.isfinite(some.low)
    assert some.high == math.inf  # a third of the resamples omit the damaged image
