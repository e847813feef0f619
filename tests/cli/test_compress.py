"""`smalti compress`: files, trees, archives, data sources, and everything that can be wrong."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import one_line, refused
from PIL import Image
from small_codecs import exif, write_kinds, write_pictures
from small_runs import pixels, write_source

from smalti import pipelines
from smalti.codec import image_archive
from smalti.codec.archive import ArchiveReader, info
from smalti.codec.archive_writer import ArchiveWriter
from smalti.codec.container import Form
from smalti.pipelines.codec import Codec

FAST = ("--effort", 0)


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# A file for each picture


def test_a_folder_becomes_a_tree_of_small_files(smalti, codec: Path) -> None:
    write_pictures(Path("in"))
    Path("in/notes.txt").write_text("no picture")
    done = smalti("compress", codec, "in", "--out", "out")
    assert done.code == 0, done.err
    assert names_in(Path("out")) == sorted(f"{('left', 'right')[n % 2]}/{n}.smi" for n in range(12))
    rows = dict(
        line.split(maxsplit=1) for line in done.out.replace("bits per pixel", "bpp").splitlines() if " " in line
    )
    size = sum(path.stat().st_size for path in Path("out").rglob("*.smi"))
    assert rows["pictures"] == "12"
    assert rows["bpp"] == f"{8 * size / 12 / 256:.4g}"
    assert f"bytes out       {size:,} (" in done.out
    assert f"bytes in        {sum(path.stat().st_size for path in Path('in').rglob('*.png')):,}" in done.out
    assert rows["PSNR"].endswith(" dB")
    assert f"opening it needs the model {pipelines.load(codec).card.digest[:16]}" in done.err


def test_what_is_printed_is_what_the_files_hold(smalti, codec: Path) -> None:
    write_pictures(Path("in"), count=2)
    done = smalti("compress", codec, "in/left/0.png", "in/right/1.png", "--out", "out", *FAST)
    model = Codec.from_pretrained(codec)
    error = sum(
        np.square(model.decompress(Path(f"out/{n}.smi").read_bytes()) / 255 - original / 255).mean() / 2
        for n, original in enumerate(pixels(2))
    )
    assert f"PSNR            {-10 * np.log10(error):.2f} dB" in done.out


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (("--max-bytes", 60), lambda size, psnr: size <= 60),
        (("--bpp", 1.5), lambda size, psnr: size <= 1.5 * 256 / 8),
        (("--target-psnr", 20), lambda size, psnr: psnr >= 20),
        (("--quality", 70), lambda size, psnr: size > 0),
        (("--tune", 3), lambda size, psnr: size > 0),
        (("--exact",), lambda size, psnr: psnr == np.inf),
    ],
)
def test_rates(smalti, codec: Path, words: tuple[object, ...], holds) -> None:
    original = pixels(1)[0]
    Image.fromarray(original).save("disc.png")
    done = smalti("compress", codec, "disc.png", "--out", "disc.smi", *words, *FAST)
    assert done.code == 0, done.err
    data = Path("disc.smi").read_bytes()
    found = Codec.from_pretrained(codec).decompress(data)
    with np.errstate(divide="ignore"):
        assert holds(len(data), -10 * np.log10(np.square(found / 255 - original / 255).mean()))
    assert ("exact" in done.out) == ("--exact" in words)


def test_every_kind_of_picture(smalti, codec: Path) -> None:
    kinds = write_kinds(Path("in"))
    done = smalti("compress", codec, "in", "--out", "out", "--quality", 90, *FAST)
    assert done.code == 0, done.err
    model = Codec.from_pretrained(codec)
    found = {name: model.read(Path(f"out/{name}.smi").read_bytes()) for name in kinds}
    shapes = {name: (*picture.pixels.shape, picture.bit_depth) for name, picture in found.items()}
    assert shapes == {
        "colour": (20, 24, 3, 8), "grey": (20, 24, 1, 8), "clear": (20, 24, 4, 8), "deep": (20, 24, 1, 16),
        "palette": (20, 24, 3, 8), "cmyk": (20, 24, 3, 8), "moving": (20, 24, 3, 8), "turned": (24, 20, 3, 8),
    }  # fmt: skip
    with Image.open(kinds["clear"]) as clear:
        assert np.array_equal(found["clear"].pixels[..., 3], np.asarray(clear)[..., 3])
    # Turned once: like the picture itself turned, and no orientation is left.
    with Image.open(kinds["colour"]) as colour:
        upright = np.asarray(colour.transpose(Image.Transpose.ROTATE_270)).astype(float)
    assert np.abs(found["turned"].pixels - upright).mean() < 30
    turned = Image.Exif()
    turned.load(found["turned"].info()["exif"])
    assert dict(turned) == {0x010E: "a disc"}


def test_metadata_are_kept_unless_they_are_not_wanted(smalti, codec: Path) -> None:
    Image.fromarray(pixels(1)[0]).save("disc.png", exif=exif(description="a disc"))
    assert smalti("compress", codec, "disc.png", "--out", "with.smi", *FAST).code == 0
    assert smalti("compress", codec, "disc.png", "--out", "without.smi", "--no-metadata", *FAST).code == 0
    assert info("with.smi").parts["metadata"] > 0
    assert info("without.smi").form == Form.TINY


def test_names_that_would_be_the_same_get_numbers(smalti, codec: Path) -> None:
    for name in ("a/x.png", "a/X.jpg", "b/x.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(1)[0]).save(name)
    assert smalti("compress", codec, "a", "b", "--out", "out", *FAST).code == 0
    assert len(names_in(Path("out"))) == 3
    assert {name.lower() for name in names_in(Path("out"))} == {"x.smi", "x-2.smi", "x-3.smi"}


# Archives


def test_a_folder_becomes_an_archive_with_names_and_classes(smalti, codec: Path) -> None:
    write_pictures(Path("in"), count=22)
    done = smalti("compress", codec, "in", "--out", "all.smt", "--quality", 30, *FAST)
    assert done.code == 0, done.err
    assert "PSNR" in done.out
    with ArchiveReader("all.smt") as archive:
        assert archive.classes == ("left", "right")
        assert archive.names == tuple(
            [f"left/{n}.png" for n in range(0, 22, 2)] + [f"right/{n}.png" for n in range(1, 22, 2)]
        )
        assert archive.labels is not None
        assert archive.labels.tolist() == [0] * 11 + [1] * 11
        assert (archive.header.step, archive.header.per_block, archive.block_count) == (30, 16, 2)


def test_more_is_appended_with_the_settings_that_are_there(smalti, codec: Path) -> None:
    write_pictures(Path("in"), count=4)
    assert smalti("compress", codec, "in", "--out", "all.smt", "--quality", 30, "--per-block", 1, *FAST).code == 0
    first = Path("all.smt").stat().st_size
    write_pictures(Path("more"), count=3, classes=("right", "left"))
    done = smalti("compress", codec, "more", "--out", "all.smt", "--append", *FAST)
    assert done.code == 0, done.err
    assert f"bytes out       {Path('all.smt').stat().st_size - first:,} " in done.out
    with ArchiveReader("all.smt") as archive:
        assert archive.labels is not None
        assert archive.labels.tolist() == [0, 0, 1, 1, 0, 1, 1]
        assert (archive.header.step, archive.header.per_block, archive.block_count) == (30, 1, 7)
    write_pictures(Path("others"), count=2, classes=("up", "left"))
    refused(smalti("compress", codec, "others", "--out", "all.smt", "--append"), "has no class 'up'; its classes are")
    said = one_line(smalti("compress", codec, "more", "--out", "all.smt", "--append", "--quality", 50))
    assert "step 30, not 50" in said


@pytest.mark.parametrize("kind", ["npz", "zip", "smt"])
def test_data_sources_are_compressed_too(smalti, codec: Path, kind: str, tmp_path: Path) -> None:
    if kind == "npz":
        source = write_source(tmp_path / "discs.npz", count=6)
    else:
        write_pictures(Path("in"), count=6)
        source = tmp_path / f"discs.{kind}"
        if kind == "smt":
            assert smalti("compress", codec, "in", "--out", source, *FAST).code == 0
            (tmp_path / "model.safetensors").write_bytes((codec / "last.safetensors").read_bytes())
        else:
            import shutil

            shutil.make_archive("discs", "zip", "in")
    done = smalti("compress", codec, source, "--out", "all.smt", *FAST)
    assert done.code == 0, done.err
    with ArchiveReader("all.smt") as archive:
        assert len(archive) == 6
        assert len(archive.classes) == 2
        assert archive.labels is not None
        assert sorted(archive.labels.tolist()) == [0, 0, 0, 1, 1, 1]


def test_splits_of_a_source_become_folders_of_names(smalti, codec: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", x_train=pixels(3), x_test=pixels(2))
    assert smalti("compress", codec, "two.npz", "--out", "both.smt", *FAST).code == 0
    with ArchiveReader("both.smt") as archive:
        assert archive.names == ("train/00000", "train/00001", "train/00002", "test/00000", "test/00001")
    assert smalti("compress", codec, "two.npz", "--split", "test", "--out", "test", *FAST).code == 0
    assert names_in(Path("test")) == ["test/00000.smi", "test/00001.smi"]


# What is wrong


def test_a_bad_picture_is_reported_and_the_rest_goes_on(smalti, codec: Path) -> None:
    write_pictures(Path("in"), count=4)
    Path("in/left/empty.png").write_bytes(b"")
    Path("in/right/cut.png").write_bytes(Path("in/left/0.png").read_bytes()[:60])
    for out in ("out", "out.smt"):
        done = smalti("compress", codec, "in", "--out", out, *FAST)
        assert done.code == 1
        assert done.err.count("smalti: error: ") == 2
        assert "left/empty.png was left out: " in done.err
        assert "right/cut.png was left out: " in done.err
        assert "pictures        4, 2 left out" in done.out
    with ArchiveReader("out.smt") as archive:
        assert len(archive) == 4


def test_nothing_but_bad_pictures_leaves_nothing(smalti, codec: Path) -> None:
    Path("in").mkdir()
    for name in ("a.png", "b.png"):
        Path("in", name).write_bytes(b"no picture")
    for out in ("out", "out.smt"):
        done = smalti("compress", codec, "in", "--out", out)
        assert done.code == 1
        assert "no image could be compressed; the lines above say why" in done.err
        assert not Path(out).exists()


def test_what_is_there_stays_there(smalti, codec: Path) -> None:
    write_pictures(Path("in"), count=2)
    Path("out/left").mkdir(parents=True)
    for name in ("out/left/0.smi", "there.smt", "there.smi"):
        Path(name).write_text("precious")
    for images, out in (("in", "out"), ("in", "there.smt"), ("in/left/0.png", "there.smi")):
        refused(smalti("compress", codec, images, "--out", out, *FAST), "there")
    assert names_in(Path("out")) == ["left/0.smi"]
    assert Path("there.smt").read_text() == "precious"
    for images, out in (("in", "out"), ("in", "there.smt"), ("in/left/0.png", "there.smi")):
        assert smalti("compress", codec, images, "--out", out, "--overwrite", *FAST).code == 0
    refused(smalti("compress", codec, "there.smt", "--out", "there.smt", "--overwrite"), "is one of the images itself")
    with ArchiveReader("there.smt") as archive:
        assert len(archive) == 2


def test_a_full_disk_leaves_what_was_written(smalti, codec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(Path("in"), count=12)
    write, room = ArchiveWriter._write, [7]  # the header and six blocks

    def full(self: ArchiveWriter, data: bytes) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(image_archive, "LANES", 2)
        patched.setattr(image_archive, "FEWEST_LANES", 2)
        patched.setattr(ArchiveWriter, "_write", full)
        done = smalti("compress", codec, "in", "--out", "all.smt", "--per-block", 1, *FAST)
    refused(done, "No space left on device), its first 6 images are safe; free some space, and append the others")
    with ArchiveReader("all.smt") as archive:
        assert (len(archive), archive.indexed) == (6, False)
    assert smalti("compress", codec, "in/right", "--out", "all.smt", "--append", *FAST).code == 0
    with ArchiveReader("all.smt") as archive:
        assert (len(archive), archive.indexed) == (12, True)


def test_an_interruption_says_what_is_there(
    smalti, codec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(Path("in"), count=12)
    monkeypatch.setattr(image_archive, "LANES", 2)
    monkeypatch.setattr(image_archive, "FEWEST_LANES", 2)
    add = image_archive.ImageArchiveWriter.add

    def interrupted(self, picture, *, name: str, label: int) -> None:
        if name == "right/3.png":
            raise KeyboardInterrupt
        add(self, picture, name=name, label=label)

    monkeypatch.setattr(image_archive.ImageArchiveWriter, "add", interrupted)
    with pytest.raises(SystemExit, match="130"):
        smalti("compress", codec, "in", "--out", "all.smt", "--per-block", 1, *FAST)
    assert "stopped: all.smt holds 6 images, and --append adds the others" in capsys.readouterr().err
    with ArchiveReader("all.smt") as archive:
        assert len(archive) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-bytes", 7), "bytes, more than the 7 asked for; allow more, or make the picture smaller"),
        (("--target-psnr", 90), "less than the 90 dB asked for; ask for less, or give --exact"),
        (("--quality", 101), "--quality is 101, but must be from 1 to 100"),
        (("--quality", 0), "--quality is 0, but"),
        (("--bpp", -1), "--bpp is -1.0, but must be a number above 0"),
        (("--bpp", "nan"), "--bpp is nan, but must be a number above 0"),
        (("--bpp", 1, "--quality", 3), "--quality and --bpp contradict each other; give one of them"),
        (("--effort", -1), "--effort is -1, but must be from 0"),
        (("--append",), "--per-block and --append are for archives, but --out is out"),
        (("--split", "train"), "is one image, which has no splits; leave --split out"),
    ],
)
def test_what_cannot_be_is_one_line(smalti, codec: Path, words: tuple[object, ...], said: str) -> None:
    Image.fromarray(pixels(1)[0]).save("disc.png")
    refused(smalti("compress", codec, "disc.png", "--out", "out", *FAST[: 2 * ("--effort" not in words)], *words), said)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-bytes", 60), "--max-bytes is not for archives, whose pictures have one --quality"),
        (("--exact",), "--exact is not for archives"),
        (("--tune", 5), "--tune is not for archives"),
        (("--append",), "there is no out.smt to append to; leave --append out to begin it"),
    ],
)
def test_archives_have_one_quality(smalti, codec: Path, words: tuple[object, ...], said: str) -> None:
    Image.fromarray(pixels(1)[0]).save("disc.png")
    refused(smalti("compress", codec, "disc.png", "--out", "out.smt", *words), said)


def test_places_that_are_wrong(smalti, codec: Path) -> None:
    write_pictures(Path("in"), count=2)
    Path("empty").mkdir()
    Path("file").write_text("no picture")
    refused(smalti("compress", codec, "nowhere", "--out", "out"), "nowhere: there is no such file")
    refused(smalti("compress", codec, "file", "--out", "out"), "file: not an image")
    refused(smalti("compress", codec, "empty", "--out", "out"), "holds no images")
    refused(smalti("compress", codec, "in", "--out", "file"), "file is a file; give --out a folder")
    refused(smalti("compress", codec, "in", "--out", "one.smi"), "--out is one.smi, but there are 2 pictures")
    refused(smalti("compress", codec, "in", "--split", "test", "--out", "out"), "has no splits")
    assert "IMAGES requires an argument" in smalti("compress", codec, "--out", "out").err


def test_pictures_that_no_codec_can_take(smalti, codec: Path, grey_codec: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels(1)[0]).save("disc.png")
    refused(smalti("compress", grey_codec, "disc.png", "--out", "out"), "but this codec is for grey ones")
    (tmp_path / "huge.pgm").write_bytes(b"P5 1000000 1000000 255\n")
    refused(smalti("compress", codec, "huge.pgm", "--out", "out"), "declares more than")
    (tmp_path / "none.pgm").write_bytes(b"P5 0 7 255\n")
    refused(smalti("compress", codec, "none.pgm", "--out", "out"), "none.pgm: ")


def test_models_that_are_no_codec(smalti, trained: SimpleNamespace) -> None:
    write_pictures(Path("in"), count=2)
    refused(
        smalti("compress", trained.vqvae, "in", "--out", "out"),
        "is a vqvae, whose codes do not become a file",
    )
    refused(smalti("compress", trained.gan, "in", "--out", "out"), "is a gan, which cannot compress pictures; give a")
    refused(smalti("compress", "nowhere", "in", "--out", "out"), "there is no nowhere")
