"""Files of CIFAR-10, MNIST and IDX for the tests, made on the spot, and what `load` says when it refuses one."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smalti.data import load
from smalti.data.cifar import CLASSES
from smalti.errors import DataError


def refusal(source: object, cache: Path, **options: Any) -> str:
    """What load says when it refuses; always one line, and never something left in the cache."""
    with pytest.raises(DataError) as caught:
        load(source, cache=cache, **options)  # type: ignore[arg-type]
    packed = cache / "packed"
    assert not packed.exists() or list(packed.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, ("touch evil",)


def cifar_batch(**fields: Any) -> bytes:
    good = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
    return pickle.dumps(good | fields, 2)


def shuffled(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: files[name] for name in sorted(files, key=lambda name: name[::-1])}


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
