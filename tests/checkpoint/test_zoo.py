"""The zoo: names, files and cards; and what every model in it must be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace

import pytest
from zoo_files import write_zoo

import smalti
from smalti.checkpoint import file as checkpoint
from smalti.checkpoint import zoo
from smalti.errors import CheckpointError
from smalti.pipelines import find_checkpoint

MODEL_LIMIT, ZOO_LIMIT = 10_000_000, 40_000_000  # bytes


@pytest.fixture
def folder(tmp_path: Path, drawers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of two generators."""
    return write_zoo(tmp_path / "zoo", monkeypatch, discs=drawers.plain, cats=drawers.labelled)


def test_models_are_named_in_order(folder: Path) -> None:
    (folder / "README.md").write_text("# not a model")
    (folder / ".discs.safetensors.7.tmp").write_bytes(b"")
    assert zoo.zoo_names() == ("cats", "discs")
    assert zoo.zoo_file("cats") == folder / "cats.safetensors"


def test_a_zoo_without_models_or_folder_has_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "none")
    assert zoo.zoo_names() == ()
    with pytest.raises(CheckpointError, match=r"^the zoo has no model 'discs'; none is known here$"):
        smalti.load("zoo:discs")


@pytest.mark.parametrize("kind", [str, Path, PurePosixPath, PureWindowsPath])
def test_a_name_survives_every_kind_of_path(folder: Path, kind: type) -> None:
    assert zoo.resolve(kind("zoo:discs")) == folder / "discs.safetensors"
    assert find_checkpoint(kind("zoo:discs")) == folder / "discs.safetensors"


def test_other_paths_stay_as_they_are(folder: Path) -> None:
    for text in ("discs", "runs/zoo:discs", "Zoo:discs", "C:/zoo", str(folder)):
        assert zoo.resolve(text) == Path(text)


def test_what_is_opened_is_the_model_in_the_zoo(folder: Path, drawers: SimpleNamespace) -> None:
    model = smalti.load("zoo:discs")
    assert model.path == folder / "discs.safetensors"
    assert model.card == checkpoint.read_card(drawers.plain)
    assert smalti.GAN.from_pretrained("zoo:discs").card == model.card
    with pytest.raises(CheckpointError, match=r"is for GAN, not for Autoencoder; open it with smalti\.GAN$"):
        smalti.Autoencoder.from_pretrained("zoo:discs")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("disc", "did you mean 'discs'?"),
        ("discs.safetensors", "known: cats, discs"),
        ("discs/", "did you mean 'discs'?"),
        ("", "known: cats, discs"),
        ("../zoo/discs", "known: cats, discs"),
        ("README", "known: cats, discs"),
    ],
)
def test_an_unknown_name_says_which_is_meant(folder: Path, name: str, remedy: str) -> None:
    with pytest.raises(CheckpointError, match=f"^the zoo has no model '{name}'; ") as caught:
        find_checkpoint(f"zoo:{name}")
    assert caught.value.remedy == remedy


def test_a_name_without_the_word_zoo_is_answered_with_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(CheckpointError, match=r"^there is no discs; did you mean zoo:discs\?$"):
        smalti.load("discs")
    with pytest.raises(CheckpointError, match=r"^there is no dogs; give a run folder or a \.safetensors file"):
        smalti.load("dogs")


@pytest.mark.skipif(os.name == "nt", reason="names of files have no colon there")
def test_a_file_of_that_name_is_not_taken(
    folder: Path, tmp_path: Path, drawers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("zoo:discs", "zoo:mine"):
        Path(name).mkdir()
        Path(name, "model.safetensors").write_bytes(drawers.clear.read_bytes())
    assert find_checkpoint("zoo:discs") == folder / "discs.safetensors"
    with pytest.raises(CheckpointError, match="the zoo has no model 'mine'"):
        find_checkpoint("zoo:mine")
    assert find_checkpoint(tmp_path / "zoo:mine") == tmp_path / "zoo:mine" / "model.safetensors"


def test_a_damaged_model_is_refused(folder: Path) -> None:
    file = zoo.zoo_file("discs")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="was cut short"):
        smalti.load("zoo:discs")


def test_a_card_is_taken_apart(folder: Path) -> None:
    card = zoo.read_zoo_card("cats")
    assert card.about == "Draws discs for the tests of cats."
    assert tuple(card.facts) == zoo.ROWS
    assert card.facts["data"] == "40 discs; drawn by `pixels`, a | b"
    assert card.text == zoo.zoo_card_text("cats") == (folder / "cats.md").read_text(encoding="utf-8")


def test_a_card_that_says_nothing_has_no_facts(folder: Path) -> None:
    (folder / "cats.md").write_bytes(b"# cats\n| | |\n|---|---|\n# \xff\n")
    card = zoo.read_zoo_card("cats")
    assert (card.about, card.facts) == ("", {})


def test_a_missing_card_is_named(folder: Path) -> None:
    (folder / "cats.md").unlink()
    with pytest.raises(CheckpointError, match=r"'cats' has no card, expected .*cats\.md; install smalti again$"):
        zoo.read_zoo_card("cats")
    with pytest.raises(CheckpointError, match="did you mean 'cats'"):
        zoo.zoo_card_text("cat")


def test_torch_is_not_needed_to_look_at_the_zoo() -> None:
    code = "import sys; from smalti.checkpoint import zoo; [zoo.read_zoo_card(n) for n in zoo.zoo_names()]"
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], timeout=60)
    assert done.returncode == 0


# The models that are there


def test_every_model_has_a_card_that_says_what_its_checkpoint_says() -> None:
    for name in zoo.zoo_names():
        card, found = zoo.read_zoo_card(name), checkpoint.read_card(zoo.zoo_file(name))
        assert card.text.startswith(f"# {name}\n"), name
        assert card.about, f"{name}: the first paragraph says what it is for"
        for row in zoo.ROWS:
            assert card.facts.get(row), f"{name}: its card has no row {row!r}; see src/smalti/zoo/README.md"
        assert card.facts["kind"] == found.kind, name
        assert f"{found.images_seen:,} images" in card.facts["steps"], name
        assert found.license != checkpoint.DEFAULT_LICENSE, name
        assert found.license in card.facts["licence"], name
        assert f"smalti train {found.config.preset}" in card.facts["trained by"], name


def test_every_file_of_the_zoo_is_a_model_or_its_card() -> None:
    expected = {f"{name}.{ending}" for name in zoo.zoo_names() for ending in ("safetensors", "md")}
    found = {path.name for path in zoo.FOLDER.iterdir() if not path.name.startswith(".")}
    assert found == expected | {"README.md"}
    readme = (zoo.FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"| {row} |" in readme for row in zoo.ROWS)


def test_the_zoo_is_small() -> None:
    sizes = {name: zoo.zoo_file(name).stat().st_size for name in zoo.zoo_names()}
    assert all(size <= MODEL_LIMIT for size in sizes.values()), sizes
    assert sum(sizes.values()) <= ZOO_LIMIT, sizes


def test_every_model_opens() -> None:
    for name in zoo.zoo_names():
        assert smalti.load(f"zoo:{name}").card.digest, name
