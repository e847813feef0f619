"""`smalti evaluate generator`: GANs and priors."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from command_line import eye, write_discs
from small_runs import pixels, write_source


def test_a_generator_is_scored_into_a_record_a_table_and_a_page(smalti, trained: SimpleNamespace) -> None:
    np.savez("new.npz", images=pixels(40, seed=1))
    done = smalti(
        "evaluate", "generator", trained.gan, "--against", "new.npz", "--training", trained.source, "--count", 40,
        *eye(trained), "--out", "gan.json", "--report", "gan.html",
    )  # fmt: skip
    assert done.code == 0, done.err
    for word in ("FD (smalti-vit", "KID", "precision", "coverage", "authenticity", "copied share"):
        assert word in done.out
    record = json.loads(Path("gan.json").read_text(encoding="utf-8"))
    assert record["protocol"]["judged_count"] == 40
    assert record["protocol"]["extractor"]["name"] == "smalti-vit"
    page = Path("gan.html").read_text(encoding="utf-8")
    assert "Nearest training images" in page
    assert page.count("<img") >= 3


def test_a_classifier_learns_from_a_prior_with_labels(smalti, priors, trained: SimpleNamespace, tmp_path: Path) -> None:
    write_discs(tmp_path / "discs")
    words = ("--against", "discs", "--features", "smalti-vit", "--weights", trained.eye, "--count", 20)
    words += ("--classifier-images", 64, "--out", "g.json")
    done = smalti("evaluate", "generator", priors.plain, *words)
    assert done.code == 1
    assert "leave --classifier-images out, or train with --set model.condition=class" in done.err
    done = smalti("evaluate", "generator", priors.labelled, *words)
    assert done.code == 0, done.err
    assert "classification_accuracy_score" in Path("g.json").read_text()


def test_a_prior_is_scored_as_a_generator(smalti, priors, trained: SimpleNamespace, tmp_path: Path) -> None:
    write_source(tmp_path / "new.npz", count=20)
    words = ("--against", "new.npz", "--features", "smalti-vit", "--weights", trained.eye, "--count", 20)
    done = smalti("evaluate", "generator", priors.plain, *words, "--out", "g.json")
    assert done.code == 0, done.err
    assert "frechet_distance" in Path("g.json").read_text()
