"""The file of a model, for a folder, a file or a name of the zoo."""

from __future__ import annotations

from pathlib import Path

import pytest
from zoo_files import write_zoo

from smalti.checkpoint.find import find_checkpoint
from smalti.errors import CheckpointError


@pytest.mark.parametrize("kind", [str, Path])
def test_what_names_a_model(drawers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    place = write_zoo(tmp_path / "zoo", monkeypatch, discs=drawers.plain)
    assert find_checkpoint(kind("zoo:discs")) == place / "discs.safetensors"
    assert find_checkpoint(kind(drawers.plain)) == drawers.plain
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").touch()
    assert find_checkpoint(kind(run)) == run / "model.safetensors"  # of save_pretrained
    (run / "last.safetensors").touch()
    assert find_checkpoint(kind(run)) == run / "last.safetensors"


def test_what_names_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no checkpoint; expected last\.safetensors from"):
        find_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no .*gone; give a run folder or a \.safetensors file"):
        find_checkpoint(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="the zoo has no model 'gone'"):
        find_checkpoint("zoo:gone")
