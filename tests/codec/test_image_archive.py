"""Archives of pictures: order, random access, other sizes, damage, appending, a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codec_models import QUALITY, SIDE, discs, drawn_codec, model_of, trained_codec

from smalti.codec import image_archive
from smalti.codec.archive import ArchiveHeader, ArchiveWriter
from smalti.codec.container import CoderKind, PayloadKind
from smalti.codec.image_archive import ImageArchive, ImageArchiveWriter
from smalti.codec.image_codec import CodecEngine
from smalti.codec.image_file import Model
from smalti.data.pictures import Picture
from smalti.errors import CodecError, ConfigError, OutputError

IMAGES = discs(23, seed=4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.smt"


@pytest.fixture
def model() -> Model:
    return model_of(trained_codec())


def writer(model: Model, path: Path, **options: Any) -> ImageArchiveWriter:
    return ImageArchiveWriter(model, path, **({"quality": QUALITY, "effort": 0, "per_block": 4} | options))


def fill(archive: ImageArchiveWriter, images: np.ndarray = IMAGES) -> None:
    with archive:
        for number, image in enumerate(images):
            archive.add(Picture(image), name=f"{number}.png", label=number % 2)


def alone(model: Model, image: np.ndarray, effort: int = 0) -> np.ndarray:
    """The pixels that an image decodes to, by itself; regardless of the coder."""
    codes = model.engine.codes_of(image[None], QUALITY, effort=effort)
    return model.engine.pixels_of(codes, QUALITY, *image.shape[:2])[0]


def apart(found: np.ndarray, wanted: np.ndarray) -> int:
    """Levels; excluded coefficients are zero in a file, and batches of other sizes may round otherwise."""
    assert found.shape == wanted.shape
    return int(np.abs(found.astype(int) - wanted.astype(int)).max())


@pytest.mark.parametrize("per_block", [1, 4, 16])
def test_pictures_come_back_in_their_order(
    model: Model, path: Path, per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through batches of blocks, and by number."""
    monkeypatch.setattr(image_archive, "LANES", 2)
    monkeypatch.setattr(image_archive, "FEWEST_LANES", 2)
    fill(writer(model, path, per_block=per_block, classes=("even", "odd")))
    with ImageArchive(model, path) as archive:
        assert len(archive) == 23
        assert archive.reader.names == tuple(f"{number}.png" for number in range(23))
        assert archive.reader.labels is not None
        assert archive.reader.labels.tolist() == [number % 2 for number in range(23)]
        assert archive.reader.classes == ("even", "odd")
        in_turn = [picture for _, pictures in archive.blocks() for picture in pictures]
        assert [number for number, _ in archive.blocks()] == list(range(archive.reader.block_count))
        assert len(in_turn) == 23
        for number in (0, 1, 7, 15, 16, 22):
            assert apart(archive[number].pixels, in_turn[number].pixels) <= 1
            assert apart(archive[number].pixels, alone(model, IMAGES[number])) <= 3
        # Blocks of one number of images are decoded together, here the last before the others.
        wanted = [archive.reader.block_count - 1, 0]
        assert [number for number, _ in archive.blocks(wanted)] == wanted
        assert apart(next(archive.blocks(wanted))[1][-1].pixels, in_turn[-1].pixels) <= 1
        for wrong in (-1, 23):
            with pytest.raises(IndexError):
                archive[wrong]


def test_one_image_is_found_without_decoding_the_others(
    model: Model, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(writer(model, path))
    with ImageArchive(model, path) as archive:
        asked: list[int] = []
        read = archive.reader.read_block
        monkeypatch.setattr(archive.reader, "read_block", lambda number: asked.append(number) or read(number))
        archive[13]
        assert asked == [3]


def test_more_images_in_a_block_take_fewer_bytes(model: Model, tmp_path: Path) -> None:
    sizes = []
    for per_block in (1, 4, 16):
        fill(writer(model, tmp_path / f"{per_block}.smt", per_block=per_block, named=False))
        sizes.append((tmp_path / f"{per_block}.smt").stat().st_size)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[2] > 22 * 10  # of overhead


@pytest.mark.parametrize("neighbours", [False, True], ids=["alone", "neighbours"])
def test_pictures_of_other_sizes_are_between(path: Path, neighbours: bool) -> None:
    model = model_of(trained_codec(neighbours=neighbours))
    large = np.kron(IMAGES[0], np.ones((2, 3, 1), np.uint8))[:29]
    given = [
        Picture(IMAGES[0]), Picture(large), Picture(IMAGES[1]), Picture(IMAGES[2]), Picture(IMAGES[3][..., :1]),
        Picture(IMAGES[4].astype(np.uint16) * 257), Picture(IMAGES[5], icc=b"profile"), Picture(IMAGES[6]),
    ]  # fmt: skip
    with writer(model, path) as archive:
        for number, picture in enumerate(given):
            archive.add(picture, name=str(number))
    with ImageArchive(model, path) as found:
        assert found.reader.block_count == 7  # 1 2 and 3 are together
        assert found.reader.names == tuple("01234567")
        for number, picture in enumerate(given):
            assert found[number].pixels.shape == picture.pixels.shape
            assert found[number].pixels.dtype == picture.pixels.dtype
            assert found[number].icc == picture.icc
        assert apart(found[1].pixels, alone(model, large)) <= 3
        assert [len(pictures) for _, pictures in found.blocks()] == [1, 1, 2, 1, 1, 1, 1]


def test_an_archive_of_grey_pictures_refuses_colours(path: Path) -> None:
    model = model_of(trained_codec(channels=1))
    archive = writer(model, path)
    archive.add(Picture(discs(1, channels=1)[0]))
    with pytest.raises(ConfigError, match="colours"), archive:
        archive.add(Picture(IMAGES[0]))
    with ImageArchive(model, path) as found:
        assert len(found) == 1
        assert not found.reader.indexed


def test_codes_can_be_added_as_they_are(model: Model, path: Path) -> None:
    codes = model.engine.codes_of(IMAGES, QUALITY, effort=1)
    with writer(model, path, named=False) as archive:
        archive.add_codes(codes)
    with ImageArchive(model, path) as found:
        assert len(found) == 23
        wanted = model.engine.pixels_of(codes, QUALITY, SIDE, SIDE)
        for number in (0, 5, 22):
            assert apart(found[number].pixels, wanted[number]) <= 1


# --- Damage


def test_a_damaged_block_leaves_the_others(model: Model, path: Path) -> None:
    fill(writer(model, path, per_block=4))
    whole = path.read_bytes()
    with ImageArchive(model, whole) as archive:
        place = archive.reader._table[2]
        wanted = [picture.pixels for _, pictures in archive.blocks() for picture in pictures]
    damaged = bytearray(whole)
    damaged[place.start + place.length // 2] ^= 1
    with ImageArchive(model, bytes(damaged)) as archive:
        for number in range(23):
            if 8 <= number < 12:
                with pytest.raises(CodecError, match="block 2"):
                    archive[number]
            else:
                assert apart(archive[number].pixels, wanted[number]) <= 1
        assert archive.reader.problems == []
        assert [number for number, _ in archive.blocks()] == [0, 1, 3, 4, 5]
        (problem,) = archive.reader.problems
        assert (problem.start, problem.end) == (place.start, place.start + place.length)


def test_a_block_that_lies_leaves_the_others(model: Model, path: Path) -> None:
    """Its checksums are right, but the codes inside are not those of a stream."""
    header = ArchiveHeader(
        digest=model.digest[:8], width=SIDE, height=SIDE, channels=3, step=QUALITY, payload=PayloadKind.SCALAR,
        coder=CoderKind.LANES, per_block=4,
    )  # fmt: skip
    fill(writer(model, path, named=False))
    with ImageArchive(model, path) as archive:
        payloads = [archive.reader.read_block(number).payload for number in range(6)]
    with ArchiveWriter(path, header, overwrite=True) as lying:
        for number, payload in enumerate(payloads):
            count = 3 if number == 5 else 4
            lying.write_block(
                payloads[number - 1] if number == 3 else payload[:-1] if number == 4 else payload, count=count
            )
    with ImageArchive(model, path) as archive:
        # The one before in its place decodes: only an archive's own checksums could tell.
        assert [number for number, _ in archive.blocks()] == [0, 1, 2, 3, 5]
        assert len(archive.reader.problems) == 1
        with pytest.raises(CodecError, match="get both again"):
            archive[16]


def test_a_cut_archive_is_readable(model: Model, path: Path) -> None:
    fill(writer(model, path))
    whole = path.read_bytes()
    with ImageArchive(model, whole) as archive:
        end = archive.reader._table[4].start - 1
    with ImageArchive(model, whole[:end]) as archive:
        assert len(archive) == 12
        assert archive[11].pixels.shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"digest": bytes(8)}, "compressed with the model 0000000000000000"),
        ({"width": 32}, "another|not written by this kind"),
        ({"channels": 4}, "not written by this kind"),
        ({"coder": CoderKind.STATE}, "not written by this kind"),
        ({"payload": PayloadKind.CODES}, "not written by this kind"),
        ({"apart": True}, "not written by this kind"),
        ({"bit_depth": 16}, "not written by this kind"),
        ({"step": 0}, "not written by this kind"),
        ({"step": 101}, "not written by this kind"),
    ],
)
def test_archives_of_other_models_are_refused(model: Model, path: Path, changes: dict[str, Any], problem: str) -> None:
    plain: dict[str, Any] = {
        "digest": model.digest[:8], "width": SIDE, "height": SIDE, "channels": 3, "step": QUALITY,
        "payload": PayloadKind.SCALAR, "coder": CoderKind.LANES,
    }  # fmt: skip
    with ArchiveWriter(path, ArchiveHeader(**(plain | changes))):
        pass
    with pytest.raises(CodecError, match=problem):
        ImageArchive(model, path)


def test_singles_of_other_models_are_refused(model: Model, path: Path) -> None:
    other = model_of(drawn_codec())  # whose digest says that it is the same
    with writer(other, path) as archive:
        archive.add(Picture(IMAGES[0][:9]))
        archive.add(Picture(IMAGES[0]))
    with ImageArchive(model, path) as found:
        for number in range(2):
            with pytest.raises(CodecError, match="another model"):
                found[number]
        assert list(found.blocks()) == []


# --- Writing


def test_appending_goes_on(model: Model, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.smt", tmp_path / "parts.smt"
    fill(writer(model, whole), IMAGES[:16])
    fill(writer(model, parts), IMAGES[:8])
    with writer(model, parts, append=True) as archive:
        for number in range(8, 16):
            archive.add(Picture(IMAGES[number]), name=f"{number}.png")
    assert parts.read_bytes() == whole.read_bytes()
    for options in ({"quality": QUALITY + 1}, {"per_block": 2}, {"named": False}, {"classes": ("a", "b")}):
        with pytest.raises(CodecError):
            writer(model, parts, append=True, **options)
    with pytest.raises(CodecError):
        writer(model_of(trained_codec(), digest=bytes(32)), parts, append=True)
    with pytest.raises(OutputError, match="exists"):
        writer(model, parts)
    assert parts.read_bytes() == whole.read_bytes()


def test_a_full_disk_leaves_what_was_written(model: Model, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_archive, "LANES", 2)
    monkeypatch.setattr(image_archive, "FEWEST_LANES", 2)
    archive = writer(model, path)
    write, room = archive.writer._write, [700]

    def full(data: bytes) -> None:
        if len(data) > room[0]:
            os.write(archive.writer._file.fileno(), data[: room[0]])
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= len(data)
        write(data)

    monkeypatch.setattr(archive.writer, "_write", full)
    with pytest.raises(OutputError, match=r"its first \d+ images are safe; free some space"):
        fill(archive)
    with ImageArchive(model, path) as found:
        assert len(found) == archive.writer.images > 8
        assert apart(found[5].pixels, alone(model, IMAGES[5])) <= 3
        safe = len(found)
    with writer(model, path, append=True) as more:
        for image in IMAGES[safe:]:
            more.add(Picture(image))
    with ImageArchive(model, path) as found:
        assert len(found) == 23
        assert found.reader.problems == []


def test_an_exception_leaves_no_index(model: Model, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one in the last batch: the file is closed, and can be appended to."""
    archive = writer(model, path)
    archive.add(Picture(IMAGES[0]))
    archive.flush()
    archive.add(Picture(IMAGES[1]))
    with pytest.raises(KeyboardInterrupt), archive:
        raise KeyboardInterrupt
    with ImageArchive(model, path) as found:
        assert (len(found), found.reader.indexed) == (1, False)
    monkeypatch.setattr(np, "stack", lambda *args: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError), writer(model, path, append=True) as archive:
        archive.add(Picture(IMAGES[1]))
    monkeypatch.undo()
    with writer(model, path, append=True) as archive:
        archive.add(Picture(IMAGES[1]))
    with ImageArchive(model, path) as found:
        assert (len(found), found.reader.indexed) == (2, True)


def test_bad_names_and_labels_are_refused(model: Model, path: Path) -> None:
    for name, label in (("\ud800", 0), ("a" * 5000, 0), ("a", 2), ("a", -2)):
        with pytest.raises(CodecError), writer(model, path, classes=("cat", "dog"), overwrite=True) as archive:
            archive.add(Picture(IMAGES[0]), name=name, label=label)


def test_a_machine_that_computes_wrongly_is_noticed(model: Model, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = CodecEngine.decode
    monkeypatch.setattr(CodecEngine, "decode", lambda *args, **options: right(*args, **options) + 1)
    with pytest.raises(CodecError, match="computes wrongly"):
        fill(writer(model, path))
