"""What a checkpoint file says about itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from generators import write_generator
from small_codes import write_tokenizer

from smalti.checkpoint.file import read_card
from smalti.checkpoint.summary import summarize
from smalti.errors import CheckpointError


def test_a_summary_has_the_card_and_the_settings(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "gan.safetensors", classes=("cat", "dog"))
    card, about = read_card(path), summarize(path)
    assert about["file"] == str(path)
    assert (about["kind"], about["preset"], about["classes"]) == ("gan", "gan-nano", ["cat", "dog"])
    assert about["image"] == "3x16x16 (channels x height x width)"
    assert about["digest"] == card.digest
    assert about["size_bytes"] == path.stat().st_size
    assert 0 < about["parameters"] * 4 <= about["size_bytes"]
    assert about["config"]["model"]["latent"] == 8
    assert "tokenizer" not in about


def test_a_summary_is_plain(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "vq.safetensors")
    about = summarize(str(tmp_path / "vq.safetensors"))
    assert json.loads(json.dumps(about)) == about


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        summarize(tmp_path / "x.safetensors")
