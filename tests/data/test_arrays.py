"""Arrays as a source of images: IDX, npz and the built-in emoji."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_files import mnist
from picture_files import make_array, pictures, write_files

from smalti.data import load


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folders_and_files(tmp_path: Path, cache: Path, zipped: bool) -> None:
    folder = write_files(tmp_path / "in", mnist(zipped))
    train, test = load(folder, cache=cache), load(folder, cache=cache, split="test")
    assert train.splits == ("train", "test")
    assert train.shape == (1, 6, 5)
    assert train.classes == test.classes == ("0", "1", "2", "3", "4", "5")
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert np.array_equal(test.images, train.images[:3])
    one = load(folder / ("train-images-idx3-ubyte" + (".gz" if zipped else "")), cache=cache)
    assert np.array_equal(one.images, train.images)
    assert one.labels is not None
    assert one.labels.tolist() == train.labels.tolist()
    assert one.classes == ("0", "1", "2", "3")


def test_idx_without_labels_has_none(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", {"some-images-idx3-ubyte": mnist(False)["train-images-idx3-ubyte"]})
    assert load(folder, cache=cache).labels is None
    assert load(folder / "some-images-idx3-ubyte", cache=cache).classes == ()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("arr_0", "arr_1")])
def test_npz(tmp_path: Path, cache: Path, save: object, names: tuple[str, str]) -> None:
    images, labels = make_array(3, height=10 * 7, width=5).reshape(10, 7, 5, 3), np.arange(10) % 2
    save(tmp_path / "a.npz", **{names[0]: images, names[1]: labels})  # type: ignore[operator]
    packed = load(tmp_path / "a.npz", cache=cache)
    assert np.array_equal(packed.images, images)
    assert packed.labels is not None
    assert packed.labels.tolist() == labels.tolist()
    assert packed.classes == ("0", "1")
    assert packed.splits == ()


def test_npz_with_splits_and_class_names(tmp_path: Path, cache: Path) -> None:
    images = make_array(3, height=8 * 4, width=4, channels=1).reshape(8, 4, 4)
    path = tmp_path / "a.npz"
    np.savez(
        path,
        x_train=images,
        y_train=np.zeros((8, 1), np.int16),
        x_test=images[:2],
        y_test=[0, 1],
        classes=["cat", "dog"],
    )
    train, test = load(path, cache=cache), load(path, cache=cache, split="test")
    assert train.splits == ("train", "test")
    assert (train.shape, len(train), len(test)) == ((1, 4, 4), 8, 2)
    assert train.classes == test.classes == ("cat", "dog")
    assert list(test.names) == ["test/00000", "test/00001"]


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "float32", "float64", "bool", "int64", "fortran"])
def test_npz_layouts_and_types(tmp_path: Path, cache: Path, layout: str) -> None:
    images = make_array(3, height=6 * 7, width=5).reshape(6, 7, 5, 3)
    if layout == "bool":
        images = (images > 127).astype(np.uint8) * 255
    stored = {
        "NHWC": images, "NCHW": images.transpose(0, 3, 1, 2).copy(), "float32": (images / 255).astype(np.float32),
        "float64": images / 255, "bool": images > 127, "int64": images.astype(np.int64),
        "fortran": np.asfortranarray(images),
    }[layout]  # fmt: skip
    np.savez(tmp_path / "a.npz", images=stored)
    assert np.array_equal(load(tmp_path / "a.npz", cache=cache).images, images)


def test_arrays_are_resized_like_files(tmp_path: Path, cache: Path) -> None:
    files = pictures(5, classes=("x",))
    folder = write_files(tmp_path / "in", {name.split("/")[1]: data for name, data in files.items()})
    np.savez(tmp_path / "a.npz", images=np.stack([make_array(i) for i in range(5)]))
    for options in ({"size": 5}, {"size": (12, 6), "resize": "contain"}, {"channels": 1}, {"channels": 4, "size": 3}):
        pair = [load(source, cache=cache, **options).fingerprint for source in (folder, tmp_path / "a.npz")]  # type: ignore[arg-type]
        assert pair[0] == pair[1]


def test_emoji_come_with_the_package(cache: Path) -> None:
    test = load("emoji", cache=cache, split="test")
    assert test.shape == (4, 32, 32)
    assert test.splits == ("train", "test")
    assert test.captions is not None
    assert test.labels is not None
    assert len(test) == len(test.captions) == len(test.labels) > 100
    white = load("emoji", cache=cache, split="test", channels=3, size=16)
    assert white.shape == (3, 16, 16)
    assert white.classes == test.classes
