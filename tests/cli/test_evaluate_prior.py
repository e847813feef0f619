"""`smalti evaluate prior`: bits of codes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import write_discs
from small_runs import settings, write_source

from smalti.pipelines import base as api
from smalti.pipelines.prior import Prior


def test_bits_are_counted(smalti, trained: SimpleNamespace, priors, tmp_path: Path) -> None:
    write_source(tmp_path / "new.npz", count=20)
    done = smalti("evaluate", "prior", priors.labelled, "--on", "new.npz", "--out", "p.json", "--report", "p.html")
    assert done.code == 0, done.err
    record = json.loads(Path("p.json").read_text())
    figures = {figure["name"]: figure for figure in record["figures"]}
    model = api.load(priors.labelled)
    _, bits = model.code_bits(np.load("new.npz")["images"])
    assert figures["bits_per_code"]["value"] == pytest.approx(float(bits.mean()), rel=1e-3)
    assert figures["bits_per_code"]["low"] <= figures["bits_per_code"]["value"] <= figures["bits_per_code"]["high"]
    assert figures["bits_per_dimension"]["value"] == pytest.approx(figures["bits_per_code"]["value"] * 16 / 768)
    assert figures["bits_per_code"]["note"] == "3 if uniform"
    assert {"rate_bpp", "entropy_bpp", "perplexity"} <= set(figures)
    page = Path("p.html").read_text()
    assert "held out, averaged weights" in page
    assert "Drawn by the prior" in page


def test_bits_with_the_labels_and_without_captions(smalti, priors, tmp_path: Path, monkeypatch) -> None:
    pixels, labels = write_discs(tmp_path / "discs")
    taken, code_bits = [], Prior.code_bits

    def watched(self: Prior, images: np.ndarray, *, labels: np.ndarray | None = None) -> tuple:
        taken.append(labels)
        return code_bits(self, images, labels=labels)

    monkeypatch.setattr(Prior, "code_bits", watched)
    done = smalti("evaluate", "prior", priors.labelled, "--on", "discs", "--out", "p.json")
    assert done.code == 0, done.err
    record = json.loads(Path("p.json").read_text())
    assert sorted(taken.pop()) == sorted(labels)
    known = code_bits(api.load(priors.labelled), pixels, labels=labels)[1].mean()
    assert record["figures"][0]["value"] == pytest.approx(float(known), rel=1e-4)
    assert record["protocol"]["labels"] is True
    done = smalti("evaluate", "prior", priors.text, "--on", "discs", "--out", "t.json")
    assert done.code == 0, done.err
    assert taken == [None]
    assert "knows captions, but these are the bits without any" in done.err


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        ("masked", ("--on", "new.npz"), "a masked prior knows no likelihood"),
        (
            "plain",
            ("--on", "new.npz", "--size", "8"),
            "makes images of 16x16x3, but new.npz holds 8x8x3; give --size 16",
        ),
        ("gan", ("--on", "new.npz"), "knows no codes to go on from"),
    ],
)
def test_bits_that_cannot_be_counted(smalti, trained, priors, tmp_path: Path, run, words, said: str) -> None:
    write_source(tmp_path / "new.npz", count=4)
    place = trained.gan if run == "gan" else getattr(priors, run)
    done = smalti("evaluate", "prior", place, *words, "--out", "p.json")
    assert done.code == 1
    assert said in done.err


def test_images_that_were_trained_on_are_told(smalti, trained: SimpleNamespace) -> None:
    assert smalti("encode", trained.vqvae, trained.source, "--out", "codes").code == 0
    assert smalti("train", "prior-nano", "--data", "codes", "--out", "run", *settings("prior-nano")).code == 0
    done = smalti("evaluate", "prior", "run", "--on", trained.source, "--out", "p.json")
    assert done.code == 0, done.err
    assert "was trained on the very images it is judged on" in done.err
