"""The resume state: tensors and plain values, never code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refused

from smalti.checkpoint.file import (
    load_state,
    read,
    save_state,
)
from smalti.errors import CheckpointError

CPU = torch.device("cpu")


def test_a_file_name_with_a_line_break_stays_readable(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        read(tmp_path / "two\nlines.safetensors")


def test_resume_states_come_back(tmp_path: Path) -> None:
    state = {"step": 3, "lr": 0.1, "name": "x", "nested": {"list": [1, None, True]}, "weights": torch.arange(4.0)}
    path = tmp_path / "resume.pt"
    save_state(path, state)
    found = load_state(path, CPU)
    assert torch.equal(found.pop("weights"), state.pop("weights"))
    assert found == state


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, (f"{Bomb.folder}/exploded",)

    folder = ""


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_resume_state_cannot_run_code(tmp_path: Path, plain_pickle: bool) -> None:
    path, Bomb.folder = tmp_path / "resume.pt", str(tmp_path)
    if plain_pickle:
        path.write_bytes(pickle.dumps({"step": Bomb()}))
    else:
        torch.save({"step": Bomb()}, path)
    refused(path, "is damaged", reading=lambda path: load_state(path, CPU))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_a_damaged_resume_state(tmp_path: Path, share: float) -> None:
    path = tmp_path / "resume.pt"
    save_state(path, {"weights": torch.arange(1000.0)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "the resume state", reading=lambda path: load_state(path, CPU))


def test_a_missing_resume_state(tmp_path: Path) -> None:
    refused(tmp_path / "resume.pt", "cannot read the resume state", reading=lambda path: load_state(path, CPU))
