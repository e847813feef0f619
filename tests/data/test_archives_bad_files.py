"""Archives that are damaged, hostile or lie about what they hold."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dataset_files import refusal
from picture_files import make_array, make_file, pictures, write_files, write_tar, write_zip

from smalti.data import load
from smalti.data.archives import Folder, TarArchive, ZipArchive


def test_members_that_point_outside_are_skipped(tmp_path: Path, cache: Path) -> None:
    files = pictures(6)
    picture = make_file(make_array(50))
    hostile = {"../evil.png": picture, "/etc/evil.png": picture, "cat/../../evil.png": picture}
    for source in (write_zip(tmp_path / "a.zip", files | hostile), write_tar(tmp_path / "a.tar", files | hostile)):
        packed = load(source, cache=cache, size=8)
        assert len(packed) == 6
        assert {name for name, _ in packed.skipped} == set(hostile)
        assert {reason for _, reason in packed.skipped} == {"an absolute path", "a path that leads outside the archive"}
    assert not (tmp_path / "evil.png").exists()


def test_links_and_devices_in_archives_are_skipped(tmp_path: Path, cache: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(6))
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"cat/evil{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    packed = load(path, cache=cache)
    assert len(packed) == 6
    assert [reason for _, reason in packed.skipped] == ["a link or device, not a file"] * 4
    with zipfile.ZipFile(write_zip(tmp_path / "a.zip", pictures(6)), "a") as archive:
        link = zipfile.ZipInfo("cat/evil.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert load(tmp_path / "a.zip", cache=cache).skipped == (("cat/evil.png", "a link or device, not a file"),)


def test_members_above_the_limit_are_skipped_not_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smalti.data.archives.MEMBER_LIMIT", 10_000)
    files = pictures(4) | {"cat/huge.png": bytes(50_000)}
    for source in (
        write_files(tmp_path / "in", files), write_zip(tmp_path / "a.zip", files),
        write_tar(tmp_path / "a.tar.gz", files, "w:gz"),
    ):  # fmt: skip
        ((name, reason),) = load(source, cache=cache).skipped
        assert name == "cat/huge.png"
        assert reason.startswith("50,000 bytes")


def test_a_zip_member_that_is_longer_than_it_says_is_not_unpacked(tmp_path: Path, cache: Path) -> None:
    path = write_zip(tmp_path / "a.zip", pictures(4) | {"cat/bomb.png": bytes(5_000_000)})
    data = path.read_bytes()
    lying = data.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 900))
    assert lying != data
    path.write_bytes(lying)
    ((name, reason),) = load(path, cache=cache).skipped
    assert name == "cat/bomb.png"
    assert "damaged" in reason or "not an image" in reason


def test_an_encrypted_zip_says_so(tmp_path: Path, cache: Path) -> None:
    path = write_zip(tmp_path / "a.zip", pictures(4))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = -1
        while (place := data.find(signature, place + 1)) >= 0:
            data[place + offset] |= 1
    path.write_bytes(bytes(data))
    assert "encrypted; unpack it with its password first" in refusal(path, cache)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.97])
def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path, cache: Path, kind: str, fraction: float) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        write_zip(path, pictures(60))
    else:
        write_tar(path, pictures(60), "w:" + kind.removeprefix("tar").removeprefix("."))
    size = path.stat().st_size if kind != "tar" else 60 * 1024  # without the zeros that fill the last block
    os.truncate(path, int(size * fraction))
    assert "damaged" in refusal(path, cache)


def test_a_tar_without_an_end_is_refused_even_between_two_files(tmp_path: Path, cache: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(10))
    os.truncate(path, 5 * 1024)  # each picture takes a header and one block
    assert "cut short or damaged after 5 files" in refusal(path, cache)


def test_a_damaged_header_in_the_middle_is_refused(tmp_path: Path, cache: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(10))
    data = bytearray(path.read_bytes())
    data[4 * 1024 + 150] ^= 0xFF  # the checksum of the fifth header
    path.write_bytes(bytes(data))
    assert "damaged after 4 files" in refusal(path, cache)


def test_a_tar_header_that_declares_gigabytes_is_refused(tmp_path: Path, cache: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**32
    head = write_tar(tmp_path / "good.tar", pictures(2)).read_bytes()[: 2 * 1024]
    (tmp_path / "a.tar").write_bytes(head + info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert "a header of 4,294,967,296 bytes" in refusal(tmp_path / "a.tar", cache)


def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path, cache: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in (1, 2):
            data = make_file(make_array(number))
            info = tarfile.TarInfo("a.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    packed = load(tmp_path / "a.tar", cache=cache)
    assert len(packed) == 1
    assert np.array_equal(packed.images[0], make_array(2))


def test_every_file_is_closed_when_a_walk_is_left(tmp_path: Path) -> None:
    """Warnings are errors here, so an open file would fail the test."""
    files = pictures(5)
    trees = [
        Folder(write_files(tmp_path / "in", files)), ZipArchive(write_zip(tmp_path / "a.zip", files)),
        TarArchive(write_tar(tmp_path / "a.tar", files)),
    ]  # fmt: skip
    for tree in trees:
        entry, contents = next(tree.walk(lambda entry: True))
        assert entry.name in files
        assert contents is not None
