"""Folders, zips and tars of image files: splits, classes, order, captions, and equal fingerprints for equal images."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from dataset_files import shuffled
from hypothesis import given
from hypothesis import strategies as st
from picture_files import make_array, make_file, pictures, write_files, write_tar, write_zip

from smalti.data import load
from smalti.data.image_tree import assign_splits, is_candidate, natural_key

TAR_KINDS = {"a.tar": "w", "a.tar.gz": "w:gz", "a.tgz": "w:gz", "a.tar.xz": "w:xz", "a.tar.bz2": "w:bz2"}


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
    found, places = assign_splits(names)
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
