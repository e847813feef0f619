"""`inspect` counts everything and packs nothing."""

from __future__ import annotations

from pathlib import Path

from dataset_files import cifar_python, cifar_rows, mnist
from picture_files import make_array, make_file, pictures, write_files, write_tar

from smalti.cli.inspect import first_command
from smalti.data import inspect


def test_inspect_counts_everything_and_packs_nothing(tmp_path: Path, cache: Path) -> None:
    files = pictures(6, prefix="train/") | pictures(2, prefix="test/") | {"notes.csv": b""}
    files["train/cat/grey.png"] = make_file(make_array(3, channels=1, height=30, width=40))
    files["train/cat/grey.txt"] = b"a grey one"
    files["train/dog/broken.png"] = files["train/dog/1.png"][:60]
    for source in (write_files(tmp_path / "in", files), write_tar(tmp_path / "a.tar", files)):
        summary = inspect(source, cache=cache)
        assert summary.kind == ("folder" if source.is_dir() else "tar")
        assert (summary.split, summary.splits) == ("train", {"train": 8, "test": 2})
        assert summary.images == 7
        assert summary.classes == {"cat": 4, "dog": 4}
        assert summary.sizes == {(8, 8): 6, (30, 40): 1}
        assert summary.modes == {"RGB": 6, "L": 1}
        assert summary.captions == 1
        assert [name for name, _ in summary.broken] == ["train/dog/broken.png"]
        assert summary.ignored == 2
        assert first_command(source, summary).startswith("smalti train ")
        assert "--size 32" in first_command(source, summary)
    assert not cache.exists()


def test_inspect_of_arrays_and_emoji(tmp_path: Path, cache: Path) -> None:
    write_files(tmp_path / "in", mnist(True))
    summary = inspect(tmp_path / "in", cache=cache)
    assert (summary.kind, summary.splits, summary.sizes) == ("IDX", {"train": 9, "test": 3}, {(6, 5): 9})
    assert sum(summary.classes.values()) == summary.images == 9
    assert "--size" not in first_command(tmp_path / "in", summary)
    write_files(tmp_path / "c", cifar_python(cifar_rows()))
    assert inspect(tmp_path / "c", cache=cache).splits == {"train": 15, "test": 3}
    assert inspect("emoji", cache=cache, split="test").modes.keys() == {"RGBA"}
