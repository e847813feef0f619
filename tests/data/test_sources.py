"""What all sources share: names of numbered images, and where a source is."""

from __future__ import annotations

from pathlib import Path

import pytest
from picture_files import pictures, write_files

from smalti.data import load
from smalti.data.sources import Numbered


def test_numbered_names_are_a_sequence() -> None:
    names = Numbered("train/", 3)
    assert list(names) == ["train/00000", "train/00001", "train/00002"]
    assert names[-1] == "train/00002"
    assert names[1:] == ["train/00001", "train/00002"]
    with pytest.raises(IndexError):
        names[3]


def test_a_relative_path_and_an_absolute_one_share_a_pack(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "in", pictures(3))
    monkeypatch.chdir(tmp_path)
    relative, absolute = load("in", cache=cache), load(tmp_path / "in", cache=cache)
    assert (relative.source, absolute.source) == ("in", str(tmp_path / "in"))
    assert len(list((cache / "packed").iterdir())) == 1
