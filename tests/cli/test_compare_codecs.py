"""`smalti compare-codecs`: a table, a page and a record."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import refused
from PIL import Image
from small_codecs import write_pictures
from small_runs import pixels

from smalti.evaluation import codecs


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few points of few codecs."""
    import dataclasses

    kept = {name: dataclasses.replace(codecs.PEERS[name], qualities=quality) for name, quality in (
        ("jpeg", (10, 90)), ("webp", (10, 90)), ("avif", (20, 80)),
    )}  # fmt: skip
    kept["jxl"] = dataclasses.replace(codecs.PEERS["jxl"], needs="no_such_module")
    monkeypatch.setattr(codecs, "PEERS", kept)
    monkeypatch.setattr(codecs, "QUALITIES", 3)


def test_a_table_and_a_page(smalti, codec: Path, few: None) -> None:
    write_pictures(Path("in"), count=8)
    Path("in/left/bad.png").write_bytes(b"no picture")
    done = smalti("compare-codecs", codec, "in", "--effort", 0, "--out", "page.html")
    assert done.code == 0, done.err
    heads = [line.split() for line in done.out.splitlines() if line.startswith("dB")]
    assert heads == [
        ["dB", "smalti", "JPEG", "WebP", "AVIF"],
        ["dB", "smalti", "archive", "AVIF", "mosaic"],
    ]
    assert "not measured: JPEG XL; no_such_module is not installed" in done.err
    assert "left/bad.png was left out: not an image" in done.err
    record = json.loads(Path("page.json").read_text())
    assert (record["record"], record["images"], record["pixels"], record["source"]) == (
        "codec-comparison", 8, 8 * 256, "in"
    )  # fmt: skip
    assert set(record["files"]) == {"smalti", "JPEG", "WebP", "AVIF"}
    page = Path("page.html").read_text()
    assert page.count("<svg") == 2
    assert "Not measured: JPEG XL" in page
    refused(smalti("compare-codecs", codec, "in", "--out", "page.html"), "page.html is already there")


def test_rgba_goes_without_jpeg_and_large_pictures_without_mosaics(smalti, clear_codec: Path, few: None) -> None:
    Path("in").mkdir()
    for number, picture in enumerate(pixels(2, channels=4)):
        Image.fromarray(picture).resize((70, 20)).save(f"in/{number}.png")
    done = smalti("compare-codecs", clear_codec, "in", "--effort", 0, "--count", 1)
    assert done.code == 0, done.err
    assert "not measured: JPEG; it has no alpha" in done.err
    assert [line.split() for line in done.out.splitlines() if line.startswith("dB")] == [
        ["dB", "smalti", "WebP", "AVIF"]
    ]
    assert "bytes per image of 1 images" in done.out


def test_what_cannot_be_is_one_line(smalti, codec: Path, trained: SimpleNamespace) -> None:
    write_pictures(Path("in"), count=2)
    Path("bad").mkdir()
    Path("bad/bad.png").write_bytes(b"no picture")
    refused(smalti("compare-codecs", codec, "in", "--out", "page.txt"), "give a name that ends in .html")
    refused(smalti("compare-codecs", codec, "in", "--count", 0), "--count is 0, but must be at least 1")
    refused(smalti("compare-codecs", codec, "in", "--effort", -1), "--effort is -1, but")
    refused(smalti("compare-codecs", trained.gan, "in"), "is a gan, which cannot compress pictures")
    said = smalti("compare-codecs", codec, "bad")
    assert said.code == 1
    assert "bad has no picture that can be read; the lines above say why" in said.err
