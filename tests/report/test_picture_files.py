"""Pictures as image files; how metadata come back is in tests/cli/test_decompress.py."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import pixels

from smalti.data.pictures import Picture
from smalti.errors import ConfigError, DataError, OutputError
from smalti.report.picture_files import FORMATS, format_of, save_picture


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("format", ["png", "webp"])
def test_formats_without_loss(channels: int, format: str, tmp_path: Path) -> None:
    image = pixels(1, channels=channels)[0]
    path = tmp_path / "new" / f"x.{format}"
    save_picture(path, Picture(image), format=format)
    with Image.open(path) as found:
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        assert np.array_equal(np.asarray(found.convert(mode)), image.squeeze())


def test_webp_rounds_16_bits_and_png_keeps_them(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8, 1)
    save_picture(tmp_path / "grey.png", Picture(deep))
    save_picture(tmp_path / "colour.webp", Picture(np.repeat(deep, 3, axis=2)), format="webp")
    with Image.open(tmp_path / "grey.png") as grey, Image.open(tmp_path / "colour.webp") as colour:
        assert np.array_equal(np.asarray(grey), deep[..., 0])
        assert np.array_equal(np.asarray(colour)[..., 0], np.rint(deep[..., 0] / 257))


def test_jpeg_has_no_alpha(tmp_path: Path) -> None:
    save_picture(tmp_path / "x.jpg", Picture(pixels(1)[0]), format="jpeg")
    with pytest.raises(DataError, match="JPEG has no alpha; choose png or webp"):
        save_picture(tmp_path / "y.jpg", Picture(pixels(1, channels=4)[0]), format="jpeg")
    assert [path.name for path in tmp_path.iterdir()] == ["x.jpg"]


def test_names_ask_for_formats() -> None:
    assert {format_of(Path(f"x.{name}")) for name in ("png", "PNG", "webp", "jpg", "jpeg")} == set(FORMATS)
    with pytest.raises(ConfigError, match=r"x\.pgn is no name .* did you mean 'png'"):
        format_of(Path("x.pgn"))


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match=r"cannot write .*x\.png \(No space left on device\)"):
        save_picture(tmp_path / "x.png", Picture(pixels(1)[0]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_the_resolution_is_kept(format: str, tmp_path: Path) -> None:
    picture = Picture(np.zeros((4, 4, 3), np.uint8), dpi=(300.0, 150.0))
    save_picture(tmp_path / "x", picture, format=format)
    with Image.open(tmp_path / "x") as image:
        exif = image.getexif()
        found = (exif[0x011A], exif[0x011B]) if format == "webp" else image.info["dpi"]
    assert tuple(map(float, found)) == pytest.approx((300, 150), abs=0.1)


def test_a_resolution_in_the_exif_is_left_alone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x011A], exif[0x010E] = 72.0, "a disc"
    picture = Picture(np.zeros((4, 4, 3), np.uint8), exif=exif.tobytes().removeprefix(b"Exif\0\0"), dpi=(300.0, 300.0))
    save_picture(tmp_path / "x", picture, format="webp")
    with Image.open(tmp_path / "x") as image:
        assert float(image.getexif()[0x011A]) == 72
        assert image.getexif()[0x010E] == "a disc"
