"""A file is the old one or the new one, never half of either."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smalti.errors import DataError, OutputError
from smalti.files import input_errors, output_errors, remove_leftovers, write_atomically


def test_writing_and_replacing(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for content in (b"old", b"newer"):
        write_atomically(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("no")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, problem: BaseException) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fill(file: object) -> None:
        file.write(b"half")
        raise problem

    with pytest.raises(OutputError if isinstance(problem, OSError) else type(problem)):
        write_atomically(path, fill)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_full_disk_is_one_line_and_the_old_file_stays(small_disk: Path) -> None:
    path = small_disk / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="the disk is full: free some space") as caught:
        write_atomically(path, lambda file: file.write(bytes(10**6)))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(small_disk) == ["a.bin"]


def test_a_full_disk_while_torch_writes(small_disk: Path) -> None:
    import torch

    from smalti.checkpoint.file import load_state, save_state

    path = small_disk / "resume.pt"
    save_state(path, {"step": 1})
    with pytest.raises(OutputError, match="the disk is full"):
        save_state(path, {"weights": torch.zeros(10**6)})
    assert load_state(path, torch.device("cpu")) == {"step": 1}
    assert os.listdir(small_disk) == ["resume.pt"]


@pytest.mark.parametrize("place", ["none/a.bin", "file/a.bin", "folder"])
def test_places_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder" / "x").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / place, lambda file: file.write(b"new"))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("said", ["a bug", "cannot write into a view of the weights"])
def test_other_errors_pass_through(tmp_path: Path, said: str) -> None:
    with pytest.raises(RuntimeError, match=said), output_errors(tmp_path):
        raise RuntimeError(said)


def test_the_longest_name_the_system_takes(tmp_path: Path) -> None:
    write_atomically(tmp_path / (255 * "n"), lambda file: file.write(b"new"))
    assert os.listdir(tmp_path) == [255 * "n"]
    with pytest.raises(OutputError, match="choose a shorter name"):
        write_atomically(tmp_path / (256 * "n"), lambda file: file.write(b"new"))


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def refuse_folders(path: Path, flags: int) -> int:
        if path.is_dir():
            raise PermissionError(13, "not on this system")
        return original(path, flags)

    monkeypatch.setattr("smalti.files.os.open", refuse_folders)
    write_atomically(tmp_path / "a.bin", lambda file: file.write(b"new"))
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_what_cannot_be_read_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    with pytest.raises(DataError, match=r"cannot read \S*none \(No such file"), input_errors("elsewhere", DataError):
        missing.read_bytes()
    with pytest.raises(DataError, match=r"cannot read elsewhere \(odd\)$"), input_errors("elsewhere", DataError):
        raise OSError(5, "odd")


@pytest.mark.skipif(os.name == "nt", reason="there, nobody can ask whether a process runs without ending it")
def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from smalti.files import write_atomically
write_atomically(Path(sys.argv[1]), lambda file: os.kill(os.getpid(), signal.SIGKILL))
"""
    path = tmp_path / "a.png"
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    (left,) = os.listdir(tmp_path)
    own, other = f".a.png.{os.getpid()}.tmp", left.replace("a.png", "b.png")
    for name in (own, other, ".a.png.x.tmp", f".a.png.{2**70}.tmp"):
        (tmp_path / name).touch()
    assert remove_leftovers([path, tmp_path / "none" / "a.png"]) == 2
    assert sorted(os.listdir(tmp_path)) == sorted([own, other, ".a.png.x.tmp"])
