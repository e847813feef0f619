"""A zoo in a temporary folder, in the place of the package's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint import zoo

CARD = """# {name}

Draws discs for the tests
of {name}.

| | |
|---|---|
| kind | {kind} |
| data | 40 discs; drawn by `pixels`, a | b |
| trained by | `smalti train {preset}` |
| steps | {images:,} images in 8 steps of 8 |
| score | {score} |
| licence | Apache-2.0; as smalti |

Weakness: grey.
"""


def write_zoo(folder: Path, monkeypatch: pytest.MonkeyPatch, **models: Path) -> Path:
    """A zoo of these checkpoint files by name, with their cards, which replaces the package's for one test."""
    folder.mkdir()
    for name, file in models.items():
        shutil.copy(file, folder / f"{name}.safetensors")
        card = checkpoint.read_card(file)
        text = CARD.format(
            name=name, kind=card.kind, preset=card.config.preset, images=card.images_seen, score="12.3 dB; small"
        )
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(zoo, "FOLDER", folder)
    return folder
