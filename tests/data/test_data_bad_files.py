"""Sources that are missing, broken, hostile or not what was asked for: one line that says what to do, no harm done."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import pickle
import socket
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import make_array, make_file, pictures, write_files, write_tar, write_zip
from PIL import Image

from smalti.data import inspect, load
from smalti.data.archives import Folder, TarArchive, ZipArchive
from smalti.data.cifar import CifarSource, parse_python
from smalti.data.download import ARCHIVE, find_or_download
from smalti.errors import ConfigError, DataError


def refusal(source: object, cache: Path, **options: Any) -> str:
    """What load says when it refuses; always one line, and never something left in the cache."""
    with pytest.raises(DataError) as caught:
        load(source, cache=cache, **options)  # type: ignore[arg-type]
    packed = cache / "packed"
    assert not packed.exists() or list(packed.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Not there, or nothing in it


@pytest.mark.parametrize(("word", "meant"), [("cifra10", "cifar10"), ("emojis", "emoji"), ("CIFAR-10", "cifar10")])
def test_a_misspelt_word_is_understood(cache: Path, word: str, meant: str) -> None:
    assert f"did you mean '{meant}'?" in refusal(word, cache)


def test_a_misspelt_path_is_understood(tmp_path: Path, cache: Path) -> None:
    write_files(tmp_path / "pictures", pictures(2))
    said = refusal(tmp_path / "pictuers", cache)
    assert "does not exist" in said
    assert str(tmp_path / "pictures") in said
    assert "cifar10, emoji" in refusal(tmp_path / "qqqqqqqqqqqqqqq" / "wwwwwwwwwwwwww", cache)


def test_an_empty_folder_and_one_without_images(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no images (0 other files)" in refusal(tmp_path / "empty", cache)
    write_files(tmp_path / "texts", {"a.txt": b"1", "b.csv": b"2"})
    assert "holds no images (2 other files)" in refusal(tmp_path / "texts", cache)
    assert "holds no images" in refusal(write_zip(tmp_path / "a.zip", {}), cache)
    assert "holds no images" in refusal(write_tar(tmp_path / "a.tar", {"notes.txt": b"1"}), cache)


def test_a_file_that_holds_no_images(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.doc").write_bytes(b"hello" * 1000)
    assert "expected a folder, zip, tar, npz, IDX or CIFAR-10" in refusal(tmp_path / "a.doc", cache)
    (tmp_path / "empty.tar").write_bytes(b"")
    assert "holds no set of images" in refusal(tmp_path / "empty.tar", cache)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_for(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(4))
    os.mkfifo(folder / "cat/pipe.png")
    packed = load(folder, cache=cache)
    assert packed.skipped == (("cat/pipe.png", "not a regular file"),)
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file or folder" in refusal(tmp_path / "pipe", tmp_path / "other")


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ([(40, 40)], ""),
        ([(300, 300)], " --size 64"),
        ([(64, 90), (200, 70), (80, 80), (500, 40)], " --size 64"),
        ([(64, 90), (200, 70), (40, 80), (500, 40)], " --size 32"),
        ([(8, 8), (9, 9)], " --size 32"),
    ],
)
def test_the_suggested_size_is_one_that_most_pictures_fill(
    tmp_path: Path, cache: Path, sides: list[tuple[int, int]], said: str
) -> None:
    (tmp_path / "in").mkdir()
    for number, size in enumerate(sides):
        Image.new("RGB", size).save(tmp_path / "in" / f"{number}.png")
    assert inspect(tmp_path / "in", cache=cache).suggestion.endswith(f"runs/first{said}")


def test_the_home_of_a_user_is_understood_and_that_of_nobody_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "a.png")
    assert inspect("~/in", cache="~/cache").images == len(load("~/in", cache="~/cache")) == 1
    assert (tmp_path / "cache" / "packed").is_dir()
    for look in (inspect, load):
        with pytest.raises(DataError, match="nobody here"):
            look("~nosuchuser/in", cache=tmp_path)
        with pytest.raises(DataError, match="nobody here"):
            look(tmp_path / "in", cache="~nosuchuser/cache")


def test_an_unknown_split_names_the_splits(tmp_path: Path, cache: Path) -> None:
    folder = write_files(tmp_path / "in", pictures(4, prefix="train/") | pictures(4, prefix="val/"))
    assert "no split 'test'; it has train, val" in refusal(folder, cache, split="test")
    flat = write_files(tmp_path / "flat", pictures(4))
    assert "has no splits" in refusal(flat, cache, split="train")
    two = write_files(tmp_path / "two", pictures(4, prefix="test/") | pictures(4, prefix="val/"))
    assert "choose one of val, test" in refusal(two, cache)
    assert "no split 'val'" in refusal("emoji", cache, split="val")


def test_several_sizes_are_listed(tmp_path: Path, cache: Path) -> None:
    sizes = [(4, 6)] * 3 + [(6, 4)] * 2 + [(5, 5)]
    files = {f"{i}.png": make_file(make_array(i, height=h, width=w)) for i, (h, w) in enumerate(sizes)}
    said = refusal(write_files(tmp_path / "in", files), cache)
    assert "found 4x6 (3), 6x4 (2) and 5x5 (1); give --size, for example --size 64" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "1 to 16384"), ({"size": (8, -1)}, "1 to 16384"), ({"channels": 2}, "channels is 2"),
        ({"resize": "crop"}, "resize is 'crop'"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(tmp_path: Path, cache: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(write_files(tmp_path / "in", pictures(2)), cache=cache, **options)


# Broken files among good ones


def test_up_to_half_of_the_files_may_be_broken(tmp_path: Path, cache: Path) -> None:
    files = pictures(8)
    names = list(files)
    files[names[0]], files[names[3]], files[names[7]] = b"", files[names[3]][:50], b"hello"
    for source in (
        write_files(tmp_path / "in", files), write_zip(tmp_path / "a.zip", files), write_tar(tmp_path / "a.tar", files)
    ):  # fmt: skip
        packed = load(source, cache=cache)
        assert [name for name, _ in packed.skipped] == sorted([names[0], names[3], names[7]])
        assert all(reason for _, reason in packed.skipped)
        assert len(packed) == len(packed.names) == 5
        assert packed.labels is not None
        for i, name in enumerate(packed.names):
            assert np.array_equal(packed.images[i], make_array(int(Path(name).stem)))
            assert packed.classes[packed.labels[i]] == name.split("/")[0]
        again = load(source, cache=cache)
        assert (again.skipped, again.fingerprint) == (packed.skipped, packed.fingerprint)


def test_captions_stay_with_their_images_when_others_are_skipped(tmp_path: Path, cache: Path) -> None:
    files = {f"{i}.png": make_file(make_array(i)) for i in range(5)} | {
        f"{i}.txt": f"text {i}".encode() for i in range(5)
    }
    files["1.png"] = b"broken"
    packed = load(write_files(tmp_path / "in", files), cache=cache)
    assert packed.captions is not None
    assert list(packed.captions) == ["text 0", "text 2", "text 3", "text 4"]


def test_more_than_half_broken_is_an_error_with_the_first_three(tmp_path: Path, cache: Path) -> None:
    files = {f"{i}.png": b"broken" for i in range(5)} | {f"{i}.png": make_file(make_array(i)) for i in range(5, 9)}
    said = refusal(write_files(tmp_path / "in", files), cache)
    assert "5 of 9 files" in said
    assert "0.png: not an image" in said
    assert "2.png" in said
    assert "and 2 more" in said
    assert "3.png" not in said
    all_broken = dict.fromkeys(files, b"broken")
    assert "none of the 9 files" in refusal(write_files(tmp_path / "all", all_broken), cache)
    assert "9 of 9 files" in refusal(tmp_path / "all", cache, size=8, channels=3)


def test_one_image_is_enough(tmp_path: Path, cache: Path) -> None:
    packed = load(write_files(tmp_path / "in", {"a.png": make_file(make_array(0))}), cache=cache)
    assert packed.batch(0, 0, 3).indices.tolist() == [0, 0, 0]


def test_a_metadata_file_that_is_not_json_names_its_line(tmp_path: Path, cache: Path) -> None:
    files = pictures(2) | {"metadata.jsonl": b'{"file_name": "a", "text": "b"}\n{"file_name'}
    assert "line 2 of metadata.jsonl is not JSON" in refusal(write_files(tmp_path / "in", files), cache)


# Archives


def test_members_that_point_outside_are_skipped(tmp_path: Path, cache: Path) -> None:
    files = pictures(6)
    picture = make_file(make_array(50))
    hostile = {"../evil.png": picture, "/etc/evil.png": picture, "cat/../../evil.png": picture}
    for source in (write_zip(tmp_path / "a.zip", files | hostile), write_tar(tmp_path / "a.tar", files | hostile)):
        packed = load(source, cache=cache, size=8)
        assert len(packed) == 6
        assert {name for name, _ in packed.skipped} == set(hostile)
        assert {reason for _, reason in packed.skipped} == {"an absolute path", "a path that leads outside the archive"}
    assert not (tmp_path / "evil.png").exists()


def test_links_and_devices_in_archives_are_skipped(tmp_path: Path, cache: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(6))
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"cat/evil{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    packed = load(path, cache=cache)
    assert len(packed) == 6
    assert [reason for _, reason in packed.skipped] == ["a link or device, not a file"] * 4
    with zipfile.ZipFile(write_zip(tmp_path / "a.zip", pictures(6)), "a") as archive:
        link = zipfile.ZipInfo("cat/evil.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert load(tmp_path / "a.zip", cache=cache).skipped == (("cat/evil.png", "a link or device, not a file"),)


def test_members_above_the_limit_are_skipped_not_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smalti.data.archives.MEMBER_LIMIT", 10_000)
    files = pictures(4) | {"cat/huge.png": bytes(50_000)}
    for source in (
        write_files(tmp_path / "in", files), write_zip(tmp_path / "a.zip", files),
        write_tar(tmp_path / "a.tar.gz", files, "w:gz"),
    ):  # fmt: skip
        ((name, reason),) = load(source, cache=cache).skipped
        assert name == "cat/huge.png"
        assert reason.startswith("50,000 bytes")


def test_a_zip_member_that_is_longer_than_it_says_is_not_unpacked(tmp_path: Path, cache: Path) -> None:
    path = write_zip(tmp_path / "a.zip", pictures(4) | {"cat/bomb.png": bytes(5_000_000)})
    data = path.read_bytes()
    lying = data.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 900))
    assert lying != data
    path.write_bytes(lying)
    ((name, reason),) = load(path, cache=cache).skipped
    assert name == "cat/bomb.png"
    assert "damaged" in reason or "not an image" in reason


def test_an_encrypted_zip_says_so(tmp_path: Path, cache: Path) -> None:
    path = write_zip(tmp_path / "a.zip", pictures(4))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = -1
        while (place := data.find(signature, place + 1)) >= 0:
            data[place + offset] |= 1
    path.write_bytes(bytes(data))
    assert "encrypted; unpack it with its password first" in refusal(path, cache)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.97])
def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path, cache: Path, kind: str, fraction: float) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        write_zip(path, pictures(60))
    else:
        write_tar(path, pictures(60), "w:" + kind.removeprefix("tar").removeprefix("."))
    size = path.stat().st_size if kind != "tar" else 60 * 1024  # without the zeros that fill the last block
    os.truncate(path, int(size * fraction))
    assert "damaged" in refusal(path, cache)


def test_a_tar_without_an_end_is_refused_even_between_two_files(tmp_path: Path, cache: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(10))
    os.truncate(path, 5 * 1024)  # each picture takes a header and one block
    assert "cut short or damaged after 5 files" in refusal(path, cache)


def test_a_damaged_header_in_the_middle_is_refused(tmp_path: Path, cache: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(10))
    data = bytearray(path.read_bytes())
    data[4 * 1024 + 150] ^= 0xFF  # the checksum of the fifth header
    path.write_bytes(bytes(data))
    assert "damaged after 4 files" in refusal(path, cache)


def test_a_tar_header_that_declares_gigabytes_is_refused(tmp_path: Path, cache: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**32
    head = write_tar(tmp_path / "good.tar", pictures(2)).read_bytes()[: 2 * 1024]
    (tmp_path / "a.tar").write_bytes(head + info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert "a header of 4,294,967,296 bytes" in refusal(tmp_path / "a.tar", cache)


def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path, cache: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in (1, 2):
            data = make_file(make_array(number))
            info = tarfile.TarInfo("a.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    packed = load(tmp_path / "a.tar", cache=cache)
    assert len(packed) == 1
    assert np.array_equal(packed.images[0], make_array(2))


def test_every_file_is_closed_when_a_walk_is_left(tmp_path: Path) -> None:
    """Warnings are errors here, so an open file would fail the test."""
    files = pictures(5)
    trees = [
        Folder(write_files(tmp_path / "in", files)), ZipArchive(write_zip(tmp_path / "a.zip", files)),
        TarArchive(write_tar(tmp_path / "a.tar", files)),
    ]  # fmt: skip
    for tree in trees:
        entry, contents = next(tree.walk(lambda entry: True))
        assert entry.name in files
        assert contents is not None


# CIFAR-10: pickles run code, unless they are not allowed to


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, ("touch evil",)


def batch(**fields: Any) -> bytes:
    good = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
    return pickle.dumps(good | fields, 2)


HOSTILE = {
    "code": pickle.dumps({"data": Evil(), "labels": [0]}, 2),
    "code in protocol 5": pickle.dumps(Evil(), 5),
    "eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "import through a dotted name": b"\x80\4\x8c\5numpy\x8c\x0elib.os.system1\x93.",
    "huge memo": b"\x80\2]r\xff\xff\xff\x7f.",
    "huge bytes": b"\x80\2T\xff\xff\xff\x7fabc.",
    "huge array": batch().replace(struct.pack("<H", 3072), struct.pack("<H", 65535)),
    "extension registry": b"\x80\2\x82\1.",
    "persistent id": b"\x80\2K\1Q.",
    "state of an inert thing": b"\x80\2cnumpy\ndtype\n)R}b.",
    "empty": b"",
    "text": b"hello, world",
    "cut short": batch()[:3000],
    "a list": pickle.dumps([1, 2], 2),
    "no labels": pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}, 2),
    "labels of another length": batch(labels=[1]),
    "labels out of range": batch(labels=[1, 10]),
    "labels that are text": batch(labels=["1", "2"]),
    "labels that are lists": batch(labels=[[], []]),
    "floats": batch(data=np.zeros((2, 3072), np.float32)),
    "another width": batch(data=np.zeros((2, 3071), np.uint8)),
    "one axis": batch(data=np.zeros(3072 * 2, np.uint8)),
    "objects": batch(data=np.array([[object] * 3, [object] * 3])),
    "column order": batch(data=np.asfortranarray(np.zeros((2, 3072), np.uint8))),
    "no images": batch(data=np.zeros((0, 3072), np.uint8), labels=[]),
    "data that is bytes": batch(data=b"abc"),
    "an unhashable key": b"\x80\2}](K\1s.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_broken_pickle_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        parse_python(HOSTILE[kind])
    assert not (tmp_path / "evil").exists()


def test_a_good_pickle_is_read() -> None:
    found = parse_python(batch())
    assert found.images.shape == (2, 32, 32, 3)
    assert found.labels.tolist() == [0, 1]


def test_every_single_byte_changed_gives_a_batch_or_a_data_error() -> None:
    good = batch(data=np.zeros((1, 3072), np.uint8), labels=[3])
    places = [*range(120), *range(len(good) - 120, len(good))]
    for place in places:
        for value in (0, 0x2E, 0x52, 0x63, 0xFF):
            data = bytearray(good)
            data[place] = value
            try:
                assert parse_python(bytes(data)).images.shape[1:] == (32, 32, 3)
            except DataError:
                continue


def test_cifar_with_a_hostile_or_missing_batch(tmp_path: Path, cache: Path) -> None:
    files = {f"data_batch_{i}": batch() for i in range(1, 6)} | {"test_batch": batch()}
    hostile = files | {"data_batch_3": HOSTILE["code"]}
    said = refusal(write_files(tmp_path / "hostile", hostile), cache)
    assert "data_batch_3" in said
    assert "system, which CIFAR-10 does not need" in said
    missing = {name: data for name, data in files.items() if name != "data_batch_4"}
    assert "lacks data_batch_4" in refusal(write_files(tmp_path / "missing", missing), cache)
    assert "no split 'val'; it has train, test" in refusal(write_files(tmp_path / "in", files), cache, split="val")


def test_cifar_binary_of_the_wrong_length_or_with_wrong_labels(tmp_path: Path, cache: Path) -> None:
    row = bytes([3]) + bytes(3072)
    files = {f"data_batch_{i}.bin": row for i in range(1, 6)} | {"test_batch.bin": row}
    short = write_files(tmp_path / "short", files | {"data_batch_2.bin": row[:-1]})
    assert "3,072 bytes, expected a multiple of 3,073" in refusal(short, cache)
    label = write_files(tmp_path / "label", files | {"data_batch_2.bin": bytes([10]) + row[1:]})
    assert "a label outside 0..9" in refusal(label, cache)


# IDX and npz


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.astype(np.uint8).tobytes()


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_that_lies_about_its_size(tmp_path: Path, cache: Path, zipped: bool) -> None:
    def said(images: bytes, labels: bytes = idx(np.zeros(4))) -> str:
        files = {"train-images-idx3-ubyte": images, "train-labels-idx1-ubyte": labels}
        packed = {f"{name}.gz": gzip.compress(data) for name, data in files.items()} if zipped else files
        for path in (tmp_path / "in").glob("*"):
            path.unlink()
        return refusal(write_files(tmp_path / "in", packed), cache)

    good = idx(np.zeros((4, 5, 5)))
    assert "cut short or damaged" in said(good[:-1])
    assert "cut short or damaged" in said(good + b"0")
    assert "cut short or damaged" in said(good[:10])
    huge = bytes([0, 0, 8, 3]) + b"\x7f\xff\xff\xff" * 3 + bytes(100)
    assert "its header declares" in said(huge)
    assert "4 images in train-images" in said(good, idx(np.zeros(3)))
    assert "expected 00000801" in said(good, b"\1\2\3\4" + bytes(20))
    assert "no images" in said(idx(np.zeros((0, 5, 5))))
    assert "expected (N,) integers" in said(good, idx(np.zeros((4, 2))))


def test_a_cut_gzip_of_idx_is_refused(tmp_path: Path, cache: Path) -> None:
    data = gzip.compress(idx(make_array(1, height=40 * 20, width=20).reshape(-1, 20, 20)))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(data[: len(data) // 2])
    assert "cut short or damaged" in refusal(path, cache)
    path.write_bytes(data[:4])
    assert "cannot be read or is damaged" in refusal(path, cache)


def test_several_idx_sets_in_one_folder_are_ambiguous(tmp_path: Path, cache: Path) -> None:
    files = {f"emnist-{kind}-train-images-idx3-ubyte": idx(np.zeros((2, 3, 3))) for kind in ("letters", "digits")}
    assert "several sets of IDX files" in refusal(write_files(tmp_path / "in", files), cache)


NPZ = {
    "no known name": ({"foo": np.zeros((2, 4, 4))}, "arrays foo; expected images"),
    "two axes": ({"images": np.zeros((2, 48), np.uint8)}, "expected (N, H, W)"),
    "five channels": ({"images": np.zeros((2, 5, 4, 5), np.uint8)}, "C = 1, 3 or 4"),
    "no images": ({"images": np.zeros((0, 4, 4), np.uint8)}, "no images"),
    "objects": ({"images": np.array([[[None]]], dtype=object)}, "which can run code"),
    "text": ({"images": np.array([[["a"]]])}, "expected uint8, or floats in [0, 1]"),
    "floats to 255": ({"images": np.full((2, 4, 4), 255.0)}, "float64 from 255 to 255"),
    "floats from -1": ({"images": np.linspace(-1, 1, 32).reshape(2, 4, 4)}, "float64 from -1 to 1"),
    "not a number": ({"images": np.full((2, 4, 4), np.nan)}, "from nan to nan"),
    "integers above 255": ({"images": np.full((2, 4, 4), 256)}, "int64 from 256 to 256"),
    "labels too few": ({"x": np.zeros((2, 4, 4)), "y": [1]}, "2 images in x, 1 labels in y"),
    "labels negative": ({"x": np.zeros((2, 4, 4)), "y": [1, -1]}, "expected class numbers"),
    "labels huge": ({"x": np.zeros((2, 4, 4)), "y": [1, 10**9]}, "expected class numbers"),
    "labels of floats": ({"x": np.zeros((2, 4, 4)), "y": [1.0, 2.0]}, "expected (N,) integers"),
    "names too few": ({"x": np.zeros((2, 4, 4)), "y": [0, 2], "classes": ["a", "b"]}, "names 2 classes"),
    "names that are objects": (
        {"x": np.zeros((2, 4, 4)), "y": [0, 0], "classes": np.array([Evil()], dtype=object)}, "cut short or damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", NPZ)
def test_npz_that_is_not_a_set_of_images(
    kind: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays, said = NPZ[kind]
    np.savez("a.npz", **arrays)  # type: ignore[arg-type]
    assert said in refusal("a.npz", cache)
    assert not Path("evil").exists()


def test_npz_headers_that_lie(tmp_path: Path, cache: Path) -> None:
    def npz(header: str, values: bytes = bytes(32)) -> Path:
        text = header.encode().ljust(117) + b"\n"
        member = b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + values
        return write_zip(tmp_path / "a.npz", {"images.npy": member})

    huge = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000, 1000), }"
    assert "its header declares 1,000,000,000,000 bytes" in refusal(npz(huge), cache)
    assert "damaged" in refusal(npz("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 4, 4), }"), cache)
    assert "damaged" in refusal(npz("__import__('os').system('true')"), cache)
    assert "damaged" in refusal(npz("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4, 4), }"), cache)


# CIFAR-10 by name


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a local web server over tmp_path/www."""
    (tmp_path / "www").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "www"))

        def log_message(self, *arguments: Any) -> None:
            """Nothing on the terminal."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def cifar_archive(path: Path) -> str:
    names = [*(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)), "cifar-10-batches-py/test_batch"]
    write_tar(path, {name: batch() for name in names}, "w:gz")
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("elsewhere")
def test_cifar10_is_downloaded_once_and_checked(tmp_path: Path, cache: Path, server: str) -> None:
    md5 = cifar_archive(tmp_path / "www" / ARCHIVE)
    seen: list[tuple[int, int | None]] = []
    path = find_or_download(cache, url=f"{server}/{ARCHIVE}", md5=md5, progress=lambda *step: seen.append(step))
    assert path == cache / "downloads" / ARCHIVE
    size = path.stat().st_size
    assert seen[-1] == (size, size)
    assert [file.name for file in path.parent.iterdir()] == [ARCHIVE]
    assert find_or_download(cache, url="http://127.0.0.1:1/", md5="") == path
    assert len(load("cifar10", cache=cache)) == 10


@pytest.mark.usefixtures("elsewhere")
def test_a_tampered_download_is_not_kept(tmp_path: Path, cache: Path, server: str) -> None:
    md5 = cifar_archive(tmp_path / "www" / ARCHIVE)
    with (tmp_path / "www" / ARCHIVE).open("ab") as file:
        file.write(b"!")
    with pytest.raises(DataError, match=f"expected {md5}; try again, or put {ARCHIVE} at") as caught:
        find_or_download(cache, url=f"{server}/{ARCHIVE}", md5=md5)
    assert str(cache / "downloads" / ARCHIVE) in str(caught.value)
    assert list((cache / "downloads").iterdir()) == []


@pytest.mark.usefixtures("elsewhere")
def test_a_server_that_is_not_there_or_has_no_such_file(cache: Path, server: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{unused.getsockname()[1]}/{ARCHIVE}"
    for url in (gone, f"{server}/none.tar.gz", "nonsense"):
        with pytest.raises(DataError, match=f"cannot download .*put it at .*{ARCHIVE}"):
            find_or_download(cache, url=url)
        assert list((cache / "downloads").iterdir()) == []


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("answer", ["short", "silent"])
def test_a_server_that_stops_in_the_middle(cache: Path, answer: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
                if answer == "silent":
                    done.wait(10)

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(DataError, match=ARCHIVE):
            find_or_download(cache, url=url, timeout_seconds=0.3)
        done.set()
        thread.join()
    assert list((cache / "downloads").iterdir()) == []


def test_cifar10_that_is_there_already_is_taken(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    cifar_archive(tmp_path / "data" / ARCHIVE)
    assert find_or_download(cache, url="http://127.0.0.1:1/") == Path("data") / ARCHIVE
    assert not cache.exists()
    source = CifarSource(TarArchive(tmp_path / "data" / ARCHIVE), "x", binary=False)
    assert len(source.listing("test", look=False).names) == 2


def test_inspect_of_bad_data_is_a_data_error_too(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        inspect(tmp_path / "nowhere", cache=cache)
    write_files(tmp_path / "in", {"a.png": b"broken", "b.png": make_file(make_array(0))})
    assert inspect(tmp_path / "in", cache=cache).broken[0][0] == "a.png"
