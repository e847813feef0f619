"""Writers of archives: what exists, appending, and what is left when they are stopped in the middle."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from container_files import NAMED, PLAIN, SINGLE, payload, write

from smalti.codec import archive_index
from smalti.codec.archive import ArchiveHeader, ArchiveReader, ArchiveWriter
from smalti.codec.container import CoderKind
from smalti.errors import CodecError, OutputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.smt"


def test_an_existing_file_is_not_overwritten(path: Path) -> None:
    before = write(path, 3)
    with pytest.raises(OutputError, match=r"a\.smt exists; give another `out`, or `overwrite=True`"):
        ArchiveWriter(path, PLAIN)
    assert path.read_bytes() == before
    with ArchiveWriter(path, PLAIN, overwrite=True) as writer:
        assert writer.images == 0
    with ArchiveReader(path) as reader:
        assert (len(reader), reader.problems) == (0, [])
    with pytest.raises(OutputError, match="cannot write"):
        ArchiveWriter(path / "b.smt", PLAIN)


def test_two_writers_of_one_file(path: Path) -> None:
    with ArchiveWriter(path, PLAIN) as writer:
        writer.write_block(b"x", count=1)
        for again in (lambda: ArchiveWriter(path, PLAIN, overwrite=True), lambda: ArchiveWriter.append(path, PLAIN)):
            with pytest.raises(OutputError, match="another process is writing"):
                again()
    with ArchiveReader(path) as reader:
        assert len(reader) == 1


@pytest.mark.parametrize("header", [PLAIN, NAMED], ids=["plain", "named"])
def test_appending_is_as_if_it_had_been_written_at_once(path: Path, header: ArchiveHeader) -> None:
    whole = write(path, 9, header)
    names = None if not header.named else [[f"{block}/0.png", f"{block}/1.png"] for block in range(9)]
    labels = None if not header.labelled else [[block % 3 - 1, (block + 1) % 3 - 1] for block in range(9)]
    end = whole.index(archive_index.INDEX_MARKER)
    with ArchiveReader(whole) as reader:
        places = [reader._table[block] for block in range(9)]
    for cut in (None, end, end + 3, places[4].start, places[4].start + 5, places[8].start + 60):
        path.write_bytes(whole if cut is None else whole[:cut])
        kept = sum(cut is None or place.start + place.length <= cut for place in places)
        with ArchiveWriter.append(path, header) as writer:
            assert bool(writer.dropped) == (cut not in (None, end, places[4].start))
            assert writer.images == min(kept * header.per_block, 8 * header.per_block + 1)
            for block in range(kept, 9):
                count = header.per_block if block < 8 else 1
                writer.write_block(
                    payload(block), count=count,
                    names=names and names[block][:count], labels=labels and labels[block][:count],
                )  # fmt: skip
        assert path.read_bytes() == whole


def test_appending_to_the_archive_of_something_else_is_refused(path: Path) -> None:
    before = write(path, 3)
    with pytest.raises(CodecError) as caught:
        ArchiveWriter.append(path, dataclasses.replace(PLAIN, digest=b"\xff" * 8))
    assert "0123456789abcdef" in str(caught.value)
    assert "ffffffffffffffff" in str(caught.value)
    for change, message in (
        ({"step": 41}, "step 40, not 41"),
        ({"per_block": 1}, "per_block 16, not 1"),
        ({"coder": CoderKind.RANGE, "width": 64}, "width 32, not 64, coder lanes, not range"),
        ({"classes": ("a",)}, "classes 0 classes, not 1 classes"),
    ):
        with pytest.raises(CodecError, match=message):
            ArchiveWriter.append(path, dataclasses.replace(PLAIN, **change))
    assert path.read_bytes() == before
    with ArchiveWriter.append(path, dataclasses.replace(PLAIN, metadata={"other": 1})) as writer:
        assert writer.header == PLAIN
    assert path.read_bytes() == before
    with pytest.raises(CodecError, match="does not exist"):
        ArchiveWriter.append(path.with_name("b.smt"), PLAIN)
    path.write_bytes(SINGLE)
    with pytest.raises(CodecError, match="one compressed image"):
        ArchiveWriter.append(path, PLAIN)


def test_a_kill_leaves_a_readable_archive(path: Path) -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from container_files import *
writer = ArchiveWriter(Path({str(path)!r}), PLAIN)
for block in range(7):
    writer.write_block(payload(block), count=16)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with ArchiveReader(path) as reader:
        assert [reader.read_block(block).payload for block in range(7)] == [payload(block) for block in range(7)]
        assert len(reader) == 112
        assert not reader.indexed
        assert "no index" in str(reader.problems[0])
    with ArchiveWriter.append(path, PLAIN) as writer:
        assert (writer.images, writer.dropped) == (112, "")
    with ArchiveReader(path) as reader:
        assert reader.indexed
        assert reader.problems == []


def test_an_exception_leaves_an_archive_that_is_not_finished(path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), ArchiveWriter(path, PLAIN) as writer:
        writer.write_block(b"x", count=1)
        raise KeyboardInterrupt
    with ArchiveReader(path) as reader:
        assert (len(reader), reader.indexed) == (1, False)


def fill(writer: ArchiveWriter) -> None:
    with writer:
        for block in range(1000):
            writer.write_block(payload(block, 1000), count=16)


def test_a_full_disk_leaves_what_was_written(small_disk: Path) -> None:
    path = small_disk / "a.smt"
    writer = ArchiveWriter(path, PLAIN)
    with pytest.raises(OutputError) as caught:
        fill(writer)
    assert "No space left on device" in str(caught.value)
    assert "its first 1,024 images are safe" in str(caught.value)
    assert caught.value.remedy.startswith("free some space")
    with ArchiveReader(path) as reader:
        assert len(reader) == writer.images == 64 * 16
        assert reader.read_block(63).payload == payload(63, 1000)
        assert reader.verify() == reader.problems
        assert len(reader.problems) == 1
    with pytest.raises(OutputError, match="its first 1,024 images are safe"):
        fill(ArchiveWriter.append(path, PLAIN))
    with ArchiveReader(path) as reader:
        assert len(reader) == 1024


def test_no_room_for_the_index(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ArchiveWriter(path, PLAIN)
    writer.write_block(b"x", count=3)

    def full(data: bytes) -> None:
        os.write(writer._file.fileno(), data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_write", full)
    with pytest.raises(OutputError, match="its first 3 images are safe"):
        writer.close()
    writer.close()
    with ArchiveReader(path) as reader:
        assert (len(reader), reader.indexed) == (3, False)
        assert [problem.start for problem in reader.problems] == [path.stat().st_size]
