"""`smalti evaluate compare`: records that can be compared, and others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from command_line import eye, folder, one_line


def test_two_folders_and_their_comparison(smalti, trained: SimpleNamespace) -> None:
    a, b, reference = folder(Path("a")), folder(Path("b"), seed=1), folder(Path("reference"), seed=2)
    for name in (a, b):
        done = smalti("evaluate", "folder", name, "--against", reference, *eye(trained), "--out", f"{name}.json")
        assert done.code == 0, done.err
        assert "warning: 12 images are no more than the" in done.err
    compared = smalti("evaluate", "compare", "a.json", "b.json")
    assert compared.code == 0, compared.err
    assert "B - A" in compared.out
    assert "FD (smalti-vit" in compared.out


def test_unlike_protocols_are_not_compared(smalti, trained: SimpleNamespace) -> None:
    a, reference = folder(Path("a")), folder(Path("reference"), seed=2)
    words = ("evaluate", "folder", a, "--against", reference, *eye(trained))
    assert smalti(*words, "--out", "a.json").code == 0
    assert smalti(*words, "--feature-size", 16, "--neighbours", 3, "--out", "b.json").code in (0, 1)
    assert smalti(*words, "--neighbours", 3, "--out", "c.json").code == 0
    said = one_line(smalti("evaluate", "compare", "a.json", "c.json"))
    assert "cannot be compared" in said
    assert "neighbours" in said
