"""Archives: random access, names and labels, appending, and writers that are stopped in the middle."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smalti.codec import archive_index
from smalti.codec.archive import (
    NAME_LIMIT,
    PARTS,
    ArchiveHeader,
    ArchiveReader,
    ArchiveWriter,
    info,
    join_payloads,
    safe_name,
    split_payload,
)
from smalti.codec.container import (
    Chunk,
    ChunkKind,
    CoderKind,
    Form,
    FullHeader,
    PayloadKind,
    TinyHeader,
    read_single,
    write_single,
)
from smalti.errors import CodecError, OutputError

DIGEST = bytes.fromhex("0123456789abcdef")
PLAIN = ArchiveHeader(
    digest=DIGEST, width=32, height=32, channels=3, step=40, payload=PayloadKind.SCALAR, coder=CoderKind.LANES
)
NAMED = dataclasses.replace(PLAIN, per_block=2, named=True, labelled=True, classes=("cat", "dog"))
# Golden files: what was written once must be readable for ever. The names of the second are deflated, as zlib likes it.
GOLDEN = (
    "9e53130123456789abcdef120303202028021a00"
    "7b22636c6173736573223a5b22636174222c22646f67225d7dbc8c5cc9"
    "b10c01030d482c00020000036361740003646f671069e23c6162635456c5f7"
    "b10c000107e2cd00010003746f6d0486e86c7aab85f925"
    "1d0e021f17040101000100670000000000000003000000684c1536534d549e"
)
GOLDEN_DEFLATED = (
    "9e53130123456789abcdef12030120202808010019ac7c91"
    "b10c070326baa90163e036d0cfcc4d4c4fd52bc84b67e03644e61821738c913926c81c53648e1932c71cc10100294a7e50616263e743002e"
    "1d0e0138020701005000000000000000080000009d5579ba534d549e"
)
SINGLE = write_single(
    FullHeader(
        digest=DIGEST, width=50, height=40, channels=3, step=40, codes_checksum=7, payload=PayloadKind.SCALAR,
        coder=CoderKind.RANGE,
    ),
    [Chunk(ChunkKind.STREAM, b"another size")],
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.smt"


def payload(block: int, size: int = 100) -> bytes:
    return bytes((block * 31 + i * i) % 251 for i in range(size))


def write(path: Path, blocks: int, header: ArchiveHeader = PLAIN, size: int = 100) -> bytes:
    """An archive of full blocks, of which the last has one image."""
    with ArchiveWriter(path, header, overwrite=True) as writer:
        for block in range(blocks):
            count = header.per_block if block < blocks - 1 else 1
            names = [f"{block}/{i}.png" for i in range(count)] if header.named else None
            labels = [(block + i) % 3 - 1 for i in range(count)] if header.labelled else None
            writer.write_block(payload(block, size), count=count, names=names, labels=labels)
    return path.read_bytes()


def test_images_are_found_without_reading_the_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, 50)
    with ArchiveReader(path) as reader:
        assert (len(reader), reader.block_count, reader.problems, reader.indexed) == (49 * 16 + 1, 50, [], True)
        assert reader.header == PLAIN
        assert (reader.names, reader.labels, reader.classes) == (None, None, ())
        assert [reader.block_of(image) for image in (0, 15, 16, 784)] == [(0, 0), (0, 15), (1, 0), (49, 0)]
        assert reader.images_of(49) == range(784, 785)
        reads: list[int] = []
        read = reader._source.read
        monkeypatch.setattr(reader._source, "read", lambda start, length: reads.append(length) or read(start, length))
        block = reader.read_block(30)
        assert (block.payload, block.count, block.single) == (payload(30), 16, False)
        assert sum(reads) < 120
        for wrong in (-1, 785):
            with pytest.raises(IndexError):
                reader.block_of(wrong)
        with pytest.raises(IndexError):
            reader.read_block(50)


def test_the_overhead_is_small(path: Path) -> None:
    sizes = {size: [len(write(path, blocks, size=size)) for blocks in (10, 20)] for size in (100, 880, 16383, 99999)}
    # Each block has one to three bytes in the index, too.
    assert [(two - one) // 10 - size for size, (one, two) in sizes.items()] == [10 + 1, 11 + 2, 11 + 3, 12 + 3]
    assert len(PLAIN.to_bytes()) == 24
    empty = write(path, 1, size=1)
    assert len(empty) == 24 + 11 + 28


def test_names_and_labels(path: Path) -> None:
    write(path, 20, NAMED)
    with ArchiveReader(path) as reader:
        assert reader.names is not None
        assert reader.labels is not None
        assert reader.names[:3] == ("0/0.png", "0/1.png", "1/0.png")
        assert reader.labels.tolist() == [(block + i) % 3 - 1 for block in range(20) for i in range(2)][:39]
        assert reader.labels.dtype == np.int64
        assert reader.classes == ("cat", "dog")
        block = reader.read_block(3)
        assert block.names == ("3/0.png", "3/1.png")
        assert block.labels is not None
        assert block.labels.tolist() == [-1, 0]
        assert reader.read_metadata(19)[0] == ("19/0.png",)


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(("a/1", "a/12", "\udce9.png")),
             min_size=1, max_size=16),
    st.data(),
)  # fmt: skip
def test_any_names_and_labels(path: Path, names: list[str], data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(-1, 2**31 - 2), min_size=len(names), max_size=len(names)))
    header = dataclasses.replace(PLAIN, named=True, labelled=True)
    with ArchiveWriter(path, header, overwrite=True) as writer:
        writer.write_block(b"x", count=len(names), names=names, labels=labels)
    with ArchiveReader(path.read_bytes()) as reader:
        assert reader.names == tuple(names)
        assert reader.labels is not None
        assert reader.labels.tolist() == labels
        assert reader.problems == []


def test_names_of_files_in_folders_are_short(path: Path) -> None:
    header = dataclasses.replace(PLAIN, named=True)
    with ArchiveWriter(path, header) as writer:
        for block in range(100):
            names = [f"train/scans/img_{16 * block + i:06d}.png" for i in range(16)]
            writer.write_block(b"x", count=16, names=names)
    assert info(path).parts["metadata"] < 100 * 16 * 6


def test_bad_names_and_labels_are_refused_and_nothing_is_written(path: Path) -> None:
    with ArchiveWriter(path, NAMED) as writer:
        for names, labels, message in (
            (["x" * (NAME_LIMIT + 1)], [0], "expected 0 to 4,096"),
            (["\ud800"], [0], "is no text"),
            (["x"], [2], "a label is 2, expected -1 to 1"),
            (["x"], [-2], "a label is -2"),
        ):
            with pytest.raises(CodecError, match=message):
                writer.write_block(b"x", count=1, names=names, labels=labels)
        with pytest.raises(CodecError, match="payload of a block"):
            writer.write_block(b"", count=1, names=["x"], labels=[0])
        writer.write_block(b"x", count=1, names=["x"], labels=[1])
    with ArchiveReader(path) as reader:
        assert reader.names == ("x",)


def test_images_of_another_size_have_a_block_of_their_own(path: Path) -> None:
    with ArchiveWriter(path, NAMED) as writer:
        writer.write_block(b"x", count=2, names=["a", "b"], labels=[0, 1])
        writer.write_single(SINGLE, name="c", label=1)
        with pytest.raises(CodecError, match="does not match its checksum"):
            writer.write_single(SINGLE.replace(DIGEST, bytes(8)))
        other = FullHeader(**{**vars(read_single(SINGLE)[0]), "digest": bytes(8)})
        with pytest.raises(CodecError, match=r"0000000000000000.*0123456789abcdef"):
            writer.write_single(write_single(other, [Chunk(ChunkKind.STREAM, b"x")]))
        writer.write_block(b"y", count=1, names=["d"], labels=[-1])
    with ArchiveReader(path) as reader:
        assert reader.names == ("a", "b", "c", "d")
        block = reader.read_block(1)
        assert (block.single, block.count, block.split()) == (True, 1, (SINGLE,))
        assert read_single(block.payload)[1] == (Chunk(ChunkKind.STREAM, b"another size"),)


def test_images_coded_apart(path: Path) -> None:
    header = dataclasses.replace(PLAIN, apart=True)
    parts = (b"one", b"", b"three")
    with ArchiveWriter(path, header) as writer:
        writer.write_block(join_payloads(parts), count=3)
        with pytest.raises(CodecError):
            writer.write_block(join_payloads(parts), count=2)
    with ArchiveReader(path) as reader:
        assert reader.read_block(0).split() == parts
    assert len(join_payloads([bytes(55)] * 16)) == 16 * 56
    for wrong in (b"", b"\x02a", b"\x01ab", b"\x80"):
        with pytest.raises(CodecError):
            split_payload(wrong, 1)


def test_metadata_of_the_archive(path: Path) -> None:
    classes = tuple(f"class {i}" for i in range(1000))
    header = dataclasses.replace(NAMED, classes=classes, metadata={"made by": "Äon", "list": [1, 2.5, None]})
    write(path, 1, header)
    with ArchiveReader(path) as reader:
        assert reader.header == header
    for wrong in ({"x": {1, 2}}, {"x": float("nan")}, {"x": "x" * 2**20}):
        with pytest.raises(CodecError, match="metadata"):
            dataclasses.replace(PLAIN, metadata=wrong)


def test_golden_files(path: Path) -> None:
    golden = bytes.fromhex(GOLDEN)
    with ArchiveWriter(path, NAMED) as writer:
        writer.write_block(b"abc", count=2, names=["cat", "dog"], labels=[1, -1])
        writer.write_block(b"z", count=1, names=["tom"], labels=[0])
    assert path.read_bytes() == golden
    with ArchiveReader(golden) as reader:
        assert [reader.read_block(block).payload for block in range(2)] == [b"abc", b"z"]
    with ArchiveReader(bytes.fromhex(GOLDEN_DEFLATED)) as reader:
        assert reader.names == tuple(f"{i}/image.png" for i in range(8))
        assert reader.problems == reader.verify() == []


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
import dataclasses, os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_archive import *
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


def test_wrong_files_are_refused(path: Path) -> None:
    write(path, 2)
    for content, message in (
        (b"", "is empty"),
        (b"PK\x03\x04", "begins with 50 4b 03"),
        (bytes.fromhex("9e5323"), "newer version"),
        (SINGLE, "one compressed image"),
        (PLAIN.to_bytes()[:20], "cut short"),
        (PLAIN.to_bytes().replace(DIGEST, bytes(8)), "does not match its checksum"),
    ):
        with pytest.raises(CodecError, match=message):
            ArchiveReader(content)
        path.write_bytes(content)
        with pytest.raises(CodecError, match=r"a\.smt.*" + message):
            ArchiveReader(path)
    with pytest.raises(CodecError, match="cannot read"):
        ArchiveReader(path.with_name("b.smt"))


def header_by_hand(*, text: bytes = b"", flags: int = 0, middle: str = "2020", step: str = "2810") -> bytes:
    start = bytes.fromhex("9e53130123456789abcdef1203") + bytes([flags]) + bytes.fromhex(middle + step)
    start += bytes([len(text) + 1, 0]) + text
    return start + zlib.crc32(start).to_bytes(4, "little")


def test_headers_out_of_range_are_refused() -> None:
    with ArchiveReader(header_by_hand()) as reader:
        assert reader.header == PLAIN
    for content, message in (
        (header_by_hand(flags=8), "flags 0x8.*update smalti"),
        (header_by_hand(middle="0020"), "the width is 0"),
        (header_by_hand(middle="c0843dc0843d"), "above the limit"),
        (header_by_hand(step="2811"), "images a block is 17"),
        (header_by_hand(step="2800"), "images a block is 0"),
        (header_by_hand(text=b"{"), "no JSON"),
        (header_by_hand(text=b"[]"), "no object"),
        (header_by_hand(text=b"[" * 100), "no JSON"),
        (header_by_hand(text=b'{"classes":[1]}'), "a class is no text"),
        (header_by_hand(text=b'{"classes":{}}'), "no object"),
        (header_by_hand(text=b'{"other":1}'), "no object"),
    ):
        with pytest.raises(CodecError, match=message):
            ArchiveReader(content)


def test_the_parts_of_a_file_add_up(path: Path) -> None:
    write(path, 20, NAMED)
    found = info(path)
    assert (found.form, found.images, found.size, found.problems) == (Form.ARCHIVE, 39, path.stat().st_size, ())
    assert found.parts["payload"] == 2000
    assert found.parts["checksums"] == 4 + 20 * 8 + 4
    tiny = write_single(TinyHeader(digest=DIGEST[:2], step=40), [Chunk(ChunkKind.STREAM, b"abc")])
    assert {name: size for name, size in info(tiny).parts.items() if size} == {"header": 6, "payload": 3}
    path.write_bytes(SINGLE)
    single = info(path)
    assert [single.parts[name] for name in ("header", "payload", "checksums")] == [22, 12, 8]
    for one in (found, single, info(tiny), info(SINGLE)):
        assert sum(one.parts.values()) == one.size
        assert tuple(one.parts) == PARTS
    path.write_bytes(SINGLE + b"x")
    with pytest.raises(CodecError, match=r"a\.smt is damaged: 1 bytes follow"):
        info(path)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.png", "a.png"),
        ("a/b c/d.png", "a/b c/d.png"),
        ("./a//b.png", "a/b.png"),
        ("a\\b.png", "a/b.png"),
        ("...a", "...a"),
        ("Ünïcode.png", "Ünïcode.png"),
    ],
)
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize(
    "name",
    ["", ".", "/", "/etc/x", "\\\\host\\a", "C:\\a", "c:a", "..", "a/../b", "a\\..\\..\\b", "a/.. /b", "a/...", "\0"],
)  # fmt: skip
def test_unsafe_names(name: str) -> None:
    with pytest.raises(CodecError) as caught:
        safe_name(name)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)
