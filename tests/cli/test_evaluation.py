"""What the commands of `smalti evaluate` have in common: what they refuse, and that they replace nothing unasked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import eye, folder, one_line


def test_nothing_is_written_over_unasked(smalti, trained: SimpleNamespace) -> None:
    a = folder(Path("a"))
    Path("mine.json").write_text("mine")
    words = ("evaluate", "folder", a, "--against", a, *eye(trained), "--out", "mine.json")
    assert "already there" in one_line(smalti(*words))
    assert Path("mine.json").read_text() == "mine"
    assert smalti(*words, "--overwrite").code == 0
    assert "mine.html" not in {path.name for path in Path().iterdir()}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("folder", "a", "--against", "large"), "bring both to one shape with --size"),
        (("folder", "a", "--against", "grey"), "--channels"),
        (("folder", "a", "--against", "one"), "holds 1 image; a distribution needs 2"),
        (("folder", "a", "--against", "nowhere"), "nowhere"),
        (("folder", "a", "--against", "a", "--out", "a.txt"), "ends in .json"),
        (("folder", "a", "--against", "a", "--out", "none/a.json"), "no folder"),
        (("folder", "a", "--against", "a", "--out", "a.json", "--report", "a.json"), "ends in .html"),
        (("folder", "a", "--against", "a", "--out", "folder.json", "--overwrite"), "is a folder"),
        (("folder", "a", "--against", "a", "--neighbours", "0"), "--neighbours is 0"),
        (("folder", "a", "--against", "a", "--seed", "-1"), "--seed is -1"),
        (("generator", "nowhere", "--against", "a"), "nowhere"),
        (("generator", "GAN", "--against", "a", "--count", "1"), "--count is 1"),
        (("generator", "GAN", "--against", "a", "--classifier-images", "100", "--count", "8"), "without labels"),
        (("generator", "VQ", "--against", "a"), "draws no new images"),
        (("autoencoder", "GAN", "--on", "a"), "cannot reconstruct"),
        (("encoder", "--on", "a"), "has no training split beside"),
        (("encoder", "--on", "sorted"), "two classes or more"),
        (("encoder", "GAN", "--on", "sorted"), "gan"),
        (("doctor", "--on", "a", "--count", "3"), "too few to see"),
        (("doctor", "--on", "a", "--seed", "-1"), "--seed is -1"),
    ],
)
def test_mistakes_in_one_line(smalti, trained: SimpleNamespace, words: tuple[str, ...], expected: str) -> None:
    folder(Path("a"))
    folder(Path("large"), side=20)
    folder(Path("grey"), channels=1)
    folder(Path("one"), count=1)
    Path("folder.json").mkdir()
    for split in ("train", "test"):
        folder(Path("sorted") / split / "x")
    typed = [{"GAN": trained.gan, "VQ": trained.vqvae}.get(word, word) for word in words]
    more = () if words[:2] == ("encoder", "GAN") else eye(trained)
    assert expected in one_line(smalti("evaluate", *typed, *more))
    assert not Path("evaluation.json").exists()


def test_weights_that_are_not_what_they_should_be(smalti, trained: SimpleNamespace) -> None:
    a = folder(Path("a"))
    words = ("evaluate", "folder", a, "--against", a, "--features")
    Path("inception.pth").write_bytes(b"not these")
    assert "SHA-256" in one_line(smalti(*words, "inception", "--weights", "inception.pth"))
    assert "--download" in one_line(smalti(*words, "inception"))
    said = one_line(smalti(*words, "smalti-vit", "--weights", trained.gan))
    assert "gan" in said
    broken = Path("cut.safetensors")
    broken.write_bytes((trained.eye / "last.safetensors").read_bytes()[:-100])
    assert "cut short" in one_line(smalti(*words, "smalti-vit", "--weights", broken))
