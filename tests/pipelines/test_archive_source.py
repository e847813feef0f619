"""Archives as a data source: what `load`, `inspect` and a training see."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import pixels, small_config

from smalti.codec.archive import ArchiveReader
from smalti.data import inspect, load
from smalti.data.opening import find_source
from smalti.data.pictures import Picture
from smalti.errors import DataError
from smalti.pipelines.archive_source import ArchiveSource
from smalti.pipelines.codec import Codec
from smalti.training.sources import open_training_data


def write_archive(codec: Path, path: Path, names: list[str], *, other: bool = False, **options: object) -> np.ndarray:
    """An archive of discs, one of them perhaps of another size, its model beside it; the decoded discs."""
    model, images = Codec.from_pretrained(codec), pixels(len(names))
    labels = options.pop("labels", [-1] * len(names))
    path.parent.mkdir(parents=True, exist_ok=True)
    with model.write_archive(path, effort=0, **options) as archive:  # type: ignore[arg-type]
        for name, image, label in zip(names, images, labels, strict=True):  # type: ignore[call-overload]
            archive.add(Picture(image), name=name, label=label)
        if other:
            archive.add(Picture(np.zeros((20, 12, 4), np.uint8)), name="other.png", label=0)
    shutil.copy(codec / "last.safetensors", path.parent / "model.safetensors")
    with model.open_archive(path) as archive:
        return np.stack([archive[number].pixels for number in range(len(names))])


NAMES = [f"{split}/{'ab'[n % 2]}/{n}.png" for split in ("train", "test") for n in range(6)]


def test_names_say_splits_and_classes(codec: Path, tmp_path: Path, cache: Path) -> None:
    decoded = write_archive(codec, tmp_path / "all.smt", NAMES)
    train, test = load(tmp_path / "all.smt", cache=cache), load(tmp_path / "all.smt", split="test", cache=cache)
    assert train.splits == ("train", "test")
    assert (train.names, train.classes) == (NAMES[:6], ("a", "b"))
    assert np.array_equal(train.images, decoded[:6])
    assert np.array_equal(test.images, decoded[6:])
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1] * 3


def test_labels_of_the_archive_come_first(codec: Path, tmp_path: Path, cache: Path) -> None:
    classes = ("up", "down", "left")
    write_archive(codec, tmp_path / "all.smt", NAMES, classes=classes, labels=[2] * 12)
    train = load(tmp_path / "all.smt", cache=cache)
    assert train.classes == classes
    assert set(train.labels.tolist()) == {2}  # type: ignore[union-attr]
    write_archive(codec, tmp_path / "some.smt", NAMES, classes=classes, labels=[2] * 5 + [-1] * 7)
    assert load(tmp_path / "some.smt", cache=cache).labels is None
    assert load(tmp_path / "some.smt", split="test", cache=cache).classes == ()


def test_images_of_other_sizes_are_resized_as_files_are(codec: Path, tmp_path: Path, cache: Path) -> None:
    write_archive(codec, tmp_path / "all.smt", ["1.png", "2.png"], other=True, named=False)
    found = inspect(tmp_path / "all.smt", cache=cache)
    assert (found.kind, found.images, found.sizes) == ("smt", 3, {(16, 16): 2, (20, 12): 1})
    with pytest.raises(DataError, match=r"several sizes: found 16x16 \(2\) and 20x12 \(1\); give `size`"):
        load(tmp_path / "all.smt", cache=cache)
    images = load(tmp_path / "all.smt", size=8, cache=cache)
    assert images.images.shape == (3, 8, 8, 4)
    assert list(images.names) == ["00000", "00001", "00002"]


def test_the_pack_is_opened_again_without_torch(codec: Path, tmp_path: Path, cache: Path) -> None:
    write_archive(codec, tmp_path / "all.smt", NAMES)
    first = load(tmp_path / "all.smt", cache=cache)
    (tmp_path / "model.safetensors").unlink()
    assert load(tmp_path / "all.smt", cache=cache).fingerprint == first.fingerprint
    code = f"""import sys, smalti.data
smalti.data.load({str(tmp_path / "all.smt")!r}, cache={str(cache)!r})
sys.exit("torch" in sys.modules)"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_damaged_images_are_skipped(codec: Path, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "all.smt"
    write_archive(codec, path, NAMES, per_block=1)
    with ArchiveReader(path) as archive:
        payload = archive.read_block(2).payload
    data = bytearray(path.read_bytes())
    data[data.index(payload)] ^= 1
    path.write_bytes(data)
    images = load(path, cache=cache)
    assert len(images) == 5
    assert images.skipped == ((NAMES[2], "damaged inside the archive"),)


def test_a_training_reads_it(codec: Path, tmp_path: Path, cache: Path) -> None:
    write_archive(codec, tmp_path / "all.smt", NAMES)
    config = small_config("vqvae", f"data.source={tmp_path / 'all.smt'}")
    images, held_out = open_training_data(config, cache=cache)
    assert held_out is not None
    assert (len(images), images.spec.shape, len(held_out)) == (6, (3, 16, 16), 6)


def test_what_is_wrong(codec: Path, tmp_path: Path, cache: Path) -> None:
    write_archive(codec, tmp_path / "in" / "all.smt", NAMES)
    shutil.copy(tmp_path / "in" / "all.smt", tmp_path / "lonely.smt")
    with pytest.raises(
        DataError, match=r"lonely\.smt was compressed with the model .* neither in its folder nor in the"
    ):
        load(tmp_path / "lonely.smt", cache=cache)
    (tmp_path / "one.smi").write_bytes(Codec.from_pretrained(codec).compress(pixels(1)[0], effort=0))
    with pytest.raises(DataError, match=r"one\.smi is one compressed image; give an archive"):
        load(tmp_path / "one.smi", cache=cache)
    (tmp_path / "newer.smt").write_bytes(b"\x9eS\xf3abc")
    with pytest.raises(DataError, match="newer version of smalti"):
        load(tmp_path / "newer.smt", cache=cache)
    (tmp_path / "cut.smt").write_bytes((tmp_path / "in" / "all.smt").read_bytes()[:12])
    with pytest.raises(DataError, match=r"cut\.smt was cut short"):
        load(tmp_path / "cut.smt", cache=cache)
    with Codec.from_pretrained(codec).write_archive(tmp_path / "none.smt"):
        pass
    with pytest.raises(DataError, match="holds no images"):
        load(tmp_path / "none.smt", cache=cache)
    source = find_source(tmp_path / "in" / "all.smt", cache=cache)
    assert isinstance(source, ArchiveSource)
    with pytest.raises(DataError, match="has no split 'val'; it has train, test"):
        source.listing("val", look=False)
