"""Archives: random access, names and labels, golden files, bad input."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from container_files import DIGEST, NAMED, PLAIN, SINGLE, header_by_hand, payload, write
from hypothesis import given
from hypothesis import strategies as st

from smalti.codec.archive import (
    NAME_LIMIT,
    PARTS,
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
    Form,
    FullHeader,
    TinyHeader,
    read_single,
    write_single,
)
from smalti.errors import CodecError

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.smt"


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
