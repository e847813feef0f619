"""What every test shares: one thread, a cache folder of its own, a command line, trainings and generators."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest
from command_line import Outcome
from small_runs import settings, write_source

from smalti import cli

hypothesis.settings.register_profile(
    "smalti", deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
hypothesis.settings.load_profile("smalti")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors are slower on many threads, and pytest-xdist brings its own processes."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def smalti(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run one command line in an empty folder, with the cache beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = cli.run([str(word) for word in words])
        printed = capsys.readouterr()
        return Outcome(code=code, out=printed.out, err=printed.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One small VQ-VAE, one GAN, one GAN with labels and one encoder, trained through the command line."""
    folder = tmp_path_factory.mktemp("trained")
    source = write_source(folder / "discs.npz")
    made = SimpleNamespace(folder=folder, source=source)
    for name, preset, extra in (
        ("vqvae", "vqvae", ()),
        ("gan", "dcgan", ()),
        ("labelled", "dcgan", ("model.conditional=true",)),
        ("eye", "smalti-vit", ()),
    ):
        out = folder / name
        words = ["train", preset, "--data", source, "--out", out, "--cache", folder / "cache", "--quiet"]
        assert cli.run([str(word) for word in (*words, *settings(preset, *extra))]) == 0
        setattr(made, name, out)
    return made


@pytest.fixture(scope="session")
def drawers(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Checkpoint files of generators whose pictures differ: the ones of `trained` are all but grey."""
    from generators import write_generator

    folder = tmp_path_factory.mktemp("drawers")
    return SimpleNamespace(
        plain=write_generator(folder / "plain.safetensors"),
        clear=write_generator(folder / "clear.safetensors", channels=4),
        labelled=write_generator(folder / "labelled.safetensors", classes=("cat", "dog")),
    )


@pytest.fixture(scope="session")
def model(drawers: SimpleNamespace):
    """The plain one of the drawers, loaded."""
    from smalti.pipelines import base as api

    return api.load(drawers.plain)


@pytest.fixture(scope="session")
def labelled(drawers: SimpleNamespace):
    """The one with labels, loaded."""
    from smalti.pipelines import base as api

    return api.load(drawers.labelled)


@pytest.fixture(scope="session")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny codec of 16x16 RGB pictures."""
    from small_codecs import train_codec

    return train_codec(tmp_path_factory.mktemp("codec"))


@pytest.fixture(scope="session")
def clear_codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for RGBA."""
    from small_codecs import train_codec

    return train_codec(tmp_path_factory.mktemp("clear-codec"), channels=4)


@pytest.fixture(scope="session")
def grey_codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for grey pictures."""
    from small_codecs import train_codec

    return train_codec(tmp_path_factory.mktemp("grey-codec"), channels=1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    with contextlib.suppress(OSError):
        if subprocess.run(options, capture_output=True, check=False).returncode == 0:
            try:
                yield folder
            finally:
                subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=True)
            return
    pytest.skip("no permission to mount a small disk")
