"""Random windows of larger images: places, order, mirror images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smalti.data.crops import CroppedImages
from smalti.data.dataset import Dataset
from smalti.data.packed import Description, PackedImages
from smalti.errors import ConfigError

HEIGHT, WIDTH = 9, 13


def packed(count: int = 6, *, height: int = HEIGHT, width: int = WIDTH) -> PackedImages:
    """Images whose pixels say which image and which place they are: (number, row, column)."""
    images = np.zeros((count, height, width, 3), np.uint8)
    images[..., 0] = np.arange(count)[:, None, None]
    images[..., 1], images[..., 2] = np.mgrid[:height, :width]
    names = [str(number) for number in range(count)]
    return PackedImages(
        images, np.arange(count) % 2, Description("memory", "train", (), ("a", "b"), names, None, "", ())
    )


def places(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number, row and left column of each window, which must be one piece of one image, or its mirror image."""
    count, side = windows.shape[:2]
    assert (windows[..., 0] == windows[:, :1, :1, 0]).all()
    assert (windows[..., 1] == windows[:, :1, :1, 1] + np.arange(side)[:, None]).all()
    columns = windows[..., 2].astype(int)
    steps = np.diff(columns, axis=2)
    assert (np.abs(steps) == 1).all() if side > 1 else steps.size == 0
    assert (steps == steps[:, :1, :1]).all()
    assert count == len(windows)
    return windows[:, 0, 0, 0].astype(int), windows[:, 0, 0, 1].astype(int), columns.min(axis=(1, 2))


def mirrored(windows: np.ndarray) -> np.ndarray:
    return windows[:, 0, 1, 2].astype(int) < windows[:, 0, 0, 2]


def test_files_that_could_not_be_read_are_known() -> None:
    description = Description("memory", "train", (), (), ["a"], None, "", (("b.png", "not an image"),))
    images = PackedImages(np.zeros((1, HEIGHT, WIDTH, 3), np.uint8), None, description)
    assert CroppedImages(images, 4).augmented().skipped == images.skipped == (("b.png", "not an image"),)


def test_windows_are_a_dataset() -> None:
    data: Dataset = CroppedImages(packed(), 4)
    assert data.spec.shape == (3, 4, 4)
    assert len(data) == 6
    whole = packed()
    assert (data.source, data.split, data.classes) == (whole.source, whole.split, whole.classes)
    assert (data.fingerprint, data.provenance) == (whole.fingerprint, whole.provenance)
    assert len(data.batch(0, 0, 6).images) == 6


@given(st.integers(-(2**70), 2**70), st.integers(0, 10**9), st.integers(0, 30), st.integers(1, HEIGHT), st.booleans())
def test_a_window_is_one_piece_of_its_image(seed: int, images_seen: int, count: int, side: int, flip: bool) -> None:
    data, whole = CroppedImages(packed(), side, flip=flip), packed()
    batch = data.batch(seed, images_seen, count)
    assert batch.images.shape == (count, side, side, 3)
    assert batch.images.dtype == np.uint8
    same = whole.batch(seed, images_seen, count)
    assert np.array_equal(batch.indices, same.indices)
    assert batch.labels is not None
    assert np.array_equal(batch.labels, same.labels)
    if count and side > 1:
        numbers, rows, columns = places(batch.images)
        assert np.array_equal(numbers, batch.indices)
        assert rows.max() <= HEIGHT - side
        assert columns.max() <= WIDTH - side
        assert flip or not mirrored(batch.images).any()


@given(st.integers(0, 2**40), st.integers(0, 10**6), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.booleans())
def test_batches_put_together_are_the_long_batch(seed: int, images_seen: int, counts: list[int], flip: bool) -> None:
    """So that a training goes on where it was, with any size of batches."""
    data = CroppedImages(packed(), 4, flip=flip)
    whole, seen = data.batch(seed, images_seen, sum(counts)).images, images_seen
    parts = []
    for count in counts:
        parts.append(data.batch(seed, seen, count).images)
        seen += count
    assert np.array_equal(np.concatenate(parts), whole)


def test_every_place_is_as_likely_as_any_other() -> None:
    data = CroppedImages(packed(), 6, flip=True)
    images = data.batch(3, 0, 12_000).images
    _, rows, columns = places(images)
    counts = np.histogram2d(rows, columns, bins=(range(5), range(9)))[0]
    assert counts.shape == (4, 8)
    expected = 12_000 / 32
    assert np.abs(counts - expected).max() < 5 * expected**0.5
    assert abs(mirrored(images).mean() - 0.5) < 0.03
    # The place has nothing to do with whether it is mirrored, or with the place in the epoch before.
    assert abs(np.corrcoef(rows, mirrored(images))[0, 1]) < 0.05
    assert abs(np.corrcoef(rows[:-6], rows[6:])[0, 1]) < 0.05
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.05


def test_another_seed_gives_other_places() -> None:
    data = CroppedImages(packed(1), 4)
    first, second = (places(data.batch(seed, 0, 40).images)[1] for seed in (0, 1))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, places(data.batch(0, 0, 40).images)[1])


def test_taken_windows_are_in_the_middle() -> None:
    data = CroppedImages(packed(), 4, flip=True)
    batch = data.take(np.array([3, 0]))
    numbers, rows, columns = places(batch.images)
    assert numbers.tolist() == [3, 0]
    assert set(rows) == {2}  # of 0 to 5
    assert set(columns) == {4}  # of 0 to 9
    assert batch.indices.tolist() == [3, 0]


def test_windows_as_large_as_the_image_are_the_image() -> None:
    whole = packed(height=5, width=5)
    data = CroppedImages(whole, 5)
    assert np.array_equal(data.batch(0, 0, 6).images, whole.batch(0, 0, 6).images)
    assert np.array_equal(data.take(np.arange(6)).images, whole.take(np.arange(6)).images)


def test_as_many_variants_as_cover_the_image() -> None:
    assert CroppedImages(packed(), 4).variants == 3 * 4
    assert CroppedImages(packed(), 4, flip=True).variants == 2 * 3 * 4
    assert CroppedImages(packed(height=5, width=5), 5).variants == 1


def test_augmented_windows_are_mirrored() -> None:
    data = CroppedImages(packed(), 4)
    for flip in (False, True):
        assert mirrored(data.augmented(flip=flip).batch(0, 0, 40).images).any() == flip
    assert not mirrored(data.batch(0, 0, 40).images).any()
    with pytest.raises(AssertionError):
        data.augmented(shift=2)


def test_a_window_larger_than_the_images_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"crop.* is 10, but the images of memory have only 9x13 pixels; give at most 9"
    ):
        CroppedImages(packed(), 10)
