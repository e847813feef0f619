"""A run's folder: claimed once, compared by its settings, and whole after any kill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from smalti.checkpoint.run_dir import RunFolder
from smalti.config.parse import override, to_plain
from smalti.config.run import RunConfig
from smalti.errors import CheckpointError, OutputError

CONFIG = RunConfig()


def claimed(path: Path, *changes: str) -> RunFolder:
    folder = RunFolder(path)
    folder.claim(override(CONFIG, changes))
    return folder


def begun(path: Path, *changes: str) -> None:
    folder = claimed(path, *changes)
    folder.append({"images_seen": 0, "event": "start"})
    folder.release()


def refused(path: Path, message: str, *changes: str) -> str:
    with pytest.raises(OutputError) as caught:
        claimed(path, *changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("start", ["missing", "deep/down", "empty"])
def test_a_new_folder_is_claimed(tmp_path: Path, start: str) -> None:
    path = tmp_path / start
    if start == "empty":
        path.mkdir()
    folder = claimed(path, "train.batch=8")
    assert folder.read_config() == override(CONFIG, ["train.batch=8"])
    assert json.loads(folder.config.read_text()) == to_plain(folder.read_config())
    folder.release()


def test_the_same_settings_go_on_and_others_are_named(tmp_path: Path) -> None:
    begun(tmp_path, "train.batch=8")
    claimed(tmp_path, "train.batch=8").release()
    line = refused(tmp_path, "holds another training: its train.batch is 8, yours is 9;", "train.batch=9")
    assert "`out`" in line
    refused(tmp_path, "and 2 more settings", "train.batch=9", "train.seed=1", "model.loss=l1")
    assert RunFolder(tmp_path).read_config().train.batch == 8


def test_a_training_that_never_began_gives_way(tmp_path: Path) -> None:
    claimed(tmp_path, "train.batch=8").release()
    claimed(tmp_path, "train.batch=9").release()
    assert RunFolder(tmp_path).read_config().train.batch == 9


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors", "resume.pt", "log.jsonl"])
def test_what_a_training_left_is_not_replaced_by_another(tmp_path: Path, name: str) -> None:
    claimed(tmp_path, "train.batch=8").release()
    (tmp_path / name).write_bytes(b"mine")
    refused(tmp_path, "holds another training", "train.batch=9")
    assert (tmp_path / name).read_bytes() == b"mine"


def test_somebody_elses_settings_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"theme": "dark"}')
    with pytest.raises(CheckpointError, match="cannot be read"):
        claimed(tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"theme": "dark"}'


def test_a_run_may_go_on_longer(tmp_path: Path) -> None:
    begun(tmp_path)
    changes = ["train.images=5", "train.log_every=1", "train.preview_every=1", "train.save_every=1"]
    claimed(tmp_path, *changes).release()
    assert RunFolder(tmp_path).read_config() == override(CONFIG, changes)


def test_another_recipe_is_another_training(tmp_path: Path) -> None:
    from smalti.config.gan import GANConfig

    begun(tmp_path)
    with pytest.raises(OutputError, match="holds another training"):
        RunFolder(tmp_path).claim(RunConfig(recipe="gan", model=GANConfig()))


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    first = claimed(tmp_path)
    refused(tmp_path, "another training is at work in")
    first.release()
    second = claimed(tmp_path)
    second.release()
    second.release()


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from smalti.checkpoint.run_dir import RunFolder; from smalti.config.run import RunConfig\n"
        f"folder = RunFolder({str(tmp_path)!r}); folder.claim(RunConfig()); print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "mine\n"
        refused(tmp_path, "another training is at work in")
        other.kill()
        other.wait()
    claimed(tmp_path).release()


def test_folders_with_other_things_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    refused(tmp_path, "holds other files and no training")
    assert [item.name for item in tmp_path.iterdir()] == ["holiday.jpg"]


def test_what_a_killed_start_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"")
    (tmp_path / ".config.json.123.tmp").write_bytes(b"{")
    folder = claimed(tmp_path)
    folder.clean()
    folder.release()
    assert sorted(item.name for item in tmp_path.iterdir()) == [".lock", "config.json"]


def test_places_that_cannot_be_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    refused(file, "is a file; give `out` a folder")
    refused(file / "below", "cannot write")
    refused(Path("/proc/smalti"), "cannot write /proc/smalti")
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"[" * 60_000, b'{"recipe": []}', b'{"recipe": [], "model": {}}', b'{"new": 1}'],
)
def test_settings_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read") as caught:
        claimed(tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == content


def test_settings_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        RunFolder(tmp_path).read_config()


def test_the_log_is_a_record_a_line(tmp_path: Path) -> None:
    folder = claimed(tmp_path)
    assert folder.records() == []
    records = [{"images_seen": n * 10, "loss": n / 3, "text": "a\nb\u2028c"} for n in range(5)]
    for record in records:
        folder.append(record)
    assert folder.records() == records
    assert len(folder.log.read_bytes().splitlines()) == 5
    folder.rewind_log(20)
    assert folder.records() == records[:3]
    folder.append(records[3])
    assert folder.records() == records[:4]
    folder.release()


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path, cut: int) -> None:
    folder = claimed(tmp_path)
    for seen in (10, 20, 30):
        folder.append({"images_seen": seen})
    folder.log.write_bytes(folder.log.read_bytes()[: -cut - 1])
    assert [record["images_seen"] for record in folder.records()] == [10, 20]
    folder.rewind_log(10)
    assert folder.log.read_text() == '{"images_seen": 10}\n'
    folder.release()


def test_rewinding_without_a_log_makes_an_empty_one(tmp_path: Path) -> None:
    folder = claimed(tmp_path)
    folder.rewind_log(0)
    assert folder.records() == []
    folder.release()


def test_cleaning_takes_what_was_half_written_and_nothing_else(tmp_path: Path) -> None:
    folder = claimed(tmp_path)
    for name in (".last.safetensors.12.tmp", ".resume.pt.12.tmp", "notes.tmp", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    folder.clean()
    assert sorted(item.name for item in tmp_path.iterdir()) == [".hidden", ".lock", "config.json", "notes.tmp"]
    folder.release()
