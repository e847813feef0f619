"""CIFAR-10 files that are damaged or hostile: pickles run code unless they are not allowed to."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from dataset_files import Evil, cifar_batch, refusal
from picture_files import write_files

from smalti.data.cifar import parse_python
from smalti.errors import DataError

HOSTILE = {
    "code": pickle.dumps({"data": Evil(), "labels": [0]}, 2),
    "code in protocol 5": pickle.dumps(Evil(), 5),
    "eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "import through a dotted name": b"\x80\4\x8c\5numpy\x8c\x0elib.os.system1\x93.",
    "huge memo": b"\x80\2]r\xff\xff\xff\x7f.",
    "huge bytes": b"\x80\2T\xff\xff\xff\x7fabc.",
    "huge array": cifar_batch().replace(struct.pack("<H", 3072), struct.pack("<H", 65535)),
    "extension registry": b"\x80\2\x82\1.",
    "persistent id": b"\x80\2K\1Q.",
    "state of an inert thing": b"\x80\2cnumpy\ndtype\n)R}b.",
    "empty": b"",
    "text": b"hello, world",
    "cut short": cifar_batch()[:3000],
    "a list": pickle.dumps([1, 2], 2),
    "no labels": pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}, 2),
    "labels of another length": cifar_batch(labels=[1]),
    "labels out of range": cifar_batch(labels=[1, 10]),
    "labels that are text": cifar_batch(labels=["1", "2"]),
    "labels that are lists": cifar_batch(labels=[[], []]),
    "floats": cifar_batch(data=np.zeros((2, 3072), np.float32)),
    "another width": cifar_batch(data=np.zeros((2, 3071), np.uint8)),
    "one axis": cifar_batch(data=np.zeros(3072 * 2, np.uint8)),
    "objects": cifar_batch(data=np.array([[object] * 3, [object] * 3])),
    "column order": cifar_batch(data=np.asfortranarray(np.zeros((2, 3072), np.uint8))),
    "no images": cifar_batch(data=np.zeros((0, 3072), np.uint8), labels=[]),
    "data that is bytes": cifar_batch(data=b"abc"),
    "an unhashable key": b"\x80\2}](K\1s.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_broken_pickle_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        parse_python(HOSTILE[kind])
    assert not (tmp_path / "evil").exists()


def test_a_good_pickle_is_read() -> None:
    found = parse_python(cifar_batch())
    assert found.images.shape == (2, 32, 32, 3)
    assert found.labels.tolist() == [0, 1]


def test_every_single_byte_changed_gives_a_batch_or_a_data_error() -> None:
    good = cifar_batch(data=np.zeros((1, 3072), np.uint8), labels=[3])
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
    files = {f"data_batch_{i}": cifar_batch() for i in range(1, 6)} | {"test_batch": cifar_batch()}
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
