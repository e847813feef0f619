"""`smalti zoo`, and `zoo:NAME` in every command that takes a trained model."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import folder as write_pictures
from command_line import refused
from cyclopts import App
from small_runs import settings, small_config, small_data, small_pairs
from zoo_files import write_zoo

import smalti as package
from smalti import cli
from smalti.checkpoint import zoo
from smalti.checkpoint.summary import summarize
from smalti.cli.apps import app, data_app, evaluate_app
from smalti.errors import CheckpointError, OutputError
from smalti.features.extractor import extractor
from smalti.runtime.device import Machine
from smalti.training.loop import train

NAMES = ["codec", "eye", "gan", "prior", "restorer", "translator", "vqvae"]


@pytest.fixture(scope="module")
def restorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restorer")
    data = small_data(folder, labels=False)
    train(small_config("denoise"), data, folder / "run", machine=Machine("cpu", "float32"))
    return folder / "run"


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translator")
    config = small_config("restyle-paired")
    train(config, small_pairs(folder), folder / "run", machine=Machine("cpu", "float32"))
    return folder / "run"


@pytest.fixture
def place(
    tmp_path: Path,
    trained: SimpleNamespace,
    priors: SimpleNamespace,
    codec: Path,
    restorer: Path,
    translator: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A zoo of small trained models, one of each kind."""
    runs = {name: getattr(trained, name) for name in ("vqvae", "gan", "eye")}
    runs |= {"prior": priors.plain, "codec": codec, "restorer": restorer, "translator": translator}
    return write_zoo(tmp_path / "zoo", monkeypatch, **{name: run / "last.safetensors" for name, run in runs.items()})


def test_a_table_of_the_models(smalti, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    listed = smalti("zoo")
    assert listed.code == 0
    head, *rows = listed.out.splitlines()
    assert head.split() == ["name", "kind", "MB", "what", "it", "is", "for", "score", "data", "licence"]
    assert [row.split()[0] for row in rows] == NAMES
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
    assert [row.split()[0] for row in listed.out.splitlines()[1:]] == NAMES
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


SMALLEST = ("--data", "in", "--batch", 4, "--images", 8, "--quiet")
AGAINST = ("--features", "smalti-vit", "--weights", "zoo:eye")
USES = [
        ("info", "zoo:codec"),
        ("generate", "zoo:gan", "--count", 2, "--out", "grid.png"),
        ("generate", "zoo:prior", "--count", 2, "--out", "drawn.png"),
        ("invert", "zoo:gan", "in/000.png", "--steps", 1, "--out", "inverted"),
        ("reconstruct", "zoo:vqvae", "in", "--out", "seen"),
        ("encode", "zoo:vqvae", "in", "--out", "codes"),
        ("fill", "zoo:prior", "in/000.png", "--mask", "0,0,8,8", "--count", 1, "--out", "filled"),
        ("vary", "zoo:prior", "in/000.png", "--count", 1, "--out", "varied"),
        ("restore", "zoo:restorer", "in", "--out", "restored"),
    ("restyle", "zoo:translator", "in", "--out", "restyled"),
        ("evaluate", "autoencoder", "zoo:vqvae", "--on", "in", *AGAINST),
        ("evaluate", "generator", "zoo:gan", "--against", "in", "--count", 12, *AGAINST),
        ("evaluate", "folder", "in", "--against", "in", *AGAINST),
        ("evaluate", "prior", "zoo:prior", "--on", "in"),
        ("evaluate", "encoder", "zoo:eye", "--on", "parts"),
        ("evaluate", "encoder", "--on", "parts", *AGAINST),
        ("evaluate", "doctor", "--on", "emoji", "--size", 16, "--channels", 3, "--count", 400, *AGAINST),
        ("compress", "zoo:codec", "in", "--effort", 0, "--out", "small"),
        ("decompress", "a.smi", "--model", "zoo:codec", "--out", "back"),
        ("compare-codecs", "zoo:codec", "in", "--effort", 0, "--count", 1),
        ("train", "vqvae", "--start-from", "zoo:vqvae", *SMALLEST, "--out", "run"),
        ("train", "context", "--of", "zoo:vqvae", *SMALLEST, *settings("context"), "--out", "run"),
]  # fmt: skip
MODELS = {"MODEL", "MODELS", "--model", "--of", "--start-from", "--weights"}


def commands() -> Iterator[tuple[tuple[str, ...], App]]:
    for name in cli.SUBCOMMANDS:
        cli.load_subcommands(name)
    for tree, before in ((app, ()), (data_app, ("data",)), (evaluate_app, ("evaluate",))):
        for name in tree:
            if name.replace("-", "") not in ("h", "help", "version", *cli.SUBCOMMANDS):
                yield (*before, name), tree[name]


def test_every_place_for_a_model_is_tried_below() -> None:
    """The places are those that say so in their help, or have the name of one."""
    found, tried = set(), set()
    for words, command in commands():
        for argument in command.assemble_argument_collection(parse_docstring=True):
            takes = "zoo:NAME" in (argument.parameter.help or "") and words != ("zoo",)
            assert takes == (argument.name in MODELS), (words, argument.name)
            found |= {(words, argument.name)} if takes else set()
    for line in USES:
        words = line[:2] if line[0] in cli.SUBCOMMANDS else line[:1]
        for word, following in itertools.pairwise(line):
            if str(following).startswith("zoo:"):
                name = word if str(word).startswith("--") else "MODELS" if words == ("restore",) else "MODEL"
                tried.add((words, name))
    assert tried == found - {(("evaluate", "prior"), "--weights")}  # which needs no features


@pytest.mark.parametrize("words", USES, ids=lambda words: " ".join(map(str, words[:3])))
def test_every_command_takes_a_model_of_the_zoo(smalti, place: Path, words: tuple[object, ...]) -> None:
    write_pictures(Path("in"))
    if "parts" in words:
        write_parts(Path("parts"))
    if "a.smi" in words:
        assert smalti("compress", "zoo:codec", "in/000.png", "--effort", 0, "--out", "a.smi").code == 0
    for number, word in enumerate(words):
        if str(word).startswith("zoo:"):
            mistyped = smalti(*words[:number], f"{word}x", *words[number + 1 :])
            refused(mistyped, f"the zoo has no model '{str(word)[4:]}x'; did you mean")
    done = smalti(*words)
    assert done.code == 0 or (words[1] == "doctor" and "checks on 400 images" in done.out), done.err


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=" ".join)
def test_nothing_is_written_to_the_zoo(smalti, words: tuple[str, ...]) -> None:
    """As typed, and before anything else is done: what is given for the other arguments does not exist."""
    command = dict(commands())[words]
    arguments = list(command.assemble_argument_collection())
    others = [
        word
        for argument in arguments
        if argument.required and argument.name != "--out"
        for word in ([argument.name, "1"] if argument.name.startswith("--") else ["nothing"])
    ]
    outputs = {"--out", "--report"} & {argument.name for argument in arguments}
    assert outputs or words[-1] in ("info", "presets", "zoo", "inspect", "pack", "compare", "doctor")
    for name in outputs:
        own = [] if name == "--out" or "evaluate" in words else ["--out", "out"]
        done = smalti(*words, *others, *own, name, "zoo:mine")
        refused(done, f"{name} zoo:mine names a model that comes with smalti")
    assert not os.listdir()


def test_python_writes_nothing_to_the_zoo(place: Path, tmp_path: Path) -> None:
    model = package.load("zoo:gan")
    with pytest.raises(OutputError, match="`path=zoo:mine` names a model that comes with smalti"):
        model.save_pretrained("zoo:mine")
    with pytest.raises(OutputError, match="`out=zoo:mine` names a model that comes with smalti"):
        train(small_config("denoise"), small_data(tmp_path, labels=False), "zoo:mine")


def test_features_of_an_encoder_of_the_zoo(place: Path, trained: SimpleNamespace) -> None:
    found = extractor("smalti-vit", weights="zoo:eye")
    assert found.digest == extractor("smalti-vit", weights=trained.eye).digest
    assert found.digest == extractor("smalti-vit", weights=str(place / "eye.safetensors")).digest
    assert summarize("zoo:eye")["digest"] == summarize(trained.eye)["digest"]
    with pytest.raises(CheckpointError, match="the zoo has no model 'ey'; did you mean 'eye'"):
        extractor("smalti-vit", weights="zoo:ey")


def write_parts(folder: Path) -> None:
    for split in ("train", "test"):
        for label, name in enumerate(("left", "right")):
            write_pictures(folder / split / name, count=6, seed=label)


def test_the_probe_of_an_encoder_of_the_zoo(smalti, place: Path) -> None:
    write_parts(Path("in"))
    refused(smalti("evaluate", "encoder", "zoo:ey", "--on", "in"), "no model 'ey'; did you mean 'eye'?")
    done = smalti("evaluate", "encoder", "zoo:eye", "--on", "in")
    assert done.code == 0, done.err
    assert json.loads(Path("evaluation.json").read_text())["subject"]["path"] == "zoo:eye"
    twice = smalti("evaluate", "encoder", "zoo:eye", "--on", "in", "--weights", "zoo:eye", "--overwrite")
    refused(twice, "the network is given twice, as zoo:eye and as --weights zoo:eye")


def test_the_next_command_names_the_zoo_as_it_was_typed(smalti, place: Path) -> None:
    write_pictures(Path("in"), count=1)
    assert "next: smalti generate zoo:gan" in smalti("invert", "zoo:gan", "in", "--steps", 1, "--out", "found").err
