"""`smalti restore` as it is typed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_codes import write_tokenizer
from small_runs import pixels, settings, write_source

from smalti.data.pictures import Picture
from smalti.pipelines.restorer import Restorer


@pytest.fixture
def denoise(smalti, tmp_path: Path) -> Path:
    write_source(tmp_path / "discs.npz")
    done = smalti("train", "denoise", "--data", "discs.npz", "--out", "denoise", *settings("denoise"), "--quiet")
    assert done.code == 0, done.err
    return Path("denoise")


def write_pictures(folder: Path, count: int = 4, side: int = 20) -> None:
    for number, image in enumerate(pixels(count, side=side)):
        path = folder / f"{'abc'[number % 3]}" / f"{number}.{('png', 'jpg', 'webp', 'bmp')[number % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def pixels_of(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def size_of(path: str | Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_a_folder_keeps_names_tree_and_formats(smalti, denoise: Path) -> None:
    write_pictures(Path("in"))
    Path("in/b/bad.png").write_bytes(b"no picture")
    done = smalti("restore", denoise, "in", "--out", "out")
    assert done.code == 1
    assert "b/bad.png was left out" in done.err
    assert "4 pictures restored, 1 left out: out" in done.err
    found = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.*"))
    assert found == ["a/0.png", "a/3.png", "b/1.jpg", "c/2.webp"]
    assert all(size_of(Path("out") / name) == (20, 20) for name in found)
    before = {name: (Path("out") / name).stat().st_mtime_ns for name in found}
    (Path("out") / found[0]).unlink()
    done = smalti("restore", denoise, "in", "--out", "out")
    assert "1 picture restored, 3 there already (--overwrite does them again), 1 left out" in done.err
    assert all((Path("out") / name).stat().st_mtime_ns == before[name] for name in found[1:])
    assert smalti("restore", denoise, "in", "--out", "out", "--overwrite").err.count("there already") == 0


def test_models_are_applied_one_after_the_other(smalti, denoise: Path) -> None:
    words = ("train", "super-x2", "--data", "discs.npz", "--out", "larger", *settings("super-x2"), "--quiet")
    assert smalti(*words).code == 0
    write_pictures(Path("in"), 1)
    done = smalti("restore", "denoise,larger", "in/a/0.png", "--out", "out", "--format", "webp")
    assert done.code == 0, done.err
    assert size_of("out/0.webp") == (40, 40)


def test_holes_are_those_of_masks(smalti, tmp_path: Path) -> None:
    write_source(tmp_path / "discs.npz")
    words = ("train", "fill", "--data", "discs.npz", "--out", "fill", *settings("fill"), "--quiet")
    assert smalti(*words).code == 0
    write_pictures(Path("in"), 1)
    done = smalti("degrade", "mask(boxes,0.2)", "in", "--out", "holes")
    assert done.code == 0, done.err
    done = smalti("restore", "fill", "in", "--holes", "holes", "--out", "out")
    assert done.code == 0, done.err
    mask = pixels_of("holes/a/0.mask.png") > 127
    before, after = (pixels_of(Path(place) / "a/0.png") for place in ("in", "out"))
    assert np.array_equal(before[~mask], after[~mask])
    assert "fills holes; give --holes" in smalti("restore", "fill", "in", "--out", "x").err
    assert "there is no mask" in smalti("restore", "fill", "in", "--holes", "in/a", "--out", "x").err


def test_mistakes_are_one_line(smalti, denoise: Path) -> None:
    write_pictures(Path("in"))
    Path("empty").mkdir()
    Path("text.png").write_text("no picture")
    Path("text.txt").write_text("no picture")
    for words, said in (
        (("denoise", "in", "--out", "in"), "in is in the pictures' own folder in; give --out a folder outside of it"),
        (("denoise", "in", "--out", "in/new"), "is in the pictures' own folder"),
        (("denoise", "empty", "--out", "out"), "empty"),
        (("denoise", "nowhere", "--out", "out"), "there is no such file"),
        (("denoise", "text.png", "--out", "out"), "text.png"),
        (("nowhere", "in", "--out", "out"), "there is no nowhere"),
        (("denoise,", "in", "--out", "out"), "has an empty name"),
        (("denoise", "in", "--holes", "in", "--out", "out"), "none of the models fills holes; leave --holes out"),
        (("denoise", "in", "--out", "text.png"), "--out is text.png, but there are 4 pictures; give a folder"),
        (("denoise", "in", "--out", "text.txt"), "text.txt is a file; give --out a folder, or a name ending in .png"),
        (("denoise", "in", "--out", "out", "--strength", "3"), "--strength is 3.0, but must be from 0 to 2"),
        (("denoise", "in", "--out", "out", "--tile", "4"), "--tile is 4, but must be at least 32"),
    ):
        done = smalti("restore", *words)
        assert done.code == 1, words
        assert said in done.err
        assert done.err.count("\n") <= 2, done.err


def test_a_killed_job_goes_on(smalti, denoise: Path) -> None:
    write_pictures(Path("in"), 24)
    assert smalti("restore", denoise, "in", "--out", "whole").code == 0
    command = [sys.executable, "-m", "smalti", "restore", str(denoise), "in", "--out", "parts"]
    for wanted in (3, 9):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
        end = time.monotonic() + 60
        while time.monotonic() < end and len(list(Path("parts").rglob("?.*"))) < wanted and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = smalti("restore", denoise, "in", "--out", "parts")
    assert done.code == 0, done.err
    for path in Path("whole").rglob("*.*"):
        assert (Path("parts") / path.relative_to("whole")).read_bytes() == path.read_bytes()


def test_one_picture_goes_to_a_file(smalti, denoise: Path) -> None:
    write_pictures(Path("in"), 2)
    done = smalti("restore", denoise, "in/a/0.png", "--out", "in/a/clean.jpg")
    assert done.code == 0, done.err
    assert size_of("in/a/clean.jpg") == (20, 20)
    assert "there already" in smalti("restore", denoise, "in/a/0.png", "--out", "in/a/clean.jpg").err
    done = smalti("restore", denoise, "in/a/0.png", "--out", "in/a/0.png", "--overwrite")
    assert done.code == 1
    assert "in/a/0.png is one of the pictures itself" in done.err
    done = smalti("degrade", "mask(boxes,0.2)", "in/a/0.png", "--out", "hole.webp")
    assert done.code == 0, done.err
    assert size_of("hole.webp") == size_of("hole.mask.png") == (20, 20)


def test_an_interruption_says_how_far_it_came(
    smalti, denoise: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(Path("in"), 4)
    restored = []

    def interrupted(self: Restorer, image: Picture, **options: object) -> Picture:
        if restored:
            raise KeyboardInterrupt
        restored.append(image)
        return image

    monkeypatch.setattr(Restorer, "restore", interrupted)
    with pytest.raises(SystemExit, match="130"):
        smalti("restore", denoise, "in", "--out", "out")
    assert "stopped restoring after 1 of 4 pictures" in capsys.readouterr().err
    assert len(list(Path("out").rglob("*.*"))) == 1


def test_codes_are_predicted_with_a_fidelity(smalti, denoise: Path) -> None:
    write_tokenizer(Path("tokenizer.safetensors"))
    words = ("--data", "discs.npz", "--out", "codes", *settings("restore-codes", "model.fidelity_start=0"), "--quiet")
    done = smalti("train", "restore-codes", *words)
    assert done.code != 0
    assert "give --of RUN" in done.err
    done = smalti("train", "restore-codes", "--of", "tokenizer.safetensors", *words)
    assert done.code == 0, done.err
    done = smalti("train", "denoise", "--of", "tokenizer.safetensors", "--data", "discs.npz", "--out", "no")
    assert done.code != 0
    assert "--of" in done.err
    Image.fromarray(pixels(1, side=40)[0]).save("photo.jpg")
    for fidelity in ("0", "0.5", "1"):
        done = smalti("restore", "codes", "photo.jpg", "--fidelity", fidelity, "--out", f"{fidelity}.png")
        assert done.code == 0, done.err
        assert size_of(f"{fidelity}.png") == (40, 40)
    assert not np.array_equal(pixels_of("0.png"), pixels_of("1.png"))
    done = smalti("restore", "denoise,codes", "photo.jpg", "--fidelity", "0.5", "--out", "both.png")
    assert done.code == 0, done.err
    done = smalti("restore", "codes", "photo.jpg", "--fidelity", "1.5", "--out", "more.png")
    assert done.code != 0
    assert "--fidelity is 1.5, but must be from 0 to 1" in done.err
    done = smalti("restore", denoise, "photo.jpg", "--fidelity", "0.5", "--out", "no.png")
    assert done.code != 0
    assert "none of the models has a fidelity" in done.err
    assert not Path("no.png").exists()
    done = smalti("info", "codes")
    assert done.code == 0, done.err
