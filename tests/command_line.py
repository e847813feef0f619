"""What a command line printed, the form that every refusal has, and what commands are given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from small_runs import pixels

Outcome = SimpleNamespace  # code, out, err


def one_line(outcome: Outcome) -> str:
    """The single line of a refusal; everything about its form is checked here."""
    assert outcome.code not in (0, None)
    lines = outcome.err.strip().splitlines()
    assert lines, "nothing was said"
    assert lines[-1].startswith("smalti: error: ")
    assert "Traceback" not in outcome.err
    assert sum(line.startswith("smalti: error: ") for line in lines) == 1
    return lines[-1]


def refused(outcome: Outcome, said: str) -> None:
    """One line that says so, about what was found and not about what was typed."""
    assert said in one_line(outcome)
    assert outcome.code == 1


def eye(trained: SimpleNamespace) -> tuple[object, ...]:
    """The options that take features of the small encoder."""
    return ("--features", "smalti-vit", "--weights", trained.eye)


def folder(place: Path, *, count: int = 12, side: int = 16, seed: int = 0, channels: int = 3) -> Path:
    """A folder of images."""
    for number, picture in enumerate(pixels(count, side=side, seed=seed, channels=channels)):
        path = place / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.squeeze()).save(path)
    return place


def write_discs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures in a folder for each class of `small_codes`; their pixels and labels."""
    images, labels = pixels(20), np.arange(20) % 2
    for label, name in enumerate(("left", "right")):
        (folder / name).mkdir(parents=True)
        for number in np.flatnonzero(labels == label):
            Image.fromarray(images[number]).save(folder / name / f"{number}.png")
    return images, labels
