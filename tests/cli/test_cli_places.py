"""Commands and places: names, permissions, pipes and files that must not be lost; and what hostile files may print."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import one_line
from PIL import Image
from small_runs import pixels

from smalti import cli
from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.find import find_checkpoint
from smalti.data import archives
from smalti.errors import CheckpointError, ConfigError
from smalti.pipelines import base as api
from smalti.report.pictures import read_png_text

LONG = 300 * "n"
NOBODY = 65534


def picture(path: str | Path, *, seed: int = 0) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(1, seed=seed)[0]).save(path)
    return path


# What is the user's stays


def test_an_image_is_never_replaced_by_the_result_of_another(smalti, trained) -> None:
    picture("ph/a.jpg")
    kept = picture("ph/a.png", seed=1).read_bytes()
    said = one_line(smalti("reconstruct", trained.vqvae, "ph", "--out", "ph", "--overwrite"))
    assert "one of the images" in said
    Path("linked").symlink_to("ph")
    one_line(smalti("reconstruct", trained.vqvae, "ph", "--out", "linked", "--overwrite"))
    assert Path("ph/a.png").read_bytes() == kept
    assert sorted(os.listdir("ph")) == ["a.jpg", "a.png"]


def test_pairs_and_results_of_different_images_do_not_collide(smalti, trained) -> None:
    for name in ("x.png", "x.pair.png", "X.bmp"):
        picture(f"in/{name}")
    assert smalti("reconstruct", trained.vqvae, "in", "--out", "out").code == 0
    assert len(os.listdir("out")) == 6


def test_one_result_that_is_there_stops_everything_before_it_begins(smalti, trained) -> None:
    for name in "abc":
        picture(f"in/{name}.png")
    Path("out").mkdir()
    Path("out/c.pair.png").write_text("mine")
    assert "c.pair.png" in one_line(smalti("reconstruct", trained.vqvae, "in", "--out", "out"))
    assert os.listdir("out") == ["c.pair.png"]
    assert smalti("reconstruct", trained.vqvae, "in", "--out", "out", "--overwrite").code == 0


@pytest.mark.parametrize("name", ["grid.jpg", "grid.WEBP", "a/grid.tiff"])
def test_a_grid_is_a_png_or_nothing(smalti, trained, name: str) -> None:
    assert ".png" in one_line(smalti("generate", trained.gan, "--count", 1, "--out", name))
    assert not Path(name).exists()


def test_a_huge_count_is_refused_at_once_where_pictures_are(smalti, trained) -> None:
    picture("samples/000123.png")
    assert "000123.png" in one_line(smalti("generate", trained.gan, "--count", 10**7, "--out", "samples"))
    Path("file").write_text("mine")
    one_line(smalti("generate", trained.gan, "--count", 10**7, "--out", "file"))


# Names


@pytest.mark.parametrize(
    "words",
    [
        ("info", LONG),
        ("generate", LONG, "--out", "g.png"),
        ("reconstruct", LONG, "x.png", "--out", "o"),
        ("data", "inspect", LONG),
        ("data", "pack", LONG),
        ("data", "pack", "emoji", "--cache", LONG),
        ("data", "inspect", "cifar10", "--cache", LONG),
        ("demo", "--out", LONG),
    ],
)
def test_names_that_are_too_long(smalti, words: tuple[str, ...]) -> None:
    assert "name too long" in one_line(smalti(*words))


def test_outputs_with_names_that_are_too_long(smalti, trained) -> None:
    picture("x.png")
    for out in (f"{LONG}.png", LONG):
        assert "name too long" in one_line(smalti("generate", trained.gan, "--count", 1, "--out", out))
    assert "name too long" in one_line(smalti("reconstruct", trained.vqvae, "x.png", "--out", LONG))
    assert "name too long" in smalti("reconstruct", trained.vqvae, "x.png", LONG, "--out", "o").err
    assert smalti("generate", trained.gan, "--count", 1, "--out", 251 * "n" + ".png").code == 0


@pytest.mark.parametrize(
    "words",
    [("inspect", "~nosuchuser/x"), ("pack", "~nosuchuser/x"), ("inspect", "cifar10", "--cache", "~nosuchuser/x"),
     ("pack", "emoji", "--cache", "~nosuchuser/x")],
)  # fmt: skip
def test_the_home_of_nobody(smalti, words: tuple[str, ...]) -> None:
    assert "~nosuchuser/x" in one_line(smalti("data", *words))


def test_names_that_are_not_text(smalti, trained) -> None:
    class_folder, file = os.fsdecode(b"in/caf\xe9"), os.fsdecode(b"in/caf\xe9/b\xff.png")
    picture(file)
    picture("in/plain/a.png")
    result = smalti("data", "inspect", "in")
    assert result.code == 0
    assert "caf\\udce9 1" in result.out
    assert smalti("data", "pack", "in").code == 0
    assert smalti("reconstruct", trained.vqvae, class_folder, "--out", "out").code == 0
    (result,) = (Path("out") / name for name in os.listdir("out") if "pair" not in name)
    assert read_png_text(result)["smalti.source"] == "b\\udcff.png"


# Files that are no files, or too many bytes


def test_pipes_and_enormous_files_are_reported(smalti, trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 10_000)
    picture("good.png")
    os.mkfifo("pipe.png")
    Path("large.png").write_bytes(Path("good.png").read_bytes() + bytes(10_000))
    result = smalti("reconstruct", trained.vqvae, "pipe.png", "large.png", "good.png", "--out", "out")
    assert result.code == 1
    assert "pipe.png was left out: not a regular file" in result.err
    assert "files above 10,000 are not read" in result.err
    assert sorted(os.listdir("out")) == ["good.pair.png", "good.png"]


# Permissions


@pytest.fixture
def nobody(trained, smalti, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder and the rights of a user who owns it and nothing else."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    for module in ("data", "pipelines.encoding", "pipelines.gan", "cli.demo_report", "checkpoint.summary"):
        importlib.import_module(f"smalti.{module}")  # while it can be read

    place = Path(tempfile.mkdtemp())
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    for name in ("vqvae", "gan"):
        shutil.copy(getattr(trained, name) / "last.safetensors", place / f"{name}.safetensors")
    picture("locked/x.png")
    picture("images/x.png")
    Path("images/x.txt").write_text("a disc")
    Path("cifar").mkdir()
    Path("cifar/data_batch_1.bin").write_bytes(b"")
    for path in (place, *place.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    for path in ("locked", "images/x.txt", "cifar/data_batch_1.bin"):
        os.chmod(path, 0)
    os.seteuid(NOBODY)
    try:
        yield place
    finally:
        os.seteuid(0)
        shutil.rmtree(place)


def test_no_permission_to_read_or_write(nobody: Path, smalti) -> None:
    for words in (
        ("data", "inspect", "locked"),
        ("data", "inspect", "locked/x.png"),
        ("data", "inspect", "images"),
        ("data", "inspect", "cifar"),
        ("data", "pack", "emoji", "--cache", "locked"),
        ("info", "locked"),
        ("info", "locked/run"),
        ("generate", "gan.safetensors", "--count", 1, "--out", "locked/g.png"),
        ("generate", "gan.safetensors", "--count", 1, "--out", "locked"),
        ("generate", "gan.safetensors", "--count", 1, "--out", "locked/deep"),
        ("reconstruct", "vqvae.safetensors", "images/x.png", "--out", "locked"),
        ("demo", "--out", "locked"),
        ("demo", "--out", "locked/demo"),
    ):
        said = one_line(smalti(*words))
        assert "ermission" in said, (words, said)
        assert any(name in said for name in ("locked", "x.txt", "data_batch_1.bin")), (words, said)
    assert "Permission denied" in smalti("reconstruct", "vqvae.safetensors", "locked/x.png", "--out", "o").err


# Errors nobody foresaw


@pytest.mark.parametrize(
    "fail",
    [
        lambda: torch.empty(2**60, dtype=torch.uint8),
        lambda: np.empty(2**60, np.uint8),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")),
    ],
)
def test_too_little_memory(smalti, monkeypatch: pytest.MonkeyPatch, fail) -> None:
    monkeypatch.setattr("smalti.cli.presets.list_presets", lambda: list(fail()))
    said = one_line(smalti("presets"))
    assert "--batch, --size or --count" in said


def test_the_last_resort_names_the_file_and_the_reason(smalti, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smalti.cli.presets.list_presets", lambda: open("no/such/file"))  # noqa: SIM115
    assert one_line(smalti("presets")) == "smalti: error: no/such/file: No such file or directory"


def test_a_bug_is_not_dressed_up(smalti, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("smalti.cli.presets.list_presets", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        cli.run(["presets"])


# What a file may print


def rewritten(source: Path, target: Path, **changes: object) -> Path:
    """A checkpoint whose card says something else; `digest` covers weights and shapes, not these."""
    content = source.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    card = json.loads(header["__metadata__"]["smalti"]) | changes
    header["__metadata__"]["smalti"] = json.dumps(card)
    encoded = json.dumps(header).encode()
    target.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + size :])
    return target


def test_a_card_cannot_send_commands_to_the_terminal(smalti, trained, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\nsmalti: all is well\u202e"
    changes = {"license": evil, "data": {"source": evil, evil: 1}, "version": evil, "score": {"name": evil}}
    file = rewritten(trained.gan / "last.safetensors", tmp_path / "evil.safetensors", **changes)
    result = smalti("info", file)
    assert result.code == 0
    assert "\\x1b]0;owned" in result.out
    assert not any(character in result.out for character in "\x1b\x07\u202e")
    assert not any(line.startswith("smalti: all") for line in result.out.splitlines())


def test_json_has_no_infinity(smalti, trained, tmp_path: Path) -> None:
    score = {"value": float("inf"), "other": [float("nan"), -float("inf"), 1.5]}
    file = rewritten(trained.gan / "last.safetensors", tmp_path / "x.safetensors", score=score)
    printed = smalti("info", file, "--json").out
    about = json.loads(printed, parse_constant=lambda word: pytest.fail(word))
    assert about["score"] == {"value": None, "other": [None, None, 1.5]}


def test_a_card_that_is_nested_without_end(smalti, trained, tmp_path: Path) -> None:
    nested: list[object] = []
    for _ in range(400):
        nested = [nested]
    file = rewritten(trained.gan / "last.safetensors", tmp_path / "x.safetensors", data={"deep": nested})
    for words in ((), ("--json",)):
        result = smalti("info", file, *words)
        assert result.code == 0 or one_line(result)


# Devices


def test_devices_of_a_model(trained) -> None:
    with pytest.raises(ConfigError, match="'warp' cannot be used"):
        api.load(trained.gan, device="warp")
    model = api.load(trained.gan, device="auto")
    assert model.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert api.load(trained.gan, device=torch.device("cpu")).generate(1).shape == (1, 16, 16, 3)
    with pytest.raises(CheckpointError, match="name too long"):
        find_checkpoint(LONG)


def test_checkpoint_helper_changes_only_the_card(trained, tmp_path: Path) -> None:
    file = rewritten(trained.gan / "last.safetensors", tmp_path / "x.safetensors", license="CC0")
    assert checkpoint.read(file)[1].license == "CC0"
