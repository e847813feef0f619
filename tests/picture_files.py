"""Small pictures for the tests, made on the spot."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def make_array(number: int, *, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, channels), dtype=np.uint8)


def make_file(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, kind, **options)
    return buffer.getvalue()


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def pictures(count: int = 12, *, classes: tuple[str, ...] = ("cat", "dog"), prefix: str = "") -> dict[str, bytes]:
    """Names to PNG files: `count` pictures dealt out to the classes in turn."""
    names = [f"{prefix}{classes[i % len(classes)]}/{i}.png" for i in range(count)]
    return {name: make_file(make_array(i)) for i, name in enumerate(names)}
