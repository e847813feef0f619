"""One call opens any source; the same pictures give the same fingerprint, however they are stored."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_files import make_array, make_file, pictures, write_files, write_tar, write_zip

from smalti.data import inspect, load
from smalti.data.cifar import CLASSES
from smalti.data.sources import Numbered, arrange, is_candidate, natural_key

TAR_KINDS = {"a.tar": "w", "a.tar.gz": "w:gz", "a.tgz": "w:gz", "a.tar.xz": "w:xz", "a.tar.bz2": "w:bz2"}


def shuffled(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: files[name] for name in sorted(files, key=lambda name: name[::-1])}


# Folders and archives


def test_folder_zip_and_tars_hold_the_same_pictures(tmp_path: Path, cache: Path) -> None:
    files = pictures(20, prefix="train/") | pictures(6, prefix="test/")
    sources = [write_files(tmp_path / "folder", files), write_zip(tmp_path / "a.zip", shuffled(files))]
    sources += [write_tar(tmp_path / name, shuffled(files), mode) for name, mode in TAR_KINDS.items()]
    packs = [load(source, cache=cache) for source in sources]
    assert len({pack.fingerprint for pack in packs}) == 1
    assert len({tuple(pack.names) for pack in packs}) == 1
    assert len(packs[0]) == 20
    for i, name in enumerate(packs[0].names):
        assert np.array_equal(packs[0].images[i], make_array(int(Path(name).stem)))
        assert packs[0].labels is not None
        assert packs[0].classes[packs[0].labels[i]] == name.split("/")[1]


def test_names_come_in_natural_order(tmp_path: Path, cache: Path) -> None:
    names = ["b/1.png", "a/10.png", "a/9.png", "a/x2y10.png", "a/x2y9.png", "a/01.png", "a/1.png"]
    folder = write_files(tmp_path / "in", {name: make_file(make_array(i)) for i, name in enumerate(names)})
    expected = ["a/01.png", "a/1.png", "a/9.png", "a/10.png", "a/x2y9.png", "a/x2y10.png", "b/1.png"]
    assert list(load(folder, cache=cache).names) == expected


@given(st.lists(st.text(st.sampled_from("a1B0é./"), min_size=1, max_size=8), unique=True))
def test_natural_order_is_total(names: list[str]) -> None:
    keys = [natural_key(name) for name in names]
    assert len(set(keys)) == len(names)
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)


@pytest.mark.parametrize("wrapper", ["", "my pictures/"])
def test_splits_are_top_folders_and_their_classes_agree(tmp_path: Path, cache: Path, wrapper: str) -> None:
    files = pictures(4, classes=("bee", "cat"), prefix=f"{wrapper}train/")
    files |= pictures(2, classes=("ant", "cat"), prefix=f"{wrapper}validation/")
    folder = write_files(tmp_path / "in", files)
    train, val = load(folder, cache=cache), load(folder, cache=cache, split="val")
    assert train.splits == val.splits == ("train", "val")
    assert train.split == "train"
    assert train.classes == val.classes == ("ant", "bee", "cat")
    assert train.labels is not None
    assert val.labels is not None
    assert train.labels.tolist() == [1, 1, 2, 2]
    assert val.labels.tolist() == [0, 2]
    assert load(folder, cache=cache, split="valid").fingerprint == val.fingerprint


@pytest.mark.parametrize(
    ("names", "splits", "folders"),
    [
        (["a.png", "b.png"], (), [None, None]),
        (["x/a.png", "x/b.png"], (), [None, None]),
        (["x/c/a.png", "x/d/b.png"], (), ["c", "d"]),
        (["c/deep/er/a.png", "d/b.png"], (), ["c", "d"]),
        (["c/a.png", "b.png"], (), ["c", None]),
        (["train/a.png"], ("train",), [None]),
        (["train/c/a.png", "other/c/a.png"], (), ["train", "other"]),
        (["train/a.png", "bus/a.png"], (), ["train", "bus"]),
        (["train/c/a.png", "test/c/a.png", "runs/p/x.png", "x.png"], ("train", "test"), ["c", "c", None, None]),
        (["x/test/c/a.png", "x/train/d/e/a.png", "x/valid/c/b.png"], ("train", "val", "test"), ["c", "d", "c"]),
    ],
)
def test_the_tree_says_splits_and_classes(names: list[str], splits: tuple[str, ...], folders: list[str | None]) -> None:
    found, places = arrange(names)
    assert found == splits
    assert [place.folder for place in places] == folders


def test_a_split_with_loose_images_has_no_labels(tmp_path: Path, cache: Path) -> None:
    files = pictures(4, prefix="train/") | {"test/1.png": make_file(make_array(9))}
    folder = write_files(tmp_path / "in", files)
    assert load(folder, cache=cache).classes == ("cat", "dog")
    test = load(folder, cache=cache, split="test")
    assert test.labels is None
    assert test.classes == ()
    mixed = write_files(tmp_path / "mixed", {"a/1.png": files["test/1.png"], "2.png": files["test/1.png"]})
    assert load(mixed, cache=cache).labels is None


def test_without_train_the_only_split_is_taken(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(3, prefix="test/"))
    assert load(folder, cache=cache).split == "test"


def test_hidden_and_other_files_are_passed_over(tmp_path: Path, cache: Path) -> None:
    files = pictures(4) | {
        ".hidden/1.png": b"", "cat/._0.png": b"", "__MACOSX/cat/0.png": b"", "cat/Thumbs.db": b"", "README": b"hello",
        "labels.csv": b"a,b", "dog/notes.json": b"{}", ".DS_Store": b"",
    }  # fmt: skip
    for source in (
        write_files(tmp_path / "in", files),
        write_zip(tmp_path / "a.zip", files),
        write_tar(tmp_path / "a.tar", files),
    ):
        packed = load(source, cache=cache)
        assert len(packed) == 4
        assert packed.skipped == ()
        assert packed.classes == ("cat", "dog")


def test_candidates_are_known_image_extensions_and_unknown_ones() -> None:
    tried = ["a.jpg", "a.JPEG", "a.webp", "a", "a.photo", "x/readme.png"]
    passed_over = ["a.txt", "a.csv", "README", "LICENSE.md", "a.zip", "x/license", "a.mp4"]
    assert all(is_candidate(name) for name in tried)
    assert not any(is_candidate(name) for name in passed_over)


def test_captions_lie_beside_images_or_in_a_list(tmp_path: Path, cache: Path) -> None:
    picture = make_file(make_array(0))
    lines = [
        {"file_name": "1.png", "text": "from the list"},
        {"file_name": "none.png", "text": "?"},
        {"text": "no name"},
    ]
    files = {
        "a/0.png": picture, "a/0.txt": "ein Küken\n".encode(), "b/1.png": picture, "b/2.png": picture,
        "b/metadata.jsonl": "\n".join(json.dumps(line) for line in lines).encode(),
    }  # fmt: skip
    for source in (
        write_files(tmp_path / "in", files),
        write_zip(tmp_path / "a.zip", files),
        write_tar(tmp_path / "a.tar", files),
    ):
        captions = load(source, cache=cache).captions
        assert captions is not None
        assert list(captions) == ["ein Küken", "from the list", ""]
    assert load(write_files(tmp_path / "none", pictures(3)), cache=cache).captions is None


def test_links_in_folders_are_followed_once(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(4))
    outside = write_files(tmp_path / "outside", {"9.png": make_file(make_array(9))})
    (folder / "eel").symlink_to(outside)
    (folder / "eel" / "loop").symlink_to(folder)
    packed = load(folder, cache=cache)
    assert packed.classes == ("cat", "dog", "eel")
    assert len(packed) == 5


def test_channels_are_what_all_the_images_need(tmp_path: Path, cache: Path) -> None:
    grey = {f"{i}.png": make_file(make_array(i, channels=1)) for i in range(3)}
    opaque = make_array(5, channels=4)
    opaque[..., 3] = 255
    colour, clear = {"5.png": make_file(opaque)}, {"6.png": make_file(make_array(6, channels=4))}
    for files, channels in ((grey, 1), (grey | colour, 3), (grey | colour | clear, 4)):
        assert load(write_files(tmp_path / f"in{channels}", files), cache=cache).shape == (channels, 8, 8)
        for asked in (1, 3, 4):
            assert load(tmp_path / f"in{channels}", cache=cache, channels=asked).shape == (asked, 8, 8)


def test_pictures_of_several_sizes_are_resized(tmp_path: Path, cache: Path) -> None:
    files = {f"{i}.png": make_file(make_array(i, height=5 + i, width=12 - i)) for i in range(6)}
    folder = write_files(tmp_path / "in", files)
    assert load(folder, cache=cache, size=4).shape == (3, 4, 4)
    assert load(folder, cache=cache, size=(4, 7), resize="contain").shape == (3, 4, 7)


def test_a_relative_path_and_an_absolute_one_share_a_pack(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "in", pictures(3))
    monkeypatch.chdir(tmp_path)
    relative, absolute = load("in", cache=cache), load(tmp_path / "in", cache=cache)
    assert (relative.source, absolute.source) == ("in", str(tmp_path / "in"))
    assert len(list((cache / "packed").iterdir())) == 1


# CIFAR-10


def cifar_rows(per_batch: int = 3) -> dict[str, tuple[np.ndarray, list[int]]]:
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {
        name: (rng.integers(0, 256, (per_batch, 3072), dtype=np.uint8), rng.integers(0, 10, per_batch).tolist())
        for name in names
    }


def cifar_python(rows: dict[str, tuple[np.ndarray, list[int]]], protocol: int = 2) -> dict[str, bytes]:
    files = {
        f"cifar-10-batches-py/{name}": pickle.dumps(
            {b"batch_label": b"x", b"labels": labels, b"data": data, b"filenames": [b"a.png"] * len(labels)}, protocol
        )
        for name, (data, labels) in rows.items()
    }
    meta = {"label_names": list(CLASSES), "num_vis": 3072, "num_cases_per_batch": 10000}
    return files | {
        "cifar-10-batches-py/batches.meta": pickle.dumps(meta, 2),
        "cifar-10-batches-py/readme.html": b"<p>",
    }


def cifar_binary(rows: dict[str, tuple[np.ndarray, list[int]]]) -> dict[str, bytes]:
    files = {
        f"cifar-10-batches-bin/{name}.bin": np.c_[np.array(labels, np.uint8), data].tobytes()
        for name, (data, labels) in rows.items()
    }
    return files | {"cifar-10-batches-bin/batches.meta.txt": "\n".join(CLASSES).encode()}


def as_python_2_wrote_it(data: np.ndarray, labels: list[int]) -> bytes:
    """The bytes of the official files: protocol 2 with 8-bit strings, opcode by opcode."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    shape = b"K" + bytes([len(data)]) + b"M" + struct.pack("<H", 3072) + b"\x86"
    dtype = (
        b"cnumpy\ndtype\n"
        + string(b"u1")
        + b"K\0K\1\x87R(K\3"
        + string(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    raw = b"T" + struct.pack("<i", data.nbytes) + data.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + string(b"b") + b"\x87R(K\1"
        + shape + dtype + b"\x89" + raw + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\2}(" + string(b"data") + array + string(b"labels") + numbers + b"u."


def test_cifar_python_and_binary_are_the_same_data_set(tmp_path: Path, cache: Path) -> None:
    rows = cifar_rows()
    python, binary = cifar_python(rows), cifar_binary(rows)
    sources = [
        write_files(tmp_path / "p", python), tmp_path / "p/cifar-10-batches-py", write_files(tmp_path / "b", binary),
        tmp_path / "b/cifar-10-batches-bin", write_tar(tmp_path / "cifar-10-python.tar.gz", shuffled(python), "w:gz"),
        write_tar(tmp_path / "cifar-10-binary.tar.gz", shuffled(binary), "w:gz"), write_zip(tmp_path / "c.zip", python),
        write_files(tmp_path / "p4", cifar_python(rows, protocol=4)),
    ]  # fmt: skip
    packs = [load(source, cache=cache) for source in sources]
    assert len({pack.fingerprint for pack in packs}) == 1
    assert len({load(source, cache=cache, split="test").fingerprint for source in sources}) == 1
    pack = packs[0]
    assert pack.shape == (3, 32, 32)
    assert pack.classes == CLASSES
    assert (pack.names[0], pack.names[14], len(pack)) == ("train/00000", "train/00014", 15)
    data, labels = rows["data_batch_2"]
    assert pack.labels is not None
    assert pack.labels[3:6].tolist() == labels
    assert np.array_equal(pack.images[4], data[1].reshape(3, 32, 32).transpose(1, 2, 0))


def test_cifar_as_python_2_pickled_it(tmp_path: Path, cache: Path) -> None:
    rows = cifar_rows()
    official = {f"cifar-10-batches-py/{name}": as_python_2_wrote_it(*batch) for name, batch in rows.items()}
    expected = load(write_files(tmp_path / "b", cifar_binary(rows)), cache=cache)
    assert load(write_files(tmp_path / "p", official), cache=cache).fingerprint == expected.fingerprint


# IDX


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.astype(np.uint8).tobytes()


def mnist(zipped: bool, count: int = 9) -> dict[str, bytes]:
    digits = np.random.default_rng(1).integers(0, 256, (count, 6, 5), dtype=np.uint8)
    labels = np.arange(count) % 4
    files = {
        "train-images-idx3-ubyte": idx(digits), "train-labels-idx1-ubyte": idx(labels),
        "t10k-images-idx3-ubyte": idx(digits[:3]), "t10k-labels-idx1-ubyte": idx(labels[:3] + 3),
    }  # fmt: skip
    return {f"{name}.gz": gzip.compress(data) for name, data in files.items()} if zipped else files


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


# npz


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


# Words, and looking without packing


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


def test_numbered_names_are_a_sequence() -> None:
    names = Numbered("train/", 3)
    assert list(names) == ["train/00000", "train/00001", "train/00002"]
    assert names[-1] == "train/00002"
    assert names[1:] == ["train/00001", "train/00002"]
    with pytest.raises(IndexError):
        names[3]


def test_inspect_counts_everything_and_packs_nothing(tmp_path: Path, cache: Path) -> None:
    files = pictures(6, prefix="train/") | pictures(2, prefix="test/") | {"notes.csv": b""}
    files["train/cat/grey.png"] = make_file(make_array(3, channels=1, height=30, width=40))
    files["train/cat/grey.txt"] = b"a grey one"
    files["train/dog/broken.png"] = files["train/dog/1.png"][:60]
    for source in (write_files(tmp_path / "in", files), write_tar(tmp_path / "a.tar", files)):
        summary = inspect(source, cache=cache)
        assert summary.kind == ("folder" if source.is_dir() else "tar")
        assert (summary.split, summary.splits) == ("train", {"train": 8, "test": 2})
        assert summary.images == 7
        assert summary.classes == {"cat": 4, "dog": 4}
        assert summary.sizes == {(8, 8): 6, (30, 40): 1}
        assert summary.modes == {"RGB": 6, "L": 1}
        assert summary.captions == 1
        assert [name for name, _ in summary.broken] == ["train/dog/broken.png"]
        assert summary.ignored == 2
        assert summary.suggestion.startswith("smalti train ")
        assert "--size 32" in summary.suggestion
    assert not cache.exists()


def test_inspect_of_arrays_and_emoji(tmp_path: Path, cache: Path) -> None:
    write_files(tmp_path / "in", mnist(True))
    summary = inspect(tmp_path / "in", cache=cache)
    assert (summary.kind, summary.splits, summary.sizes) == ("IDX", {"train": 9, "test": 3}, {(6, 5): 9})
    assert sum(summary.classes.values()) == summary.images == 9
    assert "--size" not in summary.suggestion
    write_files(tmp_path / "c", cifar_python(cifar_rows()))
    assert inspect(tmp_path / "c", cache=cache).splits == {"train": 15, "test": 3}
    assert inspect("emoji", cache=cache, split="test").modes.keys() == {"RGBA"}


def test_a_tar_is_read_forwards_at_most_three_times(tmp_path: Path, cache: Path) -> None:
    """A look at its first names, one pass to list, one to decode."""
    path = write_tar(tmp_path / "a.tar.xz", pictures(30), "w:xz")
    opened = []
    original = tarfile.open

    def count(*args: object, **kwargs: object) -> tarfile.TarFile:
        assert kwargs["mode"] == "r|"  # the mode without seeking
        opened.append(args)
        return original(*args, **kwargs)  # type: ignore[call-overload,no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tarfile, "open", count)
        load(path, cache=cache)
    assert len(opened) == 3


def test_windows_separators_in_a_zip_are_folders(tmp_path: Path, cache: Path) -> None:
    files = {name.replace("/", "\\"): data for name, data in pictures(4).items()}
    assert load(write_zip(tmp_path / "a.zip", files), cache=cache).classes == ("cat", "dog")
