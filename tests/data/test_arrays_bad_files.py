"""IDX and npz files that are damaged, hostile or hold no images."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from dataset_files import Evil, idx, refusal
from picture_files import make_array, write_files, write_zip


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
