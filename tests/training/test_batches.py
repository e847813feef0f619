"""Batches for steps and for what comes before the first one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import small_data

from smalti.config.data import DataConfig
from smalti.config.run import RunConfig
from smalti.data import PackedImages
from smalti.recipes import Images, TrainingContext, images
from smalti.recipes.vqvae import VQVAERecipe
from smalti.training import batches
from smalti.training.batches import Feed, ResidentImages, first_batches, training_stream

CPU = torch.device("cpu")
PLAIN = DataConfig(flip=False)


def recipe(data: PackedImages) -> VQVAERecipe:
    return VQVAERecipe(RunConfig(), TrainingContext(data.spec))


def feed(data: PackedImages, stream: DataConfig, *, room_bytes: int | None = None) -> Feed:
    return Feed(training_stream(data, stream), recipe(data).to_device, CPU, room_bytes=room_bytes)


def batch_at(data: PackedImages, seed: int, images_seen: int, count: int, stream: DataConfig) -> Images:
    return feed(data, stream).batch(seed, images_seen, count)


@pytest.fixture
def data(tmp_path: Path) -> PackedImages:
    return small_data(tmp_path)


def pixels(data: PackedImages, *, seed: int = 0, flip: bool = False, shift: int = 0) -> np.ndarray:
    found = list(first_batches(recipe(data), data, DataConfig(flip=flip, shift=shift), seed))
    assert all(batch.labels is None for batch in found)
    return torch.cat([batch.pixels for batch in found]).numpy()


def keys(images: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() for image in images)


def test_of_few_images_the_first_batches_are_all(data: PackedImages) -> None:
    pictures = data.pixels(np.arange(40)).transpose(0, 3, 1, 2) / np.float32(127.5) - 1
    found = pixels(data)
    assert found.shape == (40, 3, 16, 16)
    np.testing.assert_allclose(np.sort(found.sum(axis=(1, 2, 3))), np.sort(pictures.sum(axis=(1, 2, 3))), rtol=1e-4)
    flipped = pixels(data, flip=True)
    assert len(flipped) == 80
    # Each once in either of two epochs, one way round or the other.
    both = keys(np.minimum(found, found[..., ::-1]))
    assert keys(np.minimum(flipped, flipped[..., ::-1])) == sorted(both * 2)
    assert keys(flipped) != sorted(keys(found) * 2)
    assert len(pixels(data, shift=1)) == 40 * 9


@pytest.mark.parametrize("count", [7, 25, 40])
def test_of_many_images_they_are_some(data: PackedImages, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = 3 * 16 * 16
    monkeypatch.setattr(images, "START_VALUES", count * values + 1)
    monkeypatch.setattr(images, "START_BATCH_VALUES", 8 * values)
    sizes = [len(batch.pixels) for batch in first_batches(recipe(data), data, PLAIN, 0)]
    assert sum(sizes) == count
    assert max(sizes) <= 8
    # Those that an epoch begins with, each once.
    assert keys(pixels(data)) == keys(batch_at(data, 0, 0, count, PLAIN).pixels.numpy())


def test_images_larger_than_the_memory_for_them_come_one_at_a_time(
    data: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "START_VALUES", 1)
    monkeypatch.setattr(images, "START_BATCH_VALUES", 1)
    assert [len(batch.pixels) for batch in first_batches(recipe(data), data, PLAIN, 0)] == [1, 1]


def test_they_are_the_same_at_every_call_and_on_every_rank(data: PackedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pixels(data, flip=True)
    np.testing.assert_array_equal(pixels(data, flip=True), first)
    assert not np.array_equal(pixels(data, seed=1, flip=True), first)
    monkeypatch.setattr(batches, "rank", lambda: 1)
    monkeypatch.setattr(batches, "world", lambda: 2)
    np.testing.assert_array_equal(pixels(data, flip=True), first)


def test_two_ranks_share_a_batch(data: PackedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = batch_at(data, 0, 16, 8, DataConfig(shift=3))
    monkeypatch.setattr(batches, "world", lambda: 2)
    shares = []
    for number in (0, 1):
        monkeypatch.setattr(batches, "rank", lambda number=number: number)
        shares.append(batch_at(data, 0, 16, 8, DataConfig(shift=3)))
    assert torch.equal(torch.cat([share.pixels for share in shares]), whole.pixels)
    assert torch.equal(torch.cat([share.labels for share in shares]), whole.labels)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 5])
def test_a_set_that_lies_on_the_device_gives_the_same_batches(data: PackedImages, flip: bool, shift: int) -> None:
    stream = DataConfig(flip=flip, shift=shift)
    resident = feed(data, stream, room_bytes=40 * 3 * 16 * 16)
    assert isinstance(resident.source, ResidentImages)
    for seen in (0, 24, 56):  # the last one reaches into the next epoch
        expected, found = batch_at(data, 3, seen, 32, stream), resident.batch(3, seen, 32)
        assert torch.equal(found.pixels, expected.pixels)
        assert found.pixels.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(found.labels, expected.labels)


def test_a_set_that_does_not_fit_stays_where_it_is(data: PackedImages) -> None:
    assert not isinstance(feed(data, PLAIN, room_bytes=40 * 3 * 16 * 16 - 1).source, ResidentImages)
    plain = feed(data, PLAIN)
    assert not isinstance(plain.source, ResidentImages)
    assert torch.equal(plain.batch(0, 0, 8).pixels, batch_at(data, 0, 0, 8, PLAIN).pixels)
