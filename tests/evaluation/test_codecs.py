"""Curves of codecs: what is counted, how it is pooled, mosaics."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import pixels

from smalti.codec.image_codec import squared_error
from smalti.data.pictures import Picture
from smalti.errors import ConfigError, DataError
from smalti.evaluation import codecs
from smalti.evaluation.codecs import codec_curve, compare_codecs, mosaics, peer_curve
from smalti.pipelines.codec import Codec


def pooled(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    total = sum(squared_error(a, b) * b.size for a, b in zip(found, wanted, strict=True))
    return float(-10 * np.log10(total / sum(image.size for image in wanted)))


@pytest.mark.parametrize("name", codecs.PEERS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_peer_has_a_curve(name: str, channels: int) -> None:
    images = list(pixels(2, channels=channels))
    if codecs.PEERS[name].missing:
        pytest.skip(codecs.PEERS[name].missing)
    if channels not in codecs.PEERS[name].variants:
        with pytest.raises(ConfigError, match=f"it has no {channels} channels"):
            peer_curve(name, images)
        return
    curve = peer_curve(name, images, codecs.PEERS[name].qualities[::4])
    assert curve == sorted(curve)
    assert all(10 < size < 2000 and 8 < psnr <= codecs.EXACT for size, psnr in curve)


def test_a_curve_counts_whole_files_and_pools_the_error() -> None:
    images = [*pixels(2), np.asarray(Image.fromarray(pixels(1)[0]).resize((40, 8)))]
    files, found = 0, []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "WEBP", quality=40, method=6)
        files += len(file.getvalue())
        found.append(np.asarray(Image.open(file).convert("RGB")))
    ((size, psnr),) = peer_curve("webp", images, [40])
    assert size == pytest.approx(files / 3)
    assert psnr == pytest.approx(pooled(found, images))


def test_an_exact_image_has_a_finite_psnr() -> None:
    pytest.importorskip("imagecodecs")
    assert peer_curve("jxl", [np.zeros((8, 8, 3), np.uint8)], [0.5])[0][1] == codecs.EXACT


def test_an_encoder_s_options_can_be_given() -> None:
    images = list(pixels(2, side=32))
    calls: list[tuple[str, int, int | None]] = []
    fast = peer_curve("avif", images, [40, 70], options={"speed": 10}, progress=lambda *call: calls.append(call))
    assert fast != peer_curve("avif", images, [40, 70])
    assert calls[-1] == ("avif", 4, 4)


@pytest.mark.parametrize("channels", [3, 4])
def test_our_curve_is_that_of_our_files(codec: Path, clear_codec: Path, channels: int) -> None:
    model = Codec.from_pretrained(codec if channels == 3 else clear_codec)
    images = [*pixels(3, channels=channels), pixels(1, channels=channels)[0][:9]]
    data = [model.compress(Picture(image), quality=30, effort=0) for image in images]
    ((size, psnr),) = codec_curve(model, images, [30], effort=0)
    assert size == sum(map(len, data)) / 4
    assert psnr == pytest.approx(pooled([model.decompress(one) for one in data], images), abs=0.02)


def test_our_archive_is_counted_whole(codec: Path, tmp_path: Path) -> None:
    model, images = Codec.from_pretrained(codec), list(pixels(20))
    with model.write_archive(tmp_path / "all.smt", quality=30, effort=0, named=False) as archive:
        for image in images:
            archive.add(Picture(image))
    ((size, _),) = codec_curve(model, images, [30], effort=0, archive=True)
    assert size == (tmp_path / "all.smt").stat().st_size / 20
    assert size < codec_curve(model, images, [30], effort=0)[0][0]


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (16, 16)), (2, (16, 32)), (7, (48, 48)), (9, (48, 48)), (10, (48, 64))]
)
def test_a_mosaic_holds_every_image_once(count: int, shape: tuple[int, int]) -> None:
    images = list(pixels(count))
    ((sheet, parts),) = mosaics(images)
    assert sheet.shape == (*shape, 3)
    assert len(parts) == count
    for place, image in enumerate(images):
        assert np.array_equal(codecs._cut(sheet, place, image), image)


def test_mosaics_are_of_one_size_and_limited() -> None:
    assert [len(parts) for _, parts in mosaics(list(pixels(7)), 3)] == [3, 3, 1]
    with pytest.raises(DataError, match="must have one size"):
        mosaics([pixels(1)[0], pixels(1)[0][:9]])


def test_a_mosaic_saves_bytes() -> None:
    images = list(pixels(12))
    assert peer_curve("avif", images, [60], mosaic=100)[0][0] < peer_curve("avif", images, [60])[0][0] / 2


def test_what_cannot_be_measured(codec: Path) -> None:
    with pytest.raises(ConfigError, match="no codec 'webm' is known here; did you mean 'webp'"):
        peer_curve("webm", list(pixels(1)))
    model = Codec.from_pretrained(codec)
    for images in ([], [pixels(1)[0], pixels(1, channels=1)[0]]):
        for measure in (lambda i=images: peer_curve("webp", i), lambda i=images: codec_curve(model, i, [30])):
            with pytest.raises(DataError, match="channels, expected one number"):
                measure()


def test_a_comparison_says_how_it_was_measured(codec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "QUALITIES", 2)
    monkeypatch.setattr(codecs, "PEERS", {name: codecs.PEERS[name] for name in ("jpeg", "avif")})
    model = Codec.from_pretrained(codec)
    found = compare_codecs(model, list(pixels(3)), effort=0)
    assert list(found.files) == ["smalti", "JPEG", "AVIF"]
    assert list(found.archives) == ["smalti archive", "AVIF mosaic"]
    record = json.loads(json.dumps(found.record()))
    assert (record["images"], record["pixels"], record["channels"]) == (3, 768, 3)
    assert record["protocol"]["model"] == model.card.digest
    assert "premultiplied" not in record["protocol"]["psnr"]
    assert compare_codecs(model, [np.zeros((16, 80, 3), np.uint8)], effort=0).archives == {}
