"""`smalti decode`: codes that do not fit their tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from small_codes import small_codes, write_tokenizer
from small_runs import settings

from smalti.data.codes import TOKENIZER


def test_codes_of_another_tokenizer_are_named(smalti, tmp_path: Path) -> None:
    small_codes(tmp_path)
    card = write_tokenizer(tmp_path / "codes" / TOKENIZER, seed=1)
    for words in (
        ("decode", "codes", "--out", "x"),
        ("train", "prior-nano", "--data", "codes", "--out", "y", *settings("prior-nano")),
    ):
        done = smalti(*words)
        assert done.code == 1
        assert "the codes in codes are of the tokenizer" in done.err
        assert card.digest[:16] in done.err


def test_codes_of_a_grid_that_images_cannot_have_are_not_decoded(smalti, tmp_path: Path) -> None:
    small_codes(tmp_path)
    place = tmp_path / "codes" / "test"
    plain = json.loads((place / "index.json").read_text())
    (place / "index.json").write_text(json.dumps(plain | {"grid": [2, 4000]}))
    np.save(place / "codes.npy", np.zeros((len(plain["names"]), 1, 2, 4000), np.int16))
    done = smalti("decode", "codes", "--split", "test", "--out", "x")
    assert done.code == 1
    assert "the index of codes does not fit its tokenizer: 1 planes of codes on (2, 4000), for 1 on (4, 4)" in done.err
    assert not Path("x").exists()
