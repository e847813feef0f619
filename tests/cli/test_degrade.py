"""`smalti degrade`: trees of pictures, their metadata and holes, bad files, files that must not be lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import folder, one_line, refused
from PIL import Image
from small_codecs import exif, write_kinds
from small_runs import pixels

from smalti.config.degradation import parse_degradation
from smalti.data.degrade import degrade

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6" b="c"/></x:xmpmeta>'
ICC = b"x" * 16 + b"RGB " + b"x" * 100


def names_in(place: str) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in Path(place).rglob("*") if path.is_file())


def contents(place: str) -> dict[str, bytes]:
    return {name: (Path(place) / name).read_bytes() for name in names_in(place)}


def array(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_tree_of_pictures_is_degraded_as_the_library_does_it(smalti) -> None:
    folder(Path("in/cats"), count=2)
    folder(Path("in/dogs/big"), count=1, seed=1)
    done = smalti("degrade", "blur(1) noise(5..20)", "in", "--out", "out", "--seed", 7)
    assert done.code == 0, done.err
    assert names_in("out") == names_in("in") == ["cats/000.png", "cats/001.png", "dogs/big/000.png"]
    assert "3 pictures, by blur(1) noise(5..20), seed 7: out" in done.err
    lines = done.out.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines):
        name, _, said = line.partition("  ")
        applied = parse_degradation(said)
        assert [step.name for step in applied.steps] == ["blur", "noise"]
        wanted = degrade(array(Path("in") / name), applied, seed=7, number=number)
        assert np.array_equal(array(Path("out") / name), wanted.image)
    assert len(set(lines)) == 3


def test_a_seed_gives_the_same_files_and_another_others(smalti) -> None:
    folder(Path("in"), count=3)
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert smalti("degrade", "second-order", "in", "--out", place, "--seed", seed).code == 0
    assert contents("a") == contents("b")
    assert all(contents("a")[name] != data for name, data in contents("c").items())


def test_holes_are_masks_beside(smalti) -> None:
    folder(Path("in/deep"), count=1, side=24)
    shutil.copy("in/deep/000.png", "in/deep/000.bmp.png")
    Image.open("in/deep/000.png").convert("L").save("in/deep/000.webp")
    done = smalti("degrade", "mask(boxes|strokes,0.2..0.3)", "in", "--out", "out")
    assert done.code == 0, done.err
    stems = ("deep/000", "deep/000-2", "deep/000.bmp")
    assert names_in("out") == sorted(f"{stem}{end}" for stem in stems for end in (".png", ".mask.png"))
    mask, picture = array("out/deep/000.mask.png"), array("out/deep/000.png")
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    assert 0.15 < (mask == 255).mean() < 0.35
    assert (picture[mask == 255] == 128).all()
    assert np.array_equal(picture[mask == 0], array("in/deep/000.png")[mask == 0])
    assert smalti("degrade", "noise(3)", "in", "--out", "plain").code == 0
    assert not [name for name in names_in("plain") if "mask" in name]


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_every_kind_of_picture_in_every_format(smalti, format: str) -> None:
    kinds = write_kinds(Path("in"))
    done = smalti("degrade", "down(2) noise(3)", "in", "--out", "out", "--format", format)
    assert done.code == (1 if format == "jpeg" else 0)
    assert ("clear.png was left out: JPEG has no alpha; choose png or webp" in done.err) == (format == "jpeg")
    for name in kinds:
        target = Path(f"out/{name}.{format}")
        if (name, format) == ("clear", "jpeg"):
            assert not target.exists()
            continue
        with Image.open(target) as image:
            assert image.size == ((10, 12) if name == "turned" else (12, 10))
            assert image.format == format.upper()
            assert (image.mode == "I;16") == (name == "deep" and format == "png")
            assert (image.mode == "RGBA") == (name == "clear")


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_metadata_are_kept_without_an_orientation(smalti, format: str) -> None:
    image = Image.fromarray(pixels(1)[0][:12])
    image.save("in.jpg", exif=exif(orientation=8, description="a disc"), icc_profile=ICC, xmp=XMP)
    assert smalti("degrade", "jpeg(30)", "in.jpg", "--out", "out", "--format", format).code == 0
    with Image.open(f"out/in.{format}") as found:
        assert found.size == (12, 16)
        found.load()
        assert found.info["icc_profile"] == ICC
        assert dict(found.getexif()) == {0x010E: "a disc"}
        assert found.info["xmp"] == XMP.replace(b'tiff:Orientation="6"', b"")


def test_bad_files_are_reported_and_the_rest_goes_on(smalti) -> None:
    folder(Path("in"), count=2)
    Path("in/broken.png").write_bytes(b"no picture")
    done = smalti("degrade", "grey", "in", "nowhere.png", "--out", "out")
    assert done.code == 1
    assert "broken.png was left out: not an image" in done.err
    assert "nowhere.png was left out: there is no such file" in done.err
    assert "2 pictures, 2 left out" in done.err
    assert names_in("out") == ["000.png", "001.png"]
    refused(smalti("degrade", "grey", "in/broken.png", "--out", "none"), "broken.png: not an image")
    Path("in/broken.jpg").write_bytes(b"nor this")
    done = smalti("degrade", "grey", "in/broken.png", "in/broken.jpg", "--out", "none")
    assert done.code == 1
    assert "no picture could be degraded; the lines above say why" in done.err
    assert not Path("none").exists()


def test_a_picture_that_would_become_too_large_is_a_bad_one(smalti) -> None:
    Image.new("L", (16384, 2)).save("wide.png")
    folder(Path("in"), count=1)
    done = smalti("degrade", "webp(50)", "wide.png", "in", "--out", "out")
    assert done.code == 1
    assert "wide.png was left out: the picture has 2x16384 pixels, but webp at most 16383 a side" in done.err


def test_nothing_is_replaced_unless_that_is_asked_for(smalti) -> None:
    folder(Path("in"), count=2)
    Path("out").mkdir()
    Path("out/001.mask.png").write_text("mine")
    said = "out/001.mask.png is already there; give another --out, or --overwrite to replace it"
    refused(smalti("degrade", "mask(text,0.1)", "in", "--out", "out"), said)
    assert names_in("out") == ["001.mask.png"]
    assert smalti("degrade", "mask(text,0.1)", "in", "--out", "out", "--overwrite").code == 0
    assert len(names_in("out")) == 4


def test_the_pictures_themselves_are_never_replaced(smalti) -> None:
    folder(Path("in"), count=2)
    kept = contents("in")
    Path("linked").symlink_to("in")
    for out in ("in", "linked", "in/../in"):
        said = one_line(smalti("degrade", "noise(50)", "in", "--out", out, "--overwrite"))
        assert "is one of the pictures itself; give another --out" in said
    refused(smalti("degrade", "noise(50)", "in/000.png", "--out", "in", "--overwrite"), "one of the pictures itself")
    assert contents("in") == kept


def test_data_sources_are_pictures_too(smalti) -> None:
    np.savez("images.npz", images=pixels(3))
    done = smalti("degrade", "down(2)", "images.npz", "--out", "out")
    assert done.code == 0, done.err
    assert len(names_in("out")) == 3
    assert all(array(Path("out") / name).shape == (8, 8, 3) for name in names_in("out"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("noize(5)", "in"), "there is no degradation 'noize'; did you mean 'noise'?"),
        (("noise(500)", "in"), "S of noise is 500, but must be from 0 to 255"),
        (("", "in"), "a degradation has no steps"),
        (("noise(5)" * 1000, "in"), "may have at most 2,000"),
        (("noise(5)", "empty"), "empty"),
        (("noise(5)", "in", "--out", "file"), "file is a file; give --out a folder"),
    ],
)
def test_mistakes_are_one_line(smalti, words: tuple[str, ...], said: str) -> None:
    folder(Path("in"), count=1)
    Path("empty").mkdir()
    Path("file").write_text("mine")
    refused(smalti("degrade", *words, *(() if "--out" in words else ("--out", "out"))), said)
    assert not Path("out").exists()


def test_what_is_missing_or_unknown_is_said(smalti) -> None:
    for words in (("noise(5)",), ("noise(5)", "in"), ("noise(5)", "in", "--out", "out", "--format", "gif")):
        done = smalti("degrade", *words)
        assert done.code in (1, 2)
        one_line(done)
