"""The demo as a newcomer meets it: made once, left alone after that, and never at the cost of other files."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import one_line
from PIL import Image

from smalti import cli
from smalti.checkpoint import file as checkpoint
from smalti.cli import demo

BUDGET = ("--budget", "2s")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A whole demo; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "user-cache"))
        assert cli.run(["demo", "--out", str(folder / "made"), *BUDGET]) == 0
    return SimpleNamespace(out=folder / "made", cache=folder / "user-cache")


@pytest.mark.slow
def test_a_demo_trains_both_and_says_what_it_measured(made) -> None:
    assert sorted(os.listdir(made.out)) == sorted(demo.MADE)
    assert (made.cache / "smalti" / "packed").is_dir()
    for name in ("samples", "reconstructions"):
        with Image.open(made.out / f"{name}.png") as opened:
            assert min(opened.size) > 100
    page = (made.out / "report.html").read_text("utf-8")
    assert re.search(r"[0-9]+ of 512 codes of each book in even use", page)
    for words in (
        "64 codes from 64 books of 512: 576 bits",
        "of 397 samples and 397 held-out",
        "preset gan-nano: relativistic pairs of pixels and of features",
        "preset vqvae-best with network width 48",
        " dB PSNR",
    ):
        assert words in page
    gan = checkpoint.read_card(made.out / "gan" / "last.safetensors").config
    assert (gan.preset, gan.train.batch) == ("gan-nano", 16)
    vqvae = checkpoint.read_card(made.out / "vqvae" / "last.safetensors").config
    assert (vqvae.preset, vqvae.model.autoencoder.width) == ("vqvae-best", 48)


@pytest.mark.slow
def test_the_report_needs_no_other_file(made) -> None:
    page = (made.out / "report.html").read_text("utf-8")
    assert all(link.startswith("data:image/png;base64,") for link in re.findall(r"""src=["']([^"']+)""", page))
    assert not re.findall(r"""(?:href|url\(|@import)\s*=?\s*["']?https?:""", page)
    assert "<script" not in page


@pytest.mark.slow
def test_a_demo_is_made_once_and_again_when_asked(made, smalti, tmp_path: Path) -> None:
    shutil.copytree(made.out, tmp_path / "demo")
    before = (tmp_path / "demo" / "report.html").stat().st_mtime_ns
    again = smalti("demo")
    assert again.code == 0
    assert "has been made" in again.err
    assert (tmp_path / "demo" / "report.html").stat().st_mtime_ns == before
    (tmp_path / "demo" / ".report.html.1.tmp").write_text("of a demo that was killed")
    assert smalti("demo", *BUDGET, "--seed", 1, "--cache", made.cache / "smalti", "--overwrite").code == 0
    assert sorted(os.listdir("demo")) == sorted(demo.MADE)
    assert checkpoint.read_card(Path("demo/gan/last.safetensors")).config.train.seed == 1
    assert not Path("user-cache").exists()


def test_the_runs_of_the_user_are_not_a_demo(smalti) -> None:
    for name in ("vqvae", "gan"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "last.safetensors").write_text("a week of work")
    for words in ((), ("--overwrite",)):
        assert "holds other files" in one_line(smalti("demo", "--out", "runs", *words))
    assert Path("runs/vqvae/last.safetensors").read_text() == "a week of work"
    assert not Path("runs", demo.MARKER).exists()


def test_files_in_a_demo_folder_that_are_not_of_the_demo(smalti) -> None:
    Path("demo").mkdir()
    Path("demo", demo.MARKER).write_text("{}")
    Path("demo/report.html").write_text("old")
    Path("demo/notes.txt").write_text("mine")
    assert "holds other files" in one_line(smalti("demo", "--overwrite"))
    assert sorted(os.listdir("demo")) == sorted([demo.MARKER, "notes.txt", "report.html"])


def test_a_new_folder_is_marked_first_and_links_are_not_followed(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    assert not demo._prepare(out, overwrite=False)
    assert json.loads((out / demo.MARKER).read_text())["made_by"].startswith("smalti demo")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (out / "vqvae").symlink_to(tmp_path / "precious")
    assert not demo._prepare(out, overwrite=True)
    assert os.listdir(out) == [demo.MARKER]
    assert (tmp_path / "precious" / "file").read_text() == "mine"
