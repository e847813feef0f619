"""Every script in examples/ runs as its docstring says, at a tiny size."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from small_runs import SMALL, pixels

from smalti.report import record

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
TINY = [word for text in (*SMALL["vqvae"], "train.batch=8", "train.save_every=64") for word in ("--set", text)]


def _photos(folder: Path, *, seed: int = 0) -> Path:
    folder.mkdir()
    for number, image in enumerate(pixels(40, side=20, seed=seed)):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return _photos(tmp_path / "photos")


def _run(script: str, *words: object, ranks: int = 1) -> str:
    """What the script prints, run in the folder of its first argument's parent."""
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    folder = Path(str(words[0])).parent
    done = subprocess.run(
        [*launcher, str(EXAMPLES / script), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_five_short_ones_that_say_how_to_run_them() -> None:
    assert len(SCRIPTS) == 5
    for name in SCRIPTS:
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 60, name
        options = set(re.findall(r'add_argument\("(--[a-z]+)"', text))
        typed = [
            line for line in (ast.get_docstring(ast.parse(text)) or "").splitlines() if f" examples/{name} " in line
        ]
        assert typed, name
        for line in typed:
            assert set(re.findall(r"--[a-z]+", line.partition(name)[2])) <= options, line


def test_train_on_a_folder(photos: Path) -> None:
    folder = photos.parent
    printed = _run("train_on_a_folder.py", photos, "--size", 16, "--out", "runs/photos", "--minutes", 0.005, *TINY)
    assert printed.startswith("budget after ")
    assert (folder / "runs/photos/last.safetensors").exists()
    with Image.open(folder / "runs/photos.png") as grid:
        assert grid.width > 8 * 16
        assert grid.height > 2 * 16


def test_quantizer_as_a_layer(photos: Path) -> None:
    printed = _run("quantizer_as_a_layer.py", photos, "--codes", 16, "--steps", 200)
    first, last = (float(error) for error in re.findall(r"mean squared error ([\d.]+)", printed))
    assert last < first
    used = re.search(r"perplexity ([\d.]+) of 16 codes", printed)
    assert used is not None
    assert 1 < float(used[1]) <= 16


def test_evaluate_images(photos: Path) -> None:
    folder = photos.parent
    judged, training = (_photos(folder / name, seed=seed) for seed, name in enumerate(("judged", "training"), 1))
    printed = _run("evaluate_images.py", judged, photos, "--size", 16, "--training", training, "--out", "record.json")
    written = record.read(folder / "record.json")
    for name in ("frechet_distance", "kernel_distance", "copied_share"):
        assert written.figure(name) is not None
        assert f"\n{name}: " in printed


@pytest.mark.parametrize(("kind", "words"), [("plain", ()), ("labelled", ()), ("labelled", ("--label", "dog"))])
def test_walk_in_latent_space(tmp_path: Path, drawers: SimpleNamespace, kind: str, words: tuple[str, ...]) -> None:
    run = shutil.copy(getattr(drawers, kind), tmp_path)
    printed = _run("walk_in_latent_space.py", run, "--images", "3,17", "--frames", 6, "--out", "walk.png", *words)
    assert printed.strip() == "6 frames in walk.png"
    with Image.open(tmp_path / "walk.png") as walk:
        assert getattr(walk, "n_frames", 1) == 6


@pytest.mark.parametrize("ranks", [1, 2])
def test_resume_and_distribute(photos: Path, ranks: int) -> None:
    words = (photos, "--out", "runs/two", "--count", 32, *TINY)
    printed = _run("resume_and_distribute.py", *words, ranks=ranks)
    assert re.findall(r"sitting (\d): finished at (\d+) images", printed) == [("1", "32"), ("2", "64")]
    log = (photos.parent / "runs/two/log.jsonl").read_text(encoding="utf-8")
    assert log.count('"resume"') == 1
    assert log.count(f'"ranks": {ranks}') == 2
