"""`smalti decompress`: pictures, archives, models by digest, damage."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import refused
from PIL import Image, ImageOps
from small_codecs import exif, write_kinds, write_pictures
from small_runs import pixels
from zoo_files import write_zoo

from smalti.codec.archive import ArchiveReader
from smalti.codec.container import FullHeader, read_single, write_single
from smalti.data.pictures import Picture
from smalti.pipelines.codec import Codec

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6" b="c"/></x:xmpmeta>'
ICC = b"x" * 16 + b"RGB " + b"x" * 100


@pytest.fixture
def packed(smalti, codec: Path) -> Path:
    """An archive of eight pictures in two classes, its model beside it."""
    write_pictures(Path("in"), count=8)
    assert smalti("compress", codec, "in", "--out", "all.smt", "--per-block", 1, "--effort", 0).code == 0
    shutil.copy(codec / "last.safetensors", "model.safetensors")
    return Path("all.smt")


def names_in(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_a_tree_comes_back_with_the_model_that_is_given(smalti, codec: Path) -> None:
    write_pictures(Path("in"), count=4)
    assert smalti("compress", codec, "in", "--out", "small", "--effort", 0).code == 0
    done = smalti("decompress", "small", "--model", codec, "--out", "out")
    assert done.code == 0, done.err
    assert "4 pictures: out" in done.err
    assert names_in("out") == ["left/0.png", "left/2.png", "right/1.png", "right/3.png"]
    model = Codec.from_pretrained(codec)
    with Image.open("out/right/3.png") as image:
        assert np.array_equal(np.asarray(image), model.decompress(Path("small/right/3.smi").read_bytes()))
    refused(smalti("decompress", "small", "--model", codec, "--out", "out"), "out/left/0.png is already there")
    assert smalti("decompress", "small", "--model", codec, "--out", "out", "--overwrite").code == 0


def test_the_model_is_found_in_the_zoo_and_beside_the_file(
    smalti, codec: Path, clear_codec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(Path("in"), count=2)
    assert smalti("compress", codec, "in", "--out", "small", "--effort", 0).code == 0
    digest = Codec.from_pretrained(codec).card.digest
    refused(
        smalti("decompress", "small/left/0.smi", "--out", "a.png"),
        f"small/left/0.smi was compressed with the model {digest[:4]}, which is neither in its folder nor in the zoo; "
        "give --model FILE, the file of the model that compressed it, or copy that beside it",
    )
    lines = smalti("decompress", "small", "--out", "none").err.splitlines()
    assert [line.split(": error: ")[1][:20] for line in lines] == [
        "small/left/0.smi was", "1 more files of the ", "no picture could be "
    ]  # fmt: skip
    refused(
        smalti("decompress", "small/left/0.smi", "--model", clear_codec, "--out", "a.png"),
        f"was compressed with the model {digest[:4]}, but this is the model",
    )
    runs = {"other": clear_codec / "last.safetensors", "tiny": codec / "last.safetensors"}
    with monkeypatch.context() as patched:
        write_zoo(tmp_path / "zoo", patched, **runs)
        assert smalti("decompress", "small", "--out", "by-zoo").code == 0
    shutil.copy(codec / "last.safetensors", "small/mine.safetensors")
    Path("small/broken.safetensors").write_bytes(b"no model")
    assert smalti("decompress", "small", "--out", "by-folder").code == 0
    assert names_in("by-zoo") == names_in("by-folder") == ["left/0.png", "right/1.png"]


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_every_kind_of_picture_in_every_format(smalti, codec: Path, format: str) -> None:
    kinds = write_kinds(Path("in"))
    assert smalti("compress", codec, "in", "--out", "small", "--exact", "--effort", 0).code == 0
    done = smalti("decompress", "small", "--model", codec, "--out", "out", "--format", format)
    assert done.code == (1 if format == "jpeg" else 0)
    assert ("JPEG has no alpha; choose png or webp" in done.err) == (format == "jpeg")
    for name, path in kinds.items():
        target = Path(f"out/{name}.{format}")
        if not target.exists():
            assert (name, format) == ("clear", "jpeg")
            continue
        with Image.open(path) as before, Image.open(target) as after:
            assert after.getexif().get(0x0112, 1) == 1
            upright = ImageOps.exif_transpose(before)
            assert after.size == upright.size
            if format == "jpeg":
                continue
            if name == "deep":
                deep = np.asarray(upright).astype(np.int64)
                wanted = deep if format == "png" else np.repeat(((deep + 128) // 257)[..., None], 3, axis=2)
            else:
                wanted = np.asarray(upright.convert(after.mode))
            assert np.array_equal(np.asarray(after), wanted)


@pytest.mark.parametrize("format", ["png", "webp", "jpg"])
def test_metadata_come_back_without_an_orientation(smalti, codec: Path, format: str) -> None:
    image = Image.fromarray(pixels(1)[0][:12])
    image.save("in.jpg", exif=exif(orientation=8, description="a disc"), icc_profile=ICC, xmp=XMP)
    assert smalti("compress", codec, "in.jpg", "--out", "small.smi").code == 0
    assert smalti("decompress", "small.smi", "--model", codec, "--out", f"out.{format}").code == 0
    with Image.open(f"out.{format}") as found:
        assert found.size == (12, 16)
        found.load()
        assert found.info["icc_profile"] == ICC
        assert dict(found.getexif()) == {0x010E: "a disc"}
        assert found.info["xmp"] == XMP.replace(b'tiff:Orientation="6"', b"")
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(found)), np.asarray(found))


def test_an_archive_comes_back_in_its_folders(smalti, packed: Path) -> None:
    done = smalti("decompress", packed, "--out", "out")
    assert done.code == 0, done.err
    assert names_in("out") == sorted(f"{('left', 'right')[n % 2]}/{n}.png" for n in range(8))
    some = smalti("decompress", packed, "--images", "0,5,6-7", "--format", "webp", "--out", "some")
    assert "4 pictures: some" in some.err
    assert names_in("some") == ["left/0.webp", "right/3.webp", "right/5.webp", "right/7.webp"]
    assert smalti("decompress", packed, "--images", 3, "--out", "one.png").code == 0
    with Image.open("one.png") as one, Image.open("out/left/6.png") as same:
        assert np.array_equal(np.asarray(one), np.asarray(same))
    shutil.copy(packed, "more.smt")
    assert smalti("decompress", packed, "more.smt", "--out", "both").code == 0
    assert {name.split("/")[0] for name in names_in("both")} == {"all", "more"}


def test_images_without_names_are_numbered(smalti, codec: Path) -> None:
    model = Codec.from_pretrained(codec)
    for name, classes in (("plain", ()), ("classes", ("left", "right"))):
        with model.write_archive(f"{name}.smt", named=False, classes=classes, effort=0) as archive:
            for number, image in enumerate(pixels(3)):
                archive.add(Picture(image), label=number % 2 if classes else -1)
        assert smalti("decompress", f"{name}.smt", "--model", codec, "--out", name).code == 0
    assert names_in("plain") == ["00000.png", "00001.png", "00002.png"]
    assert names_in("classes") == ["left/00000.png", "left/00002.png", "right/00001.png"]


def test_names_cannot_leave_the_folder(smalti, codec: Path, tmp_path: Path) -> None:
    names = ("../out.png", "/etc/x.png", "c:x.png", "a\0b", "same.png", "SAME.jpg", "v1.2")
    with Codec.from_pretrained(codec).write_archive("bad.smt", effort=0) as archive:
        for name, image in zip(names, pixels(len(names)), strict=True):
            archive.add(Picture(image), name=name)
    done = smalti("decompress", "bad.smt", "--model", codec, "--out", "deep/out")
    assert done.code == 0
    assert done.err.count("has a bad name and becomes") == 4
    assert names_in("deep") == sorted(
        ["out/00000.png", "out/00001.png", "out/00002.png", "out/00003.png", "out/same.png", "out/SAME-2.png",
         "out/v1.2.png"]
    )  # fmt: skip


def test_damaged_images_are_reported_and_the_others_written(smalti, packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    with ArchiveReader(packed) as archive:
        payload = archive.read_block(3).payload
    data[data.index(payload) + 2] ^= 0xFF
    Path("bad.smt").write_bytes(data)
    done = smalti("decompress", "bad.smt", "--out", "out")
    assert done.code == 1
    assert "image 3 of bad.smt was left out: it cannot be read" in done.err
    assert "7 pictures, 1 left out: out" in done.err
    assert len(names_in("out")) == 7
    Path("cut.smt").write_bytes(packed.read_bytes()[: len(data) // 2])
    done = smalti("decompress", "cut.smt", "--out", "half")
    assert done.code == 1
    assert "cut.smt is damaged in " in done.err
    assert len(names_in("half")) >= 2


def test_bad_files_are_refused_one_by_one(smalti, codec: Path, packed: Path) -> None:
    good = smalti("compress", codec, "in/left/0.png", "--out", "good.smi", "--exact", "--effort", 0)
    assert good.code == 0
    data = Path("good.smi").read_bytes()
    bad = {
        "zero": (b"", "is empty; get or make it again"),
        "cut": (data[:-7], "was cut short: it has"),
        "more": (data + b"x", "1 bytes follow its last chunk"),
        "newer": (data[:2] + b"\xf2" + data[3:], "was written by a newer version of smalti"),
        "other": (b"GIF89a" + data, "begins with 47 49 46, but a compressed file with 9e 53"),
        "flipped": (data[:60] + bytes([data[60] ^ 1]) + data[61:], "does not match its checksum"),
    }
    for name, (content, said) in bad.items():
        Path(f"{name}.smi").write_bytes(content)
        refused(smalti("decompress", f"{name}.smi", "--model", codec, "--out", "x.png"), said)
        assert not Path("x.png").exists()
    done = smalti("decompress", *(f"{name}.smi" for name in bad), "good.smi", "--model", codec, "--out", "out")
    assert done.code == 1
    assert done.err.count("was left out") == len(bad)
    assert names_in("out") == ["good.png"]
    refused(smalti("decompress", "nowhere.smi", "--out", "x"), "cannot read nowhere.smi (No such file or directory)")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("all.smt", "--images", "3-1"), "--images has 3-1, but the archive has images 0 to 7"),
        (("all.smt", "--images", "0,8"), "--images has 8, but the archive has images 0 to 7"),
        (("all.smt", "--images", "one"), "--images is 'one', expected numbers and ranges such as 0,5,7-9"),
        (("all.smt", "--decoder", "pleasing"), "--decoder is 'pleasing', but"),
        (("all.smt", "--out", "x.png"), "--out is x.png, but the archive has 8 pictures; give a folder, or --images 0"),
        (("all.smt", "--out", "x.bmp"), "x.bmp is no name of a picture file that can be written"),
        (("all.smt", "all.smt", "--out", "x.png"), "--out is x.png, but there are 2 files; give a folder"),
        (("all.smt", "--out", "notes"), "notes is a file; give --out a folder"),
        (("in",), "in holds no .smi and no .smt files"),
        (("one.smi", "--images", "0"), "one.smi is one picture; leave --images out, which is for archives"),
        (("one.smi", "--pixel-limit", "100"), "is above the limit of 100 pixels"),
        (("one.smi", "--model", "in"), "the folder in holds no checkpoint"),
    ],
)
def test_what_cannot_be_is_one_line(smalti, codec: Path, packed: Path, words: tuple[str, ...], said: str) -> None:
    Path("notes").write_text("mine")
    if "one.smi" in words:
        assert smalti("compress", codec, "in/left/0.png", "--out", "one.smi", "--exact", "--effort", 0).code == 0
    out = () if "--out" in words else ("--out", "out")
    refused(smalti("decompress", *words, *out), said)
    assert not Path("out").exists()


def test_a_header_of_a_huge_picture_is_refused_before_memory_is_taken(smalti, codec: Path) -> None:
    model = Codec.from_pretrained(codec)
    data = model.compress(np.zeros((20, 200, 3), np.uint8), effort=0)
    header, chunks = read_single(data)
    assert isinstance(header, FullHeader)
    large = dataclasses.replace(header, width=900_000, height=900_000)
    Path("huge.smi").write_bytes(write_single(large, chunks, pixel_limit=10**13))
    refused(
        smalti("decompress", "huge.smi", "--model", codec, "--out", "x.png"), "is above the limit of 89,478,485 pixels"
    )
