"""Batches of packed images as a function of (seed, images seen)."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_files import pictures, write_files

from smalti.data import PackedImages, load
from smalti.data.order import permutation
from smalti.data.packed import Description, flips, shifts

positions = st.integers(0, 10**9)
seeds = st.integers(-(2**70), 2**70)


def in_memory(count: int, *, labelled: bool = True) -> PackedImages:
    images = np.random.default_rng(count).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)
    labels = np.arange(count) % 3 if labelled else None
    names = [str(i) for i in range(count)]
    return PackedImages(images, labels, Description("memory", None, (), ("a", "b", "c"), names, None, "", ()))


@given(seeds, st.integers(0, 2**40), st.integers(1, 500))
def test_every_epoch_shows_every_image_once(seed: int, epoch: int, count: int) -> None:
    order = permutation(seed, epoch, count)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(count))


@given(
    seeds,
    positions,
    st.integers(1, 40),
    st.lists(st.integers(0, 30), min_size=1, max_size=5),
    st.booleans(),
    st.integers(0, 3),
)
def test_batches_put_together_are_the_long_batch(
    seed: int, images_seen: int, size: int, counts: list[int], flip: bool, shift: int
) -> None:
    packed = in_memory(size)
    whole = packed.batch(seed, images_seen, sum(counts), flip=flip, shift=shift)
    parts, seen = [], images_seen
    for count in counts:
        parts.append(packed.batch(seed, seen, count, flip=flip, shift=shift))
        seen += count
    assert np.array_equal(np.concatenate([part.images for part in parts]), whole.images)
    assert np.array_equal(np.concatenate([part.indices for part in parts]), whole.indices)
    assert whole.labels is not None
    assert np.array_equal(whole.labels, whole.indices % 3)


@given(seeds, positions, st.integers(0, 64))
def test_batch_does_not_depend_on_what_was_asked_before(seed: int, images_seen: int, count: int) -> None:
    fresh, used = in_memory(10), in_memory(10)
    for other in range(4):
        used.batch(other, 7 * other, 12, flip=True)
    a, b = fresh.batch(seed, images_seen, count, flip=True), used.batch(seed, images_seen, count, flip=True)
    assert np.array_equal(a.images, b.images)
    assert np.array_equal(a.indices, b.indices)


@given(seeds, positions)
def test_a_flipped_batch_is_the_batch_with_half_of_it_mirrored(seed: int, images_seen: int) -> None:
    packed = in_memory(9)
    plain, flipped = packed.batch(seed, images_seen, 20), packed.batch(seed, images_seen, 20, flip=True)
    for mirrored, before, after in zip(flips(seed, images_seen, 20), plain.images, flipped.images, strict=True):
        assert np.array_equal(after, before[:, ::-1] if mirrored else before)


@given(seeds, positions, st.integers(0, 3))
def test_a_shifted_batch_is_the_batch_with_each_image_moved_and_mirrored_at_its_border(
    seed: int, images_seen: int, reach: int
) -> None:
    packed = in_memory(9)
    plain, moved = (packed.batch(seed, images_seen, 20, flip=True, shift=shift) for shift in (0, reach))
    pairs = zip(shifts(seed, images_seen, 20, reach), plain.images, moved.images, strict=True)
    for (down, right), before, after in pairs:
        wide = np.pad(before, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
        top, left = reach + down, reach + right
        assert np.array_equal(after, wide[top : top + 4, left : left + 6])


def test_the_stream_never_changes() -> None:
    """Runs that were stopped go on with these numbers: a difference is a new format, not a new expectation."""
    assert permutation(0, 0, 10).tolist() == [5, 7, 8, 2, 9, 0, 3, 1, 6, 4]
    assert permutation(-3, 5, 10).tolist() == [3, 7, 4, 9, 0, 2, 5, 8, 1, 6]
    assert flips(0, 0, 16).astype(int).tolist() == [0, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1]
    assert shifts(0, 0, 4, 2).tolist() == [[-1, 2], [1, 0], [0, 1], [1, 2]]


def splitmix64(state: int, place: int) -> int:
    """Output number `place`, in Python integers, written from the paper."""
    z = (state + 0x9E3779B97F4A7C15 * (place + 1)) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_splitmix64_gives_its_published_numbers() -> None:
    assert splitmix64(1234567, 0) == 6457827717110365317


@given(seeds, st.integers(0, 2**40), st.integers(1, 30), positions)
def test_the_stream_is_splitmix64(seed: int, epoch: int, count: int, position: int) -> None:
    of_seed = splitmix64(seed % 2**64, 0)
    state = splitmix64(of_seed ^ splitmix64(2 * epoch, 0), 0)
    assert permutation(seed, epoch, count).tolist() == sorted(range(count), key=lambda i: splitmix64(state, i))
    state = splitmix64(of_seed ^ splitmix64(1, 0), 0)
    assert flips(seed, position, count).tolist() == [splitmix64(state, position + i) % 2 == 1 for i in range(count)]
    state = splitmix64(of_seed ^ splitmix64(3, 0), 0)
    numbers = [splitmix64(state, position + i) for i in range(count)]
    assert shifts(seed, position, count, 2).tolist() == [[(n >> 32) % 5 - 2, n % 2**32 % 5 - 2] for n in numbers]


def test_permutations_flips_and_shifts_look_random() -> None:
    first = np.array([permutation(seed, epoch, 20)[0] for seed in range(40) for epoch in range(50)])
    counts = np.bincount(first, minlength=20)
    assert ((counts - 100) ** 2 / 100).sum() < 45  # chi square with 19 degrees of freedom, p = 0.0007
    assert abs(flips(1, 0, 10_000).mean() - 0.5) < 0.02
    pairs, counts = np.unique(shifts(1, 0, 25_000, 2), axis=0, return_counts=True)
    assert pairs.tolist() == [[down, right] for down in range(-2, 3) for right in range(-2, 3)]
    assert ((counts - 1000) ** 2 / 1000).sum() < 51  # chi square with 24 degrees of freedom, p = 0.001
    assert not np.array_equal(permutation(0, 0, 50), permutation(0, 1, 50))
    assert not np.array_equal(permutation(0, 0, 50), permutation(1, 0, 50))


def test_pixels_from_the_file_are_those_of_the_memory_map(tmp_path: Path, cache: Path) -> None:
    packed = load(write_files(tmp_path / "in", pictures(9)), cache=cache)
    for rows in ([0], [8, 0, 3, 3], []):
        indices = np.array(rows, np.int64)
        assert np.array_equal(packed.pixels(indices), packed.images[indices])


def test_batches_are_writable_copies(tmp_path: Path, cache: Path) -> None:
    packed = load(write_files(tmp_path / "in", pictures(6)), cache=cache)
    batch = packed.batch(0, 0, 4)
    batch.images[:] = 0
    assert batch.images.flags.c_contiguous
    assert packed.images.max() > 0
    with pytest.raises(ValueError, match="read-only"):
        packed.images[0] = 0


def test_unlabelled_images_have_batches_without_labels() -> None:
    assert in_memory(5, labelled=False).batch(0, 0, 3).labels is None


def test_negative_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        in_memory(5).batch(0, -1, 3)


def test_threads_share_one_pack() -> None:
    packed, results = in_memory(50), {}
    expected = {k: packed.batch(k, 40, 30, flip=True).indices for k in range(6)}

    def work(k: int) -> None:
        results[k] = [packed.batch(k, 40, 30, flip=True).indices for _ in range(20)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found, expected[k]) for k in range(6) for found in results[k])
