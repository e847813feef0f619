"""`smalti zoo`, and `zoo:NAME` in every command that takes a trained model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import folder as write_pictures
from command_line import refused
from zoo_files import write_zoo

from smalti.checkpoint import zoo


@pytest.fixture
def place(
    tmp_path: Path, trained: SimpleNamespace, priors: SimpleNamespace, codec: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A zoo of small trained models, one of each kind."""
    runs = {name: getattr(trained, name) / "last.safetensors" for name in ("vqvae", "gan", "eye")}
    return write_zoo(
        tmp_path / "zoo", monkeypatch, **runs, prior=priors.plain / "last.safetensors", codec=codec / "last.safetensors"
    )


def test_a_table_of_the_models(smalti, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    listed = smalti("zoo")
    assert listed.code == 0
    head, *rows = listed.out.splitlines()
    assert head.split() == ["name", "kind", "MB", "what", "it", "is", "for", "score", "data", "licence"]
    assert [row.split()[0] for row in rows] == ["codec", "eye", "gan", "prior", "vqvae"]
    size = f"{(place / 'gan.safetensors').stat().st_size / 1e6:.1f}"
    words = " ".join(rows[2].split())
    assert words == f"gan gan {size} Draws discs for the tests of gan. 12.3 dB 40 discs Apache-2.0"
    assert "zoo:codec" in listed.err


def test_one_card(smalti, place: Path) -> None:
    card = (place / "gan.md").read_text(encoding="utf-8")
    assert smalti("zoo", "gan").out == card
    assert smalti("zoo", "zoo:gan").out == card
    refused(smalti("zoo", "gam"), "the zoo has no model 'gam'; did you mean 'gan'?")


def test_a_model_without_a_card_does_not_hide_the_others(smalti, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (place / "eye.md").unlink()
    listed = smalti("zoo")
    assert listed.code == 0
    assert [row.split()[0] for row in listed.out.splitlines()[1:]] == ["codec", "eye", "gan", "prior", "vqvae"]
    assert "warning: the zoo's model 'eye' has no card" in listed.err
    refused(smalti("zoo", "eye"), "has no card")


def test_a_card_cannot_steer_the_terminal(smalti, place: Path) -> None:
    (place / "gan.md").write_text("# gan\n\n\x1b[2Jgone\n", encoding="utf-8")
    for words in (("zoo",), ("zoo", "gan")):
        assert "\x1b" not in smalti(*words).out


def test_an_empty_zoo_says_so(smalti, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "none")
    listed = smalti("zoo")
    assert (listed.code, listed.out) == (0, "")
    assert "no trained models" in listed.err


def test_the_list_is_there_without_torch() -> None:
    code = "import sys; from smalti import cli; code = cli.run(['zoo']); sys.exit(code or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# zoo:NAME in the place of a run


def test_info_reads_the_zoo_and_no_log(smalti, place: Path) -> None:
    about = json.loads(smalti("info", "zoo:vqvae", "--json").out)
    assert about["file"] == str(place / "vqvae.safetensors")
    if sys.platform != "win32":
        Path("zoo:vqvae").mkdir()
        Path("zoo:vqvae/log.jsonl").write_text('{"images_seen": 1, "event": "of another run"}\n')
    printed = smalti("info", "zoo:vqvae")
    assert printed.code == 0
    assert about["digest"] in printed.out
    assert "log:" not in printed.out


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "zoo:gan", "--count", 2, "--out", "grid.png"),
        ("generate", "zoo:prior", "--count", 2, "--out", "drawn.png"),
        ("invert", "zoo:gan", "in/000.png", "--steps", 1, "--out", "inverted"),
        ("reconstruct", "zoo:vqvae", "in", "--out", "seen"),
        ("encode", "zoo:vqvae", "in", "--out", "codes"),
        ("fill", "zoo:prior", "in/000.png", "--mask", "0,0,8,8", "--count", 1, "--out", "filled"),
        ("vary", "zoo:prior", "in/000.png", "--count", 1, "--out", "varied"),
        ("evaluate", "autoencoder", "zoo:vqvae", "--on", "in", "--features", "smalti-vit", "--weights", "zoo:eye"),
        ("evaluate", "generator", "zoo:gan", "--against", "in", "--count", 12, "--features", "smalti-vit", "--weights",
         "zoo:eye"),
        ("evaluate", "prior", "zoo:prior", "--on", "in"),
        ("compress", "zoo:codec", "in", "--effort", 0, "--out", "small"),
        ("compare-codecs", "zoo:codec", "in", "--effort", 0, "--count", 1),
    ],
    ids=lambda words: " ".join(map(str, words[:3])),
)  # fmt: skip
def test_every_command_takes_a_model_of_the_zoo(smalti, place: Path, words: tuple[object, ...]) -> None:
    write_pictures(Path("in"))
    for number, word in enumerate(words):
        if str(word).startswith("zoo:"):
            mistyped = smalti(*words[:number], f"{word}x", *words[number + 1 :])
            refused(mistyped, f"the zoo has no model '{str(word)[4:]}x'; did you mean")
    done = smalti(*words)
    assert done.code == 0, done.err


def test_the_probe_of_an_encoder_of_the_zoo(smalti, place: Path) -> None:
    for split in ("train", "test"):
        for label, name in enumerate(("left", "right")):
            write_pictures(Path("in", split, name), count=6, seed=label)
    refused(smalti("evaluate", "encoder", "zoo:ey", "--on", "in"), "no model 'ey'; did you mean 'eye'?")
    done = smalti("evaluate", "encoder", "zoo:eye", "--on", "in")
    assert done.code == 0, done.err
    assert json.loads(Path("evaluation.json").read_text())["subject"]["path"] == "zoo:eye"


def test_the_next_command_names_the_zoo_as_it_was_typed(smalti, place: Path) -> None:
    write_pictures(Path("in"), count=1)
    assert "next: smalti generate zoo:gan" in smalti("invert", "zoo:gan", "in", "--steps", 1, "--out", "found").err
