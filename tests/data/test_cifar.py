"""CIFAR-10, python and binary version, gives the same data set from any container."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from dataset_files import cifar_binary, cifar_python, cifar_rows, shuffled
from picture_files import write_files, write_tar, write_zip

from smalti.data import load
from smalti.data.cifar import CLASSES


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
