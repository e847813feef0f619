"""Damaged and hostile archives: what is not damaged is read, and nothing takes much memory or time."""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from container_files import NAMED, PLAIN, check_line, header_by_hand, mutations, payload, write

from smalti.codec import archive_index
from smalti.codec.archive import ArchiveHeader, ArchiveReader, ArchiveWriter, info
from smalti.codec.archive_block import MARKER, block_bytes
from smalti.codec.fields import checksum, varint, varint_list
from smalti.errors import CodecError

HEADERS = {"plain": PLAIN, "named": NAMED, "single": dataclasses.replace(PLAIN, per_block=1)}
MOST_MEMORY = 4 * 2**20  # bytes; the files below are small


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.smt"


def places(content: bytes) -> list[tuple[int, int]]:
    """Where the blocks of an undamaged archive begin and end."""
    with ArchiveReader(content) as reader:
        return [(reader._table[block][0], sum(reader._table[block][:2])) for block in range(reader.block_count)]


def readable(reader: ArchiveReader) -> dict[int, bytes]:
    """Payloads of the blocks that can be read, by the number of the block."""
    found = {}
    for block in range(reader.block_count):
        try:
            found[block] = reader.read_block(block).payload
        except CodecError as error:
            check_line(error)
    return found


@pytest.mark.parametrize("kind", HEADERS)
def test_damage_is_found_and_the_rest_is_read(path: Path, kind: str) -> None:
    header = HEADERS[kind]
    content, other = (write(path, 6, header, size) for size in (60, 61))
    written = [[payload(block, size) for block in range(6)] for size in (60, 61)]
    opened = whole = 0
    for mutated in mutations(content, [content, other], 1500, 5):
        try:
            reader = ArchiveReader(mutated)
        except CodecError as error:
            check_line(error)
            continue
        with reader:
            opened += 1
            found = readable(reader)
            reader.names, reader.labels, reader.verify()
            assert sum(reader.parts().values()) == len(mutated)
            # What a splice leaves of the index decides which of the two archives it is.
            sizes = {len(one) for one in found.values()}
            if reader.indexed:
                assert reader.header == header
                assert len(sizes) <= 1
                assert all(one == written[len(one) - 60][block] for block, one in found.items())
                assert (len(found) == 6) == (not reader.problems)
                whole += len(found) == 6
            else:
                assert reader.problems
                numbers = [written[len(one) - 60].index(one) for one in found.values()]
                assert numbers == sorted(set(numbers))
    assert whole < 50
    assert opened > 1000


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("kind", HEADERS)
def test_a_flipped_bit_costs_a_block_or_two(path: Path, kind: str, indexed: bool) -> None:
    content = write(path, 5, HEADERS[kind], 40)
    there = places(content)
    if not indexed:
        content = content[: there[-1][1]]
    for place in range(there[0][0], there[-1][1]):
        block = next(number for number, (_, end) in enumerate(there) if place < end)
        mutated = bytearray(content)
        mutated[place] ^= 1 << place % 8
        with ArchiveReader(bytes(mutated)) as reader:
            reader.verify()
            assert reader.problems
            lost = {block, block + 1} if there[block][1] - place <= 4 else {block}
            kept = [payload(number, 40) for number in range(5) if number not in lost]
            found = readable(reader)
            assert list(found.values()) == kept
            if indexed and block < 4:
                assert reader.block_count == 5
                assert not any(number in found for number in lost)


@pytest.mark.parametrize("kind", HEADERS)
def test_a_cut_archive_is_read_up_to_the_last_whole_block(path: Path, kind: str) -> None:
    content = write(path, 5, HEADERS[kind], 40)
    there = places(content)
    for length in range(there[0][0], len(content)):
        with ArchiveReader(content[:length]) as reader:
            whole = sum(end <= length for _, end in there)
            assert readable(reader) == {block: payload(block, 40) for block in range(whole)}
            assert reader.problems


def test_a_removed_part_is_searched_past(path: Path) -> None:
    content = write(path, 40, PLAIN, 500)
    there = places(content)
    rng = random.Random(6)
    for _ in range(30):
        first = rng.randrange(2, 20)
        start, end = there[first][0] + rng.randrange(1, 200), there[first + 5][0] + rng.randrange(1, 200)
        for middle in (b"", rng.randbytes(3000), MARKER * 1000, bytes(1000)):
            with ArchiveReader(content[:start] + middle + content[end:]) as reader:
                found = list(readable(reader).values())
                # The first block after the damage may be lost with the checksum before it.
                expected = [payload(block, 500) for block in (*range(first), *range(first + 6, 40))]
                assert found in (expected, [one for one in expected if one != payload(first + 6, 500)])
                assert 1 <= len(reader.problems) <= 2


def test_appending_to_a_damaged_archive_keeps_the_gap(path: Path) -> None:
    content = bytearray(write(path, 8, NAMED))
    there = places(bytes(content))
    content[there[3][0]] ^= 1
    path.write_bytes(content[: there[-1][1] - 3])
    with ArchiveWriter.append(path, NAMED) as writer:
        assert writer.images == 12
        assert "after the block of image 11" in writer.dropped
        writer.write_block(b"new", count=1, names=["new"], labels=[0])
    with ArchiveReader(path) as reader:
        assert reader.indexed
        assert list(readable(reader).values()) == [payload(block) for block in (0, 1, 2, 4, 5, 6)] + [b"new"]
        assert reader.names is not None
        assert reader.names[-1] == "new"
        assert reader.verify() == []
    found = info(path)
    assert found.parts["damaged"] == there[3][1] - there[3][0]
    assert sum(found.parts.values()) == found.size


def test_blocks_at_other_places_are_found(path: Path) -> None:
    content = write(path, 8, PLAIN, 60)
    there = places(content)
    # Two blocks in the place of two others, with the checksum before them, which they were bound to.
    (first, _), (_, last) = there[1], there[2]
    for start in (there[3][0], there[5][0]):
        moved = content[: first - 4] + content[start - 4 : start + last - first] + content[last:]
        with ArchiveReader(moved) as reader:
            assert reader.indexed
            found = readable(reader)
            assert all(one == payload(block, 60) for block, one in found.items())
            assert len(found) >= 4
            assert len(reader.verify()) == 8 - len(found)
        # Once more, without an index: they come again, or too early.
        with ArchiveReader(moved[: there[7][1]]) as reader:
            written = [payload(block, 60) for block in range(8)]
            numbers = [written.index(one) for one in readable(reader).values()]
            assert numbers == sorted(set(numbers))
            assert "blocks are lost" in " ".join(map(str, reader.problems))


def test_numbers_of_blocks_go_on_after_a_gap(path: Path) -> None:
    content = write(path, 30, PLAIN, 60)
    there = places(content)
    path.write_bytes(content[: there[4][0] + 7] + content[there[9][0] + 7 : there[20][1]])
    for _ in range(2):
        with ArchiveWriter.append(path, PLAIN) as writer:
            writer.write_block(b"new", count=1)
    with ArchiveReader(path) as reader:
        assert list(readable(reader).values()) == [payload(i, 60) for i in (*range(4), *range(10, 21))] + [b"new"] * 2
        assert [reader._table[block].number for block in (0, 3, 4, 15, 16)] == [0, 3, 10, 21, 22]
        assert reader.verify() == []


def test_bytes_after_the_end_are_a_problem(path: Path) -> None:
    content = write(path, 4)
    with ArchiveReader(content + b"garbage") as reader:
        assert len(readable(reader)) == 4
        assert [problem.end for problem in reader.problems] == [len(content) + 7]


def index_by_hand(
    header: ArchiveHeader, blocks: bytes, lengths: list[int], runs: list[int], gaps: list[int], images: int
) -> bytes:
    """An archive with this index, and right checksums."""
    content = header.to_bytes() + blocks
    index = archive_index.INDEX_MARKER + varint_list(lengths) + varint_list(runs) + varint_list(gaps)
    index += len(content).to_bytes(8, "little") + images.to_bytes(4, "little")
    return content + index + checksum(content[-4:], index) + archive_index.END_MAGIC


def test_a_hostile_index_is_not_believed() -> None:
    start = PLAIN.to_bytes()
    block = block_bytes(b"abc", 3, None, None, number=0, header=PLAIN, before=start[-4:])
    size = len(block)
    with ArchiveReader(index_by_hand(PLAIN, block, [size], [3, 1], [], 4)) as reader:
        assert (len(reader), reader.indexed, reader.problems) == (4, True, [])
    huge = 2**63 - 1
    for lengths, runs, gaps, images in (
        ([size - 1], [3, 1], [], 4),
        ([size, 10], [3, 2], [], 8),
        ([huge], [3, 1], [], 4),
        ([huge] * 9, [3, 9], [], 36),
        ([size], [3, huge], [], 4),
        ([size], [3, huge, 3, huge], [], 4),
        ([size], [17, 1], [], 4),
        ([size], [huge, 1], [], 4),
        ([size], [3], [], 4),
        ([size], [3, 1], [], 5),
        ([size], [3, 1], [0, 1, 0], 4),
        ([size], [3, 1], [0, huge, 0], 4),
        ([size], [3, 1], [1, 0, 0], 4),
        ([size], [3, 1], [huge, huge, huge], 4),
        ([size], [3, 1], [0, 0, 2**16], 4),
        ([size], [3, 1], [0, 0], 4),
        ([], [], [], 4),
    ):
        with ArchiveReader(index_by_hand(PLAIN, block, lengths, runs, gaps, images)) as reader:
            assert (len(reader), reader.indexed) == (4, False)
            assert readable(reader) == {0: b"abc"}
            assert reader.problems
    # Right in itself, but not what the blocks say.
    with ArchiveReader(index_by_hand(PLAIN, block, [size], [4, 1], [], 5)) as reader:
        assert (len(reader), reader.indexed) == (5, True)
        assert readable(reader) == {}
        assert "images 0 to 4" in str(reader.verify()[0])


def hostile_archives() -> dict[str, bytes]:
    start = header_by_hand()
    named = header_by_hand(flags=1)
    head = MARKER + b"\x0f" + varint(2**26)
    head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    small = MARKER + b"\x0f" + varint(30_000)
    small += (zlib.crc32(small) & 0xFFFF).to_bytes(2, "little")
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"\1" + bomb.compress(bytes(10**7)) + bomb.flush()
    names = MARKER + b"\x0f\x01" + varint(len(packed))
    names += (zlib.crc32(names) & 0xFFFF).to_bytes(2, "little") + packed
    names += checksum(named[-4:], names)
    names += b"x" + checksum(names[-4:], b"x")
    text = b"\1" + bomb_of(b"[" * 2**20)
    large = start[:-6] + varint(len(text)) + text
    count = archive_index.INDEX_MARKER + varint(2**21) + b"\x0d" * 10
    count += len(start).to_bytes(8, "little") + bytes(4)
    return {
        "heads of large blocks": start + head * 20_000,
        "heads of overlapping blocks": start + small * 20_000,
        "markers": start + MARKER * 100_000,
        "markers and kinds": start + (MARKER + b"\0") * 100_000,
        "markers of indices": start + archive_index.INDEX_MARKER * 100_000,
        "zeros": start + bytes(300_000),
        "random": start + random.Random(7).randbytes(300_000),
        "names that inflate": named + names,
        "text that inflates": large + checksum(large),
        "text of ten megabytes": start[:-6] + varint(10**7) + bytes(100),
        "an index of many blocks": start + count + checksum(start[-4:], count) + archive_index.END_MAGIC,
        "an index before the file": start + bytes(14) + archive_index.END_MAGIC,
        "an index after the file": start + b"\xff" * 16 + archive_index.END_MAGIC,
    }


def test_many_gaps_take_little_time() -> None:
    parts, last = [PLAIN.to_bytes()], b""
    for number in range(20_000):
        before = b"".join(parts[-2:])[-3:] + b"?"
        last = block_bytes(b"x", 0, None, None, number=number, header=PLAIN, before=before)
        parts += [b"?", last]
    begun = time.process_time()
    with ArchiveReader(b"".join(parts)) as reader:
        assert len(reader) == 20_000
    assert time.process_time() - begun < 2


def bomb_of(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("kind", hostile_archives())
def test_hostile_archives_take_little_memory_and_time(kind: str) -> None:
    content = hostile_archives()[kind]
    begun = time.process_time()
    try:
        with ArchiveReader(content) as reader:
            assert readable(reader) == {}
            reader.names, reader.labels, reader.verify()
            assert reader.problems
    except CodecError as error:
        check_line(error)
    assert time.process_time() - begun < 2
    tracemalloc.start()
    try:
        with ArchiveReader(content) as reader:
            reader.verify()
            reader.parts()
    except CodecError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_MEMORY


def test_names_take_bounded_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = dataclasses.replace(PLAIN, named=True)
    with ArchiveWriter(path, header) as writer:
        for _ in range(20):
            writer.write_block(b"x", count=16, names=["x" * 4000] * 16)
    assert path.stat().st_size < 2000
    monkeypatch.setattr("smalti.codec.archive.NAMES_LIMIT", 10**6)
    with ArchiveReader(path) as reader:
        with pytest.raises(CodecError, match="read them block by block"):
            _ = reader.names
        assert reader.read_metadata(19)[0] == ("x" * 4000,) * 16


def test_many_problems_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_index, "_PROBLEM_LIMIT", 5)
    content = PLAIN.to_bytes()
    for number in range(20):
        content += b"?"
        content += block_bytes(b"x", 0, None, None, number=number, header=PLAIN, before=content[-4:])
    with ArchiveReader(content) as reader:
        assert len(reader) == 20
        assert len(reader.problems) == 5
        assert reader.problems[-1].end == len(content) - 11
        assert "several" in str(reader.problems[-1])


def test_more_blocks_than_the_limit_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_index, "BLOCK_LIMIT", 3)
    with ArchiveWriter(path, PLAIN) as writer:
        for block in itertools.count():
            if block == 3:
                with pytest.raises(CodecError, match="at most 3 blocks; begin another one"):
                    writer.write_block(b"x", count=1)
                break
            writer.write_block(b"x", count=1)
    with ArchiveReader(path) as reader:
        assert len(reader) == 3
