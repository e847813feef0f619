"""Pairs as a data set: the same place of both, in any order, at any scale."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_runs import pixels, small_pairs

from smalti.data import load_pairs
from smalti.data.dataset import Dataset
from smalti.data.packed import Description, PackedImages
from smalti.data.pairs import PairedImages
from smalti.errors import ConfigError, DataError


def packed(count: int, height: int, width: int, *, scale: int = 1, source: str = "memory") -> PackedImages:
    """Images whose pixels say which image and, in units of the scale, which place they are."""
    images = np.zeros((count, height, width, 3), np.uint8)
    images[..., 0] = np.arange(count)[:, None, None]
    rows, columns = np.mgrid[:height, :width]
    images[..., 1], images[..., 2] = rows // scale, columns // scale
    names = [str(number) for number in range(count)]
    return PackedImages(images, None, Description(source, None, (), (), names, None, source, ()))


def pairs_of(scale: int, *, count: int = 5, height: int = 9, width: int = 13) -> PairedImages:
    targets = packed(count, scale * height, scale * width, scale=scale, source="targets")
    return PairedImages(packed(count, height, width), targets, scale=scale)


@given(st.integers(1, 4), st.integers(0, 2**64), st.integers(0, 1000), st.integers(1, 12), st.booleans())
def test_windows_show_the_same_place(scale: int, seed: int, seen: int, count: int, flip: bool) -> None:
    pairs: Dataset = pairs_of(scale).cropped(4 * scale).augmented(flip=flip)
    batch = pairs.batch(seed, seen, count)
    assert batch.images.shape == (count, 4, 4, 3)
    assert np.array_equal(batch.targets, batch.images.repeat(scale, axis=1).repeat(scale, axis=2))
    again = pairs.batch(seed, seen + 1, count - 1)
    assert np.array_equal(batch.targets[1:], again.targets), "a position says everything"
    middle = pairs.take(np.arange(5))
    assert np.array_equal(middle.targets, middle.images.repeat(scale, axis=1).repeat(scale, axis=2))


def test_all_places_and_both_directions_occur() -> None:
    pairs = pairs_of(2).cropped(8).augmented(flip=True)
    batch = pairs.batch(0, 0, 2000)
    assert set(batch.targets[:, 0, 0, 1].tolist()) == set(range(6))
    assert set(batch.targets[:, 0, 0, 2].tolist()) == set(range(13))


@given(st.integers(0, 2**64), st.integers(0, 100), st.integers(0, 8))
def test_whole_images_are_moved_alike(seed: int, seen: int, shift: int) -> None:
    batch = pairs_of(1).augmented(flip=True, shift=shift).batch(seed, seen, 7)
    assert np.array_equal(batch.images, batch.targets)


def test_every_image_occurs_once_an_epoch_with_its_target() -> None:
    pairs = pairs_of(3)
    batch = pairs.batch(7, 0, 5)
    assert sorted(batch.indices.tolist()) == list(range(5))
    assert np.array_equal(batch.images[:, 0, 0, 0], batch.targets[:, 0, 0, 0])
    assert pairs.spec.shape == (3, 27, 39)


def test_without_matching_targets_have_an_order_of_their_own() -> None:
    pairs = PairedImages(packed(5, 8, 8), packed(7, 8, 8, source="others"), matched=False)
    batch = pairs.batch(0, 0, 35)
    found = {(int(a), int(b)) for a, b in zip(batch.images[:, 0, 0, 0], batch.targets[:, 0, 0, 0], strict=True)}
    assert {b for _, b in found} == set(range(7))
    assert len(found) > 15
    assert np.array_equal(batch.targets, pairs.batch(0, 0, 35).targets)
    assert pairs.take(np.arange(5)).targets[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5]
    assert len(pairs.cropped(4).augmented(flip=True, shift=0)) == 5


def test_fingerprints_tell_the_sources_and_how_they_belong_together() -> None:
    first, second = packed(5, 8, 8), packed(5, 8, 8, source="others")
    every = [
        PairedImages(first, second), PairedImages(second, first), PairedImages(first, first),
        PairedImages(first, second, matched=False),
    ]  # fmt: skip
    assert len({pairs.fingerprint for pairs in every}) == 4
    assert PairedImages(first, second).provenance["targets"] == "others"


def test_settings_that_pairs_cannot_have() -> None:
    with pytest.raises(ConfigError, match="must be 0 for targets that are 2 times as large"):
        pairs_of(2).augmented(shift=1)
    with pytest.raises(ConfigError, match="is 7, but must be a multiple of 2"):
        pairs_of(2).cropped(7)
    with pytest.raises(ConfigError, match="is 20, but the images of targets have only 18x26 pixels"):
        pairs_of(2).cropped(20)
    with pytest.raises(DataError, match="expected 3 times the sides and as many channels"):
        PairedImages(packed(5, 8, 8), packed(5, 16, 16), scale=3)
    with pytest.raises(DataError, match="5 images and 6 targets are no pairs"):
        PairedImages(packed(5, 8, 8), packed(6, 8, 8))
    for options, said in (
        ({"scale": 9}, "must be from 1 to 8"),
        ({"scale": 2, "size": 15}, "is 15x15, but must be a multiple of 2"),
        ({"scale": 2, "size": 16, "resize": "contain"}, "take cover or crop"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_pairs("a", "b", **options)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("size", [(7, 11), (11, 7), (8, 8), (10, 13)])
def test_middles_of_photographs_are_the_same(tmp_path: Path, cache: Path, scale: int, size: tuple[int, int]) -> None:
    """Photographs of several sizes and directions, of which "crop" takes the middle in their own resolution."""
    chance = np.random.default_rng(0)
    for number, shape in enumerate([(13, 16), (16, 13), (12, 14), (11, 13), (14, 15)]):
        image = chance.integers(0, 256, (*shape, 3), np.uint8)
        for name, picture in (("bad", image), ("good", image.repeat(scale, 0).repeat(scale, 1))):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / name / f"{number}.png")
    wanted = (scale * size[0], scale * size[1])
    pairs = load_pairs(tmp_path / "bad", tmp_path / "good", size=wanted, resize="crop", scale=scale, cache=cache)
    taken = pairs.take(np.arange(len(pairs)))
    assert len(pairs) == 5
    assert np.array_equal(taken.targets, taken.images.repeat(scale, axis=1).repeat(scale, axis=2))


def test_two_styles_come_in_one_size(tmp_path: Path, cache: Path) -> None:
    np.savez(tmp_path / "a.npz", images=pixels(4))
    np.savez(tmp_path / "b.npz", images=pixels(6, side=24, channels=1))
    pairs = load_pairs(tmp_path / "a.npz", tmp_path / "b.npz", matched=False, cache=cache)
    assert (len(pairs), len(pairs.targets), pairs.matched) == (4, 6, False)
    assert pairs.targets.spec == pairs.spec


def test_batches_are_dataclasses_of_what_they_say(tmp_path: Path) -> None:
    batch = small_pairs(tmp_path).batch(0, 0, 3)
    assert {entry.name for entry in dataclasses.fields(batch)} == {"images", "labels", "indices", "targets"}
    assert batch.labels is None
