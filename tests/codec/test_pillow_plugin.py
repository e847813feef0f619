"""The Pillow plugin: headers alone, frames, limits, metadata, damage."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from small_codecs import exif
from small_runs import pixels

from smalti.codec import pillow_plugin
from smalti.codec.image_file import Model
from smalti.data.pictures import Picture
from smalti.pipelines.codec import Codec

ICC = b"x" * 16 + b"RGB " + b"x" * 50


class OneModel:
    """Knows one codec, and counts how often its weights are asked for."""

    def __init__(self, codec: Codec) -> None:
        self.codec, self.asked = codec, 0

    def native(self, digest: bytes, source: str) -> tuple[int, int, int]:
        return self.codec.model.native

    def model(self, digest: bytes, source: str) -> Model:
        self.asked += 1
        return self.codec.model

    def compress(self, image: Image.Image, options: dict[str, Any]) -> bytes:
        return self.codec.compress(image, **options)


@pytest.fixture
def models(codec: Path) -> OneModel:
    found = OneModel(Codec.from_pretrained(codec))
    pillow_plugin.register(found)
    return found


@pytest.fixture
def frames(models: OneModel, tmp_path: Path) -> Path:
    """An archive of five images, the third of another size with metadata."""
    path = tmp_path / "all.smt"
    with models.codec.write_archive(path, effort=0) as archive:
        for number, image in enumerate(pixels(5)):
            odd = number == 2
            archive.add(Picture(image[:9] if odd else image, ICC if odd else None), name=str(number))
    return path


def file_of(models: OneModel, image: Any, **options: Any) -> io.BytesIO:
    return io.BytesIO(models.codec.compress(image, effort=0, **options))


def test_opening_decodes_nothing(models: OneModel) -> None:
    for image, form in ((pixels(1)[0], "RGB"), (pixels(1)[0][:9], "RGB"), (pixels(1, channels=4)[0], "RGBA")):
        file = file_of(models, image)
        found = Image.open(file)
        assert (found.size, found.mode, found.format) == (image.shape[1::-1], form, "SMALTI")
        assert (found.n_frames, found.is_animated, found.tell()) == (1, False, 0)
        assert models.asked == 0
        decoded = models.codec.decompress(file.getvalue())
        assert np.array_equal(np.asarray(found), decoded)
        assert np.array_equal(np.asarray(found.copy()), decoded)
        assert models.asked == 1
        models.asked = 0
    assert found.get_format_mimetype() == "image/x-smalti"
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(found))), np.asarray(found))


def test_grey_of_eight_and_sixteen_bits(models: OneModel) -> None:
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    for image, mode in ((deep, "I;16"), ((deep // 257).astype(np.uint8), "L")):
        found = Image.open(file_of(models, image, exact=True))
        assert found.mode == mode
        assert np.array_equal(np.asarray(found), image)


def test_metadata_are_there_before_the_pixels(models: OneModel, tmp_path: Path) -> None:
    image = Image.fromarray(pixels(1)[0][:9])
    image.info.update(icc_profile=ICC, exif=exif(orientation=6, description="a disc"), xmp=b"<x/>")
    (tmp_path / "x.smi").write_bytes(file_of(models, image, exact=True).getvalue())
    with Image.open(tmp_path / "x.smi") as found:
        assert found.size == (9, 16)
        assert (found.info["icc_profile"], found.info["xmp"]) == (ICC, b"<x/>")
        assert dict(found.getexif()) == {0x010E: "a disc"}
        assert models.asked == 0
        upright = np.asarray(found)
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(found)), upright)
    assert np.array_equal(upright, np.rot90(pixels(1)[0][:9], -1))


def test_an_archive_has_frames(models: OneModel, frames: Path) -> None:
    with models.codec.open_archive(frames) as archive:
        wanted = [archive[number].pixels for number in range(5)]
    for given in (frames, io.BytesIO(frames.read_bytes())):
        with Image.open(given) as found:
            assert (found.n_frames, found.is_animated, found.size) == (5, True, (16, 16))
            for number in (3, 2, 0, 0, 4):
                found.seek(number)
                assert found.tell() == number
                assert found.size == (16, 9 if number == 2 else 16)
                assert np.array_equal(np.asarray(found), wanted[number])
                assert found.info.get("icc_profile") == (ICC if number == 2 else None)
            assert [np.asarray(frame).shape[0] for frame in ImageSequence.Iterator(found)] == [16, 16, 9, 16, 16]
            for number in (-1, 5):
                with pytest.raises(EOFError, match=f"image {number} of 5"):
                    found.seek(number)


def test_the_blocks_of_an_archive_are_decoded_once(
    models: OneModel, frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[list[int]] = []
    blocks = pillow_plugin.ImageArchive.blocks
    monkeypatch.setattr(
        pillow_plugin.ImageArchive, "blocks", lambda self, numbers: decoded.append(numbers) or blocks(self, numbers)
    )
    with Image.open(frames) as found:
        for number in (0, 1, 3, 4):
            found.seek(number)
            found.load()
    assert decoded == [[0], [2]]


def test_pillow_s_limit_of_pixels_holds(
    models: OneModel, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = file_of(models, np.zeros((20, 24, 3), np.uint8)).getvalue()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(data))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    assert models.asked == 0
    with models.codec.write_archive(tmp_path / "mixed.smt", effort=0) as archive:
        archive.add(Picture(pixels(1)[0][:9]))
        archive.add(Picture(np.zeros((20, 24, 3), np.uint8)))
        archive.add(Picture(np.zeros((20, 15, 3), np.uint8)))
    with Image.open(tmp_path / "mixed.smt") as found:
        with pytest.raises(Image.DecompressionBombError, match="480 pixels exceeds the limit of 200"):
            found.seek(1)
        with pytest.warns(Image.DecompressionBombWarning, match="300 pixels"):
            found.seek(2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with warnings.catch_warnings(), Image.open(tmp_path / "mixed.smt") as found:
        warnings.simplefilter("error")
        found.seek(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:20], "was cut short"),
        (lambda data: data[:2] + b"\xf2" + data[3:], "newer version of smalti"),
        (lambda data: data[:8] + bytes([data[8] ^ 1]) + data[9:], "does not match its checksum"),
    ],
)
def test_a_damaged_header_is_said_when_it_is_opened(models: OneModel, change: Any, said: str) -> None:
    with pytest.raises(UnidentifiedImageError, match=said):
        Image.open(io.BytesIO(change(file_of(models, pixels(1)[0][:9]).getvalue())))


def test_other_damage_is_said_when_it_is_loaded(models: OneModel, frames: Path, tmp_path: Path) -> None:
    data = file_of(models, pixels(1)[0][:9]).getvalue()
    for bad, said in ((data[:-3], "was cut short"), (data + b"x", "follow its last chunk"),
                      (data[:-9] + b"\0\0\0" + data[-6:], "does not match its checksum")):  # fmt: skip
        with pytest.raises(OSError, match=said):
            Image.open(io.BytesIO(bad)).load()
    content = bytearray(frames.read_bytes())
    content[60] ^= 0xFF
    (tmp_path / "bad.smt").write_bytes(content)
    with Image.open(tmp_path / "bad.smt") as found:
        with pytest.raises(OSError, match=r"image 0 of .* is damaged"):
            found.load()
        found.seek(3)
        found.load()
    for empty in (b"", b"\x9eS"):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(empty))


def test_a_closed_file_says_so(models: OneModel, tmp_path: Path) -> None:
    (tmp_path / "x.smi").write_bytes(file_of(models, pixels(1)[0]).getvalue())
    with Image.open(tmp_path / "x.smi") as found:
        pass
    with pytest.raises(OSError, match="has been closed; open it again"):
        found.load()


def test_other_files_open_as_before(models: OneModel, tmp_path: Path) -> None:
    Image.fromarray(pixels(1)[0]).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as found:
        assert found.format == "PNG"
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"nothing of the kind"))
