"""Lists of pictures: files, folders, data sources; names, labels, splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_files import make_array, make_file, pictures, write_files, write_tar, write_zip
from small_runs import write_source

from smalti.data.picture_list import PictureList, list_pictures
from smalti.data.pictures import read_picture
from smalti.errors import ConfigError, DataError


def read(found: PictureList) -> dict[str, np.ndarray | None]:
    """Pixels by name, None for a picture that cannot be read."""
    return {
        found.names[number]: None if isinstance(contents, DataError) else read_picture(contents).pixels
        for number, contents in found
    }


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_tree_of_files(kind: str, tmp_path: Path) -> None:
    files = pictures(12) | {"readme.txt": b"x", ".hidden/1.png": b"x", "cat/.2.png": b"x"}
    place = {"folder": write_files, "zip": write_zip, "tar": write_tar}[kind](tmp_path / "in", files)
    found = list_pictures([place])
    assert found.names == [*(f"cat/{n}.png" for n in range(0, 12, 2)), *(f"dog/{n}.png" for n in range(1, 12, 2))]
    assert found.classes == ("cat", "dog")
    assert found.labels == [0] * 6 + [1] * 6
    images = read(found)
    assert len(images) == 12
    assert all(np.array_equal(images[name], read_picture(data).pixels) for name, data in pictures(12).items())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_splits(kind: str, tmp_path: Path) -> None:
    files = pictures(4, prefix="train/") | pictures(2, prefix="valid/")
    place = {"folder": write_files, "zip": write_zip}[kind](tmp_path / "in", files)
    everything, some = list_pictures([place]), list_pictures([place], split="val")
    assert sorted(everything.names) == sorted(files)
    assert everything.classes == some.classes == ("cat", "dog")
    assert some.names == ["valid/cat/0.png", "valid/dog/1.png"]
    assert read(some).keys() == set(some.names)
    with pytest.raises(DataError, match="no split 'test'"):
        list_pictures([place], split="test")


def test_several_places_have_no_classes(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(4))
    single = tmp_path / "x.png"
    single.write_bytes(make_file(make_array(9)))
    source = write_source(tmp_path / "discs.npz", count=3)
    found = list_pictures([folder, single, source, tmp_path / "nowhere.png"])
    assert len(found) == 9
    assert found.names[4:6] == ["x.png", "00000"]
    assert (found.classes, set(found.labels)) == ((), {-1})
    images = read(found)
    assert images["nowhere.png"] is None
    assert images["00002"] is not None


def test_the_embedded_set_and_a_flat_folder(tmp_path: Path) -> None:
    emoji = list_pictures(["emoji"], split="test")
    assert emoji.names[0].startswith("test/")
    assert len(emoji.classes) == 10
    assert min(emoji.labels) >= 0
    flat = list_pictures([write_files(tmp_path / "in", {"10.png": b"", "9.png": b""})])
    assert flat.names == ["9.png", "10.png"]
    assert (flat.classes, flat.labels) == ((), [-1, -1])


def test_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no images were named"):
        list_pictures([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        list_pictures([tmp_path / "empty"])
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match="is one image, which has no splits; leave `split` out"):
        list_pictures([tmp_path / "x.png"], split="test")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    assert read(list_pictures([tmp_path / "gone.png"])) == {"gone.png": None}
