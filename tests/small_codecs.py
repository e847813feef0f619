"""Tiny codecs of 16x16 pictures, trained for a moment, and pictures of every kind to give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from small_runs import pixels, small_config, small_data

from smalti.runtime.device import Machine
from smalti.training.loop import train


def train_codec(folder: Path, *, channels: int = 3, preset: str = "codec-tiny") -> Path:
    """The run folder of a tiny codec."""
    data = small_data(folder, channels=channels, labels=False)
    train(small_config(preset), data, folder / "run", machine=Machine("cpu", "float32"))
    return folder / "run"


def exif(**tags: Any) -> bytes:
    """EXIF with an orientation and a description, by their names here."""
    found = Image.Exif()
    for name, tag in (("orientation", 0x0112), ("description", 0x010E)):
        if name in tags:
            found[tag] = tags[name]
    return found.tobytes()


def write_pictures(folder: Path, *, count: int = 12, classes: tuple[str, ...] = ("left", "right")) -> Path:
    """Discs of 16x16 pixels in class folders."""
    for number, picture in enumerate(pixels(count)):
        path = folder / classes[number % len(classes)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return folder


def write_kinds(folder: Path) -> dict[str, Path]:
    """A file of every kind of picture, 24x20 pixels (width x height)."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = np.asarray(Image.fromarray(pixels(1)[0]).resize((24, 20)))
    alpha = np.linspace(0, 255, 24 * 20).astype(np.uint8).reshape(20, 24, 1)
    colour = Image.fromarray(rgb)
    images = {
        "colour.png": colour,
        "grey.png": colour.convert("L"),
        "clear.png": Image.fromarray(np.concatenate([rgb, alpha], axis=2)),
        "deep.png": Image.fromarray(np.arange(24 * 20, dtype=np.uint16).reshape(20, 24) * 130),
        "palette.png": colour.convert("P"),
        "cmyk.jpg": colour.convert("CMYK"),
    }
    for name, image in images.items():
        image.save(folder / name)
    frames = [colour, colour.rotate(180)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    colour.save(folder / "turned.jpg", exif=exif(orientation=6, description="a disc"), quality=95)
    return {path.stem: path for path in folder.iterdir()}
