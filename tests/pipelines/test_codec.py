"""Compression as a user calls it: rates, targets, metadata, archives, arguments that contradict each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codec_models import SIDE, discs, trained_codec, write_codec
from PIL import Image

import smalti
from smalti.codec.container import FullHeader, TinyHeader, read_header
from smalti.codec.image_codec import squared_error
from smalti.codec.image_file import encode_picture
from smalti.data.pictures import Picture, read_picture
from smalti.errors import CheckpointError, CodecError, ConfigError, DataError
from smalti.pipelines.codec import Codec, Rate

PICTURE = np.kron(discs(1, seed=6)[0], np.ones((2, 3, 1), np.uint8))[:29, :43]


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Codec]:
    """By channels, read from their files."""
    folder, found = tmp_path_factory.mktemp("codecs"), {}
    for channels in (1, 3, 4):
        path = write_codec(folder / f"{channels}.safetensors", trained_codec(channels=channels))
        found[channels] = Codec.from_pretrained(path)
    return found


@pytest.fixture
def codec(codecs: dict[int, Codec]) -> Codec:
    return codecs[3]


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    return -10 * math.log10(max(squared_error(found, wanted), 1e-9))


def test_load_gives_a_codec(codec: Codec) -> None:
    loaded = smalti.load(codec.path)
    assert type(loaded) is Codec
    assert loaded.card == codec.card
    assert loaded.decoders == ("faithful",)
    with pytest.raises(CheckpointError, match="is for Codec, not for GAN"):
        smalti.GAN.from_pretrained(codec.path)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_compressed_is_decompressed(codecs: dict[int, Codec], channels: int) -> None:
    image = discs(1, channels=channels, seed=6)[0]
    data = codecs[channels].compress(image)
    assert isinstance(read_header(data), TinyHeader)
    assert len(data) < image.nbytes / 4
    found = codecs[channels].decompress(data)
    assert (found.shape, found.dtype) == (image.shape, np.uint8)
    assert psnr(found, image) > 14
    assert codecs[channels].compress(image) == data


def test_pictures_of_every_python_form(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PICTURE).save(path)
    wanted = codec.compress(PICTURE, effort=0)
    for form in (path, str(path), path.read_bytes(), Image.open(path), Picture(PICTURE), PICTURE.copy()):
        assert codec.compress(form, effort=0) == wanted
    with pytest.raises(DataError, match=r"none\.png"):
        codec.compress(tmp_path / "none.png")
    with pytest.raises(DataError):
        codec.compress(PICTURE.astype(float))


def test_larger_qualities_take_more_bytes_and_are_better(codec: Codec) -> None:
    files = [codec.compress(PICTURE, quality=quality, effort=2) for quality in (5, 25, 45, 65)]
    assert sorted(files, key=len) == files
    errors = [psnr(codec.decompress(data), PICTURE) for data in files]
    assert errors == sorted(errors)


def test_more_effort_is_better_for_the_bytes(codec: Codec) -> None:
    """J of the file, as the search sees it."""
    costs = []
    for effort in (0, 2, 8):
        data = codec.compress(PICTURE, quality=50, effort=effort)
        error = squared_error(codec.decompress(data), PICTURE) * PICTURE.size * 4
        costs.append(error / (0.15 * (2 ** (1 - 50 / 16)) ** 2) + 8 * len(data))
    assert costs[2] < costs[1] < costs[0]


# --- Targets


@pytest.mark.parametrize("limit", [90, 120, 200, 400])
def test_files_are_as_large_as_asked_for_at_most(codec: Codec, limit: int) -> None:
    data = codec.compress(PICTURE, max_bytes=limit, effort=1)
    assert limit / 1.3 < len(data) <= limit
    header = read_header(data)
    assert isinstance(header, FullHeader)
    better = codec.compress(PICTURE, quality=header.step + 1, effort=1)
    assert len(better) > limit  # no quality was left out


def test_bits_a_pixel_count_every_byte(codec: Codec) -> None:
    pixels = PICTURE.shape[0] * PICTURE.shape[1]
    data = codec.compress(PICTURE, bpp=1.5, effort=1)
    assert 1.1 < len(data) * 8 / pixels <= 1.5
    assert data == codec.compress(PICTURE, max_bytes=int(1.5 * pixels / 8), effort=1)


@pytest.mark.parametrize("wanted", [18.0, 21.0, 23.0])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_are_as_good_as_asked_for_at_least(codecs: dict[int, Codec], channels: int, wanted: float) -> None:
    image = discs(1, channels=channels, seed=6)[0]
    if wanted > 20 and channels == 4:
        wanted -= 3  # this codec is not that good
    codec = codecs[channels]
    data = codec.compress(image, target_psnr=wanted, effort=1)
    assert psnr(codec.decompress(data), image) >= wanted - 1e-6
    header = read_header(data)
    worse = codec.compress(image, quality=max(header.step - 1, 1), effort=1)
    assert psnr(codec.decompress(worse), image) < wanted or header.step == 1


def test_the_psnr_of_codes_is_that_of_their_file(codecs: dict[int, Codec]) -> None:
    alpha = np.linspace(0, 255, PICTURE.shape[0] * PICTURE.shape[1]).astype(np.uint8).reshape(29, 43, 1)
    clear = np.concatenate([PICTURE, alpha], axis=2)
    for native, given in (
        (3, PICTURE),
        (3, PICTURE[..., :1]),
        (4, PICTURE),
        (4, clear),
        (1, PICTURE[..., :1]),
        (3, clear),
    ):
        codec = codecs[native]
        coded = encode_picture(codec.model, Picture(given), 30, effort=1)
        kept = min(given.shape[2], native)
        found = codec.decompress(codec.compress(given, quality=30, effort=1))
        if native == 3 and given.shape[2] == 4:
            assert np.array_equal(found[..., 3], clear[..., 3])
        assert codec.psnr(coded) == pytest.approx(psnr(found[..., :kept], given[..., :kept]), abs=0.01)


def test_targets_that_cannot_be_reached_name_the_nearest(codec: Codec) -> None:
    with pytest.raises(CodecError) as caught:
        codec.compress(PICTURE, max_bytes=30, effort=0)
    least = len(codec.compress(PICTURE, quality=1, effort=0))
    assert f"the smallest file of this picture has {least} bytes, more than the 30 asked for" in str(caught.value)
    with pytest.raises(CodecError, match=r"more than the 0 asked for"):
        codec.compress(PICTURE, bpp=0.001, effort=0)
    with pytest.raises(CodecError) as caught:
        codec.compress(PICTURE, target_psnr=60, effort=0)
    best = psnr(codec.decompress(codec.compress(PICTURE, quality=100, effort=0)), PICTURE)
    assert f"quality 100 of this picture has {best:.2f} dB, less than the 60 dB asked for" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"quality": 40, "bpp": 1.0}, "`quality` and `bpp` contradict each other"),
        ({"max_bytes": 40, "target_psnr": 30.0}, "`max_bytes` and `target_psnr` contradict each other"),
        ({"quality": 1, "max_bytes": 9, "bpp": 1.0}, "`quality` and `max_bytes` and `bpp` contradict"),
        ({"quality": 0}, "`quality` is 0, but must be from 1 to 100"),
        ({"quality": 101}, "from 1 to 100"),
        ({"max_bytes": 0}, "`max_bytes` is 0"),
        ({"bpp": -1.0}, "`bpp` is -1.0"),
        ({"bpp": float("inf")}, "`bpp` is inf"),
        ({"target_psnr": float("nan")}, "`target_psnr` is nan"),
        ({"effort": -1}, "`effort` is -1, but must be from 0 to 1000"),
        ({"effort": 1001}, "`effort` is 1001"),
    ],
)
def test_arguments_out_of_range_are_refused(codec: Codec, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        codec.compress(PICTURE, **arguments)


def test_a_rate_is_one_of_four() -> None:
    assert Rate() == Rate(None, None, None, None)
    for name in ("quality", "max_bytes", "bpp", "target_psnr"):
        assert getattr(Rate(**{name: 7}), name) == 7


# --- What belongs to a picture


@pytest.mark.parametrize("depth", [8, 16])
def test_exact_files_give_back_every_pixel(codec: Codec, depth: int) -> None:
    image = PICTURE.astype(np.uint16) * 257 + 11 if depth == 16 else PICTURE
    data = codec.compress(image, exact=True, effort=1)
    found = codec.decompress(data)
    assert found.dtype == image.dtype
    assert np.array_equal(found, image)
    assert len(data) < image.nbytes


def test_metadata_are_kept_or_left_out(codec: Codec, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a disc"
    profile = bytes(16) + b"RGB " + bytes(200)
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", exif=exif, icc_profile=profile, quality=95)
    found = codec.open(codec.compress(tmp_path / "a.jpg", effort=0))
    assert found.size == PICTURE.shape[:2]  # turned
    assert found.info["icc_profile"] == profile
    assert found.getexif()[0x010E] == "a disc"
    assert 0x0112 not in found.getexif()
    bare = codec.open(codec.compress(tmp_path / "a.jpg", effort=0, metadata=False))
    assert "exif" not in bare.info
    assert "icc_profile" not in bare.info
    assert np.array_equal(np.asarray(bare), np.asarray(found))


def test_reading_gives_pixels_and_metadata(codec: Codec) -> None:
    given = Picture(PICTURE, icc=b"icc", exif=b"MM\0*", xmp=b"<x/>")
    found = codec.read(codec.compress(given, effort=0))
    assert (found.icc, found.exif, found.xmp) == (given.icc, given.exif, given.xmp)
    assert found.pixels.shape == PICTURE.shape
    assert read_picture(found) is found


def test_a_grey_codec_refuses_colours(codecs: dict[int, Codec]) -> None:
    with pytest.raises(ConfigError, match="colours"):
        codecs[1].compress(PICTURE)


# --- Decoding


def test_a_file_of_another_model_names_both(codecs: dict[int, Codec]) -> None:
    data = codecs[3].compress(PICTURE, effort=0)
    with pytest.raises(CodecError) as caught:
        codecs[4].decompress(data, source="a.smt")
    assert f"a.smt was compressed with the model {codecs[3].card.digest[:16]}" in str(caught.value)
    assert codecs[4].card.digest[:16] in str(caught.value)


def test_a_decoder_that_the_model_lacks_is_refused(codec: Codec, tmp_path: Path) -> None:
    data = codec.compress(PICTURE, effort=0)
    for call in (codec.decompress, codec.open, codec.read):
        with pytest.raises(ConfigError, match=r"`decoder` is 'pleasing', but .* has faithful"):
            call(data, decoder="pleasing")
    with pytest.raises(ConfigError, match="pleasing"):
        codec.open_archive(tmp_path / "a.smt", decoder="pleasing")


def test_large_pictures_are_refused_by_their_header(codec: Codec) -> None:
    data = codec.compress(PICTURE, effort=0)
    with pytest.raises(CodecError, match="limit of 1,000 pixels"):
        codec.decompress(data, pixel_limit=1000)


# --- Archives


def test_archives_are_written_and_read(codec: Codec, tmp_path: Path) -> None:
    images = discs(9, seed=7)
    with codec.write_archive(tmp_path / "a.smt", quality=50, effort=1, per_block=4, classes=("a", "b")) as archive:
        for number, image in enumerate(images):
            archive.add(Picture(image), name=f"{number}.png", label=number % 2)
        archive.add(Picture(PICTURE), name="large")
    with codec.open_archive(tmp_path / "a.smt") as found:
        assert len(found) == 10
        assert found[9].pixels.shape == PICTURE.shape
        assert found[4].pixels.shape == (SIDE, SIDE, 3)
        assert found.reader.names is not None
        assert found.reader.names[9] == "large"
        alone = codec.decompress(codec.compress(images[4], quality=50, effort=1))
        assert psnr(found[4].pixels, alone) > 40
    for wrong in ({"quality": 0}, {"effort": -1}):
        with pytest.raises(ConfigError):
            codec.write_archive(tmp_path / "b.smt", **wrong)
    assert not (tmp_path / "b.smt").exists()
