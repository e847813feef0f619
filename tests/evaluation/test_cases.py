"""Known cases: each introduces exactly its own flaw."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import ndimage

from smalti.data import emoji
from smalti.errors import ConfigError, DataError
from smalti.evaluation import cases


def pictures(count: int = 6, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 9, 12, channels), dtype=np.uint8)


# Blur


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_blur_is_scipys_gaussian(sigma: float, channels: int) -> None:
    images = pictures(channels=channels)
    expected = ndimage.gaussian_filter(images.astype(np.float64), (0, sigma, sigma, 0), truncate=4.0, mode="reflect")
    assert np.abs(cases.blurred(images, sigma) - expected).max() < 0.51


def test_a_wide_blur_of_a_small_image_is_its_mean() -> None:
    images = pictures(2)
    wide = cases.blurred(images, 100).astype(np.float64)
    assert np.abs(wide - images.mean(axis=(1, 2), keepdims=True)).max() < 1.5


def test_no_blur_is_a_copy_and_a_flat_image_stays() -> None:
    images = pictures()
    same = cases.blurred(images, 0)
    assert np.array_equal(same, images)
    assert same is not images
    flat = np.full((2, 8, 8, 3), 77, np.uint8)
    assert np.array_equal(cases.blurred(flat, 2), flat)


def test_transparent_pixels_lend_no_colour_to_a_blur() -> None:
    image = np.zeros((1, 9, 9, 4), np.uint8)
    image[:, :, :5] = (200, 10, 10, 255)
    result = cases.blurred(image, 1)
    seen = result[0, 4, result[0, 4, :, 3] > 0]
    assert np.abs(seen[:, :3].astype(int) - (200, 10, 10)).max() <= 1
    assert 0 < result[0, 4, 5, 3] < 255


@pytest.mark.parametrize("sigma", [-1, 101, float("nan")])
def test_an_impossible_sigma_is_refused(sigma: float) -> None:
    with pytest.raises(ConfigError, match="0 to 100 pixels"):
        cases.blurred(pictures(), sigma)


# Noise


def test_noise_has_its_standard_deviation() -> None:
    grey = np.full((300, 9, 12, 3), 128, np.uint8)
    difference = cases.noisy(grey, std=0.05, seed=3).astype(np.float64) - 128
    assert difference.std() == pytest.approx(12.75, rel=0.01)
    assert difference.mean() == pytest.approx(0, abs=0.15)


def test_noise_depends_on_the_seed_alone_and_spares_alpha() -> None:
    images = pictures(channels=4)
    assert np.array_equal(cases.noisy(images, seed=1), cases.noisy(images, seed=1))
    assert not np.array_equal(cases.noisy(images, seed=1), cases.noisy(images, seed=2))
    assert np.array_equal(cases.noisy(images)[..., 3], images[..., 3])
    assert np.array_equal(cases.noisy(images, std=0), images)
    with pytest.raises(ConfigError, match="share of the range"):
        cases.noisy(images, std=-0.1)


# Classes


def test_dropped_classes_are_gone_and_the_rest_keeps_its_order() -> None:
    images, labels = pictures(6), np.array([0, 1, 2, 1, 0, 2])
    left, kept = cases.without_classes(images, labels, {1})
    assert kept.tolist() == [0, 2, 0, 2]
    assert np.array_equal(left, images[[0, 2, 4, 5]])


@pytest.mark.parametrize(("dropped", "message"), [({9}, "class 9 cannot be dropped"), ({0, 1}, "leaves no image")])
def test_classes_that_cannot_be_dropped(dropped: set[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        cases.without_classes(pictures(4), np.array([0, 1, 0, 1]), dropped)


def test_labels_must_fit() -> None:
    with pytest.raises(DataError, match="4 images need as many labels"):
        cases.without_classes(pictures(4), np.zeros(3, int), {0})


# Copies


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.001, 1), (0.1, 5), (1, 50)])
def test_a_share_of_a_generators_output_is_copied(share: float, expected: int) -> None:
    generated, training = pictures(50, seed=1), pictures(80, seed=2)
    planted = cases.with_copies(generated, training, share, seed=4)
    copied = planted.sources >= 0
    assert copied.sum() == expected == sum(kind == "exact" for kind in planted.kinds)
    assert np.array_equal(planted.images[copied], training[planted.sources[copied]])
    assert np.array_equal(planted.images[~copied], generated[~copied])
    assert len(set(planted.sources[copied])) == expected


def test_degraded_copies_are_planted_too() -> None:
    generated, training = pictures(50, seed=1), pictures(80, seed=2)
    planted = cases.with_copies(generated, training, 0.4, degraded=True)
    assert set(planted.kinds) == {"", *cases.DEGRADATIONS}
    with pytest.raises(ConfigError, match="0 to 1"):
        cases.with_copies(generated, training, 1.5)
    with pytest.raises(DataError, match="resize one of them"):
        cases.with_copies(generated, pictures(5, channels=1), 0.5)


def test_each_kind_of_copy_is_as_frequent_and_what_it_says() -> None:
    training = emoji.read("test").images[:120, ..., :3]
    copies = cases.degraded_copies(training, 100, seed=5)
    assert Counter(copies.kinds) == dict.fromkeys(cases.DEGRADATIONS, 20)
    assert len(set(copies.sources)) == 100
    for copy, source, kind in zip(copies.images, copies.sources, copies.kinds, strict=True):
        original, copied = training[source].astype(int), copy.astype(int)
        if kind == "exact":
            assert np.array_equal(copied, original)
        elif kind == "mirror":
            assert np.array_equal(copied[:, ::-1], original)
        elif kind == "brightness":
            assert 1 <= np.abs(copied - original).max() <= 5
        elif kind == "jpeg":
            assert 0 < np.abs(copied - original).mean() < 20  # chroma subsampling is visible in drawings
        else:
            assert kind == "shift"
            assert any(
                np.array_equal(np.roll(original, shift, (0, 1))[1:-1, 1:-1], copied[1:-1, 1:-1])
                for shift in ((0, 1), (0, -1), (1, 0), (-1, 0))
            )


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", list(cases.DEGRADATIONS))
def test_copies_keep_shape_and_type(kind: str, channels: int) -> None:
    training = pictures(3, channels)
    copies = cases.degraded_copies(training, 7, kinds=(kind,))
    assert copies.images.shape == (7, *training.shape[1:])
    assert copies.images.dtype == np.uint8
    assert sorted(Counter(copies.sources.tolist()).values()) == [2, 2, 3]  # every image once before any repeats
    if channels == 4 and kind in ("jpeg", "brightness"):
        assert np.array_equal(copies.images[..., 3], training[copies.sources][..., 3])


def test_impossible_copies_are_refused() -> None:
    assert cases.degraded_copies(pictures(), 0).images.shape == (0, 9, 12, 3)
    with pytest.raises(ConfigError, match="at least 0"):
        cases.degraded_copies(pictures(), -1)
    with pytest.raises(ConfigError, match="not by melt"):
        cases.degraded_copies(pictures(), 2, kinds=("melt",))


@pytest.mark.parametrize(
    "images", [np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 4, 4, 2), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_what_are_no_images_is_refused_by_every_case(images: np.ndarray) -> None:
    for case in (
        lambda: cases.blurred(images, 1),
        lambda: cases.noisy(images),
        lambda: cases.without_classes(images, np.zeros(2, int), {0}),
        lambda: cases.with_copies(images, pictures(), 0.5),
        lambda: cases.degraded_copies(images, 1),
    ):
        with pytest.raises(DataError, match="expected uint8 images"):
            case()
