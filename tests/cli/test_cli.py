"""The command line as a user types it, good and bad: what is printed, where, and with which exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import one_line
from PIL import Image
from small_runs import pixels, settings, write_source

from smalti._version import __version__
from smalti.checkpoint import file as checkpoint
from smalti.config.kinds import KINDS
from smalti.report.pictures import read_png_text

# What works


def test_version_and_help(smalti) -> None:
    assert smalti("--version").out.strip() == __version__
    listed = smalti("--help").out
    for command in ("train", "generate", "reconstruct", "info", "presets", "demo", "data"):
        assert command in listed
        if command != "data":
            assert f"Examples:\n  smalti {command}" in smalti(command, "--help").out
    for command in ("inspect", "pack"):
        assert f"Examples:\n  smalti data {command}" in smalti("data", command, "--help").out


def test_train_says_what_it_does_and_how_to_go_on(smalti, tmp_path: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    command = ("train", "vqvae", "--data", source, "--out", "run", *settings("vqvae"))
    first = smalti(*command)
    assert first.code == 0
    assert "40 images of 16x16x3" in first.err
    assert "next: smalti reconstruct run" in first.err
    second = smalti(*command)
    assert second.code == 0
    assert "resuming run at 64 images" in second.err


def test_a_budget_that_is_used_up_is_named(smalti, tmp_path: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    command = ("train", "vqvae", "--data", source, "--out", "run", *settings("vqvae", "train.images=10G"))
    assert "a larger one goes on" in smalti(*command, "--budget", "0.2s").err
    images_seen = json.loads(smalti("info", "run", "--json").out)["images_seen"]
    assert "a larger one goes on" in smalti(*command, "--budget", "0.2s").err
    assert json.loads(smalti("info", "run", "--json").out)["images_seen"] == images_seen


def test_short_options_and_a_settings_file_agree_with_set(smalti, tmp_path: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    (tmp_path / "s.toml").write_text("[model.quantizer]\ncodes = 12\n[train]\nseed = 3\n")
    words = [word for word in settings("vqvae") if word not in ("--set", "train.batch=8", "model.quantizer.codes=16")]
    sets = [word for text in words for word in ("--set", text)]
    result = smalti(
        "train", "vqvae", "--data", source, "--out", "run", "--config", "s.toml", *sets,
        "--batch", 4, "--images", "40", "--no-flip", "--channels", 1, "--size", "16x12",
    )  # fmt: skip
    assert result.code == 0
    about = json.loads(smalti("info", "run", "--json").out)
    assert about["image"].startswith("1x16x12")
    config = about["config"]
    assert (config["model"]["quantizer"]["codes"], config["train"]["seed"], config["train"]["batch"]) == (12, 3, 4)
    assert (config["data"]["flip"], config["train"]["images"]) == (False, 40)


def test_generate_a_grid_that_says_where_it_comes_from(smalti, trained, tmp_path: Path) -> None:
    assert smalti("generate", trained.gan, "--count", 6, "--columns", 3, "--seed", 4, "--out", "g.png").code == 0
    with Image.open("g.png") as picture:
        assert picture.size == (3 * 18 + 2, 2 * 18 + 2)
    text = read_png_text(tmp_path / "g.png")
    assert text["smalti.seed"] == "4"
    assert len(text["smalti.model"]) == 64


def test_generate_a_folder_is_the_same_images_as_a_longer_one(smalti, trained) -> None:
    smalti("generate", trained.gan, "--count", 3, "--out", "three")
    smalti("generate", trained.gan, "--count", 5, "--out", "five")
    assert sorted(os.listdir("five")) == [f"{i:06d}.png" for i in range(5)]
    for name in os.listdir("three"):
        first, second = (np.asarray(Image.open(Path(folder) / name)).astype(int) for folder in ("three", "five"))
        assert abs(first - second).max() <= 1


def test_generate_by_label(smalti, trained) -> None:
    assert smalti("generate", trained.labelled, "--count", 4, "--label", "1", "--out", "ones.png").code == 0
    assert smalti("generate", trained.labelled, "--count", 4, "--out", "both.png").code == 0


def test_reconstruct_pairs_and_psnr(smalti, trained, tmp_path: Path) -> None:
    for number, array in enumerate(pixels(3, side=21)):
        path = tmp_path / "in" / "deep" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    Image.new("L", (9, 30), 200).save(tmp_path / "grey.png")
    Image.new("RGBA", (16, 16), (1, 2, 3, 0)).save(tmp_path / "clear.png")
    result = smalti("reconstruct", trained.vqvae, "in", "grey.png", "clear.png", "--out", "out")
    assert result.code == 0
    assert "5 images, pooled PSNR" in result.out
    with Image.open("out/grey.png") as picture:
        assert picture.size == (9, 30)
    with Image.open("out/2.pair.png") as picture:
        assert picture.height > 2 * 21


def test_images_of_one_name_do_not_overwrite_each_other(smalti, trained) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Image.fromarray(pixels(1)[0]).save(f"{folder}/x.png")
    assert smalti("reconstruct", trained.vqvae, "a", "b", "--out", "out").code == 0
    assert {"x.png", "x-2.png"} <= set(os.listdir("out"))


def test_info_of_many_classes_names_some(smalti, trained, tmp_path: Path) -> None:
    module, card = checkpoint.read(trained.vqvae / "best.safetensors")
    names = tuple(f"group {number}" for number in range(25))
    checkpoint.write(tmp_path / "many.safetensors", module, dataclasses.replace(card, classes=names, digest=""))
    (line,) = [line for line in smalti("info", "many.safetensors").out.splitlines() if line.startswith("classes")]
    assert line.endswith("group 18, group 19 and 5 more, which --json lists")
    assert json.loads(smalti("info", "many.safetensors", "--json").out)["classes"] == list(names)


def test_info_prints_all(smalti, trained) -> None:
    out = smalti("info", trained.vqvae).out
    for word in ("digest", "fingerprint", "license", "model.quantizer.codes", "images_seen", "event"):
        assert word in out
    about = json.loads(smalti("info", trained.vqvae / "best.safetensors", "--json").out)
    assert about["kind"] == "vqvae"
    assert len(about["digest"]) == 64


def test_presets_are_listed_and_printed_as_set_takes_them(smalti, trained, tmp_path: Path) -> None:
    assert "dcgan" in smalti("presets").out
    lines = [line for line in smalti("presets", "vqvae").out.splitlines() if not line.startswith("#")]
    from smalti.config.parse import override
    from smalti.config.presets import preset

    assert override(preset("vqvae"), lines) == preset("vqvae")


def test_data_inspect_and_pack(smalti, tmp_path: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    seen = smalti("data", "inspect", source)
    assert seen.code == 0
    assert "16x16 40" in seen.out
    assert "smalti train vqvae --data" in seen.out
    packed = smalti("data", "pack", source, "--size", 8, "--cache", "c")
    assert packed.code == 0
    assert "40 of 8x8x3" in packed.out


def test_python_dash_m_and_the_installed_command_agree(tmp_path: Path) -> None:
    for command in ([sys.executable, "-m", "smalti"], [str(Path(sys.executable).with_name("smalti"))]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, cwd=tmp_path, check=True)
        assert done.stdout.strip() == __version__
        done = subprocess.run([*command, "presets", "vqvea"], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (done.returncode, "did you mean 'vqvae'" in done.stderr) == (1, True)


# What is refused, and how


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("frain",), "train"),
        (("train",), "PRESET"),
        (("train", "vqvae"), "--out"),
        (("train", "vqvea", "--out", "r"), "did you mean 'vqvae'"),
        (("train", "vqvae", "--out", "r", "--set", "quantizer.codes=3"), "model.quantizer.codes"),
        (("train", "vqvae", "--out", "r", "--set", "model.quantizer.code=3"), "did you mean 'model.quantizer.codes'"),
        (("train", "vqvae", "--out", "r", "--set", "train.batch"), "="),
        (("train", "vqvae", "--out", "r", "--set", "model.loss=mes"), "did you mean 'mse'"),
        (("train", "vqvae", "--out", "r", "--set", "model.quantizer.codes=0"), "from 2 to"),
        (("train", "vqvae", "--out", "r", "--images", "some"), "200k"),
        (("train", "vqvae", "--out", "r", "--budget", "soon"), "10m"),
        (("train", "vqvae", "--out", "r", "--size", "big"), "48x64"),
        (("train", "vqvae", "--out", "r", "--resize", "squash"), "cover"),
        (("train", "vqvae", "--out", "r", "--channels", "2"), "channels"),
        (("train", "vqvae", "--out", "r", "--device", "warp"), "--device cpu"),
        (("train", "vqvae", "--out", "r", "--config", "none.toml"), "none.toml"),
        (("train", "vqvae", "--out", "r", "--data", "nowhere/"), "nowhere"),
        (("train", "vqvae", "--out", "r", "--data", "emojis"), "emoji"),
        (("generate", "nowhere", "--out", "g.png"), "nowhere"),
        (("generate", ".", "--out", "g.png"), "no checkpoint"),
        (("info", "nowhere"), "nowhere"),
        (("presets", "dcgna"), "did you mean 'dcgan'"),
        (("data", "inspect", "nowhere"), "nowhere"),
        (("demo", "--budget", "never"), "10m"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(smalti, words: tuple[str, ...], expected: str) -> None:
    assert expected in one_line(smalti(*words))
    assert not Path("r").exists()


def test_models_of_the_wrong_kind(smalti, trained) -> None:
    Image.fromarray(pixels(1)[0]).save("x.png")
    assert "draws no new images" in one_line(smalti("generate", trained.vqvae, "--out", "g.png"))
    assert "cannot reconstruct" in smalti("reconstruct", trained.gan, "x.png", "--out", "out").err
    assert smalti("reconstruct", trained.gan, "x.png", "--out", "out").code == 1


def test_wrong_labels(smalti, trained) -> None:
    assert "trained without labels" in one_line(smalti("generate", trained.gan, "--label", "cat", "--out", "g.png"))
    assert "knows no label" in one_line(smalti("generate", trained.labelled, "--label", "cat", "--out", "g.png"))


@pytest.mark.parametrize(
    "words", [("--count", 0), ("--count", -3), ("--seed", -1), ("--columns", 0), ("--count", 10**9)]
)
def test_numbers_that_make_no_pictures(smalti, trained, words: tuple[object, ...]) -> None:
    one_line(smalti("generate", trained.gan, "--out", "g.png", *words))
    assert not Path("g.png").exists()


def test_nothing_is_overwritten_without_being_asked(smalti, trained) -> None:
    Path("g.png").write_text("mine")
    assert "--overwrite" in one_line(smalti("generate", trained.gan, "--count", 1, "--out", "g.png"))
    assert Path("g.png").read_text() == "mine"
    assert smalti("generate", trained.gan, "--count", 1, "--out", "g.png", "--overwrite").code == 0
    Path("samples").mkdir()
    Path("samples/000001.png").write_text("mine")
    one_line(smalti("generate", trained.gan, "--count", 2, "--out", "samples"))
    assert os.listdir("samples") == ["000001.png"]


def test_a_folder_with_other_things_is_not_taken(smalti, tmp_path: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    Path("home").mkdir()
    Path("home/thesis.txt").write_text("mine")
    command = ("train", "vqvae", "--data", source, *settings("vqvae"))
    assert "holds other files" in one_line(smalti(*command, "--out", "home"))
    assert os.listdir("home") == ["thesis.txt"]
    Path("file").write_text("mine")
    assert "is a file" in one_line(smalti(*command, "--out", "file"))
    assert "holds other files" in one_line(smalti("demo", "--out", "home"))


def test_a_folder_with_another_run_is_not_taken(smalti, trained) -> None:
    before = (trained.gan / "last.safetensors").read_bytes()
    said = one_line(smalti("train", "vqvae", "--data", trained.source, "--out", trained.gan, *settings("vqvae")))
    assert "holds another training" in said
    assert (trained.gan / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize("keep", [0, 4, 100, 2000, -1])
def test_a_checkpoint_cut_short(smalti, trained, keep: int) -> None:
    Path("cut.safetensors").write_bytes((trained.gan / "last.safetensors").read_bytes()[:keep])
    assert "cut.safetensors" in one_line(smalti("generate", "cut.safetensors", "--out", "g.png"))
    one_line(smalti("info", "cut.safetensors"))


def test_bad_images_are_reported_and_the_rest_goes_on(smalti, trained) -> None:
    Image.fromarray(pixels(1)[0]).save("good.png")
    Path("cut.png").write_bytes(Path("good.png").read_bytes()[:60])
    Path("text.png").write_text("no image")
    result = smalti("reconstruct", trained.vqvae, "cut.png", "good.png", "text.png", "none.png", "--out", "out")
    assert result.code == 1
    assert sorted(os.listdir("out")) == ["good.pair.png", "good.png"]
    assert [name in result.err for name in ("cut.png", "text.png", "none.png")] == [True] * 3
    assert "Traceback" not in result.err


def test_sources_with_bad_images(smalti, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    command = ("train", "vqvae", "--data", "photos", "--out", "run", *settings("vqvae"))
    one_line(smalti(*command))  # an empty folder
    for number, array in enumerate(pixels(40)):
        Image.fromarray(array).save(folder / f"{number}.png")
    for number in range(2):
        (folder / f"bad{number}.png").write_bytes(b"nothing")
    result = smalti(*command)
    assert result.code == 0
    assert "skipped 2 of 42 files" in result.err
    Image.new("RGB", (20, 20)).save(folder / "large.png")
    assert "--size" in one_line(smalti("train", "vqvae", "--data", "photos", "--out", "other", *settings("vqvae")))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it loads its compiler
def test_a_compiler_that_fails_is_one_line(smalti, trained, monkeypatch: pytest.MonkeyPatch) -> None:
    # What torch raises where the C++ compiler is missing or too old: a page of its output.
    refusal = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})

    def step(*_: object) -> None:
        raise refusal("CppCompileError: C++ compile error\n\nCommand:\ng++ ...")

    monkeypatch.setattr(KINDS["vqvae"].load_recipe(), "step", step)
    words = ("train", "vqvae", "--data", trained.source, "--out", "run", *settings("vqvae"))
    assert "leave it out" in one_line(smalti(*words, "--compile"))


def test_control_characters_in_names_are_shown_not_obeyed(smalti) -> None:
    assert "\x1b" not in smalti("info", "evil\x1b[31m").err


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB that really is full after that."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


def test_a_full_disk(smalti, trained, tiny_disk: Path) -> None:
    command = ("train", "dcgan", "--data", trained.source, "--cache", trained.folder / "cache", *settings("dcgan"))
    assert "disk is full" in one_line(
        smalti(*command, "--out", tiny_disk / "run", "--set", "model.network.generator_width=128")
    )
    assert not list(tiny_disk.rglob("*.tmp"))
    fill(tiny_disk / "filling")
    assert "disk is full" in one_line(smalti("generate", trained.gan, "--count", 99, "--out", tiny_disk / "g.png"))
    assert "No space left on device" in one_line(
        smalti("train", "vqvae", "--data", trained.source, "--out", "run", "--cache", tiny_disk, "--size", 512,
               *settings("vqvae"))
    )  # fmt: skip


def test_no_permission(smalti, trained) -> None:
    # /proc refuses everybody, root too.
    assert "cannot write" in one_line(smalti("generate", trained.gan, "--count", 1, "--out", "/proc/smalti/g.png"))
    said = smalti("train", "vqvae", "--data", trained.source, "--out", "/proc/smalti", *settings("vqvae"))
    assert "cannot write" in one_line(said)
