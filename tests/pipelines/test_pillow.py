"""`smalti.register_pillow`: models by digest, and what `image.save` takes."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_codecs import exif
from small_runs import pixels
from zoo_files import write_zoo

import smalti
from smalti.codec.archive import info
from smalti.errors import ConfigError
from smalti.pipelines.codec import Codec


@pytest.fixture(autouse=True)
def registered(codec: Path) -> None:
    smalti.register_pillow(models=[codec])


def test_saving_is_compressing(codec: Path, tmp_path: Path) -> None:
    image, model = Image.fromarray(pixels(1)[0]), Codec.from_pretrained(codec)
    image.save(tmp_path / "x.smi", model=codec, quality=30, effort=2)
    assert (tmp_path / "x.smi").read_bytes() == model.compress(image, quality=30, effort=2)
    image.save(tmp_path / "y.smi", model=model, exact=True)
    with Image.open(tmp_path / "y.smi") as exact:
        assert np.array_equal(np.asarray(exact), pixels(1)[0])
    buffer = io.BytesIO()
    image.save(buffer, "SMALTI")
    assert buffer.getvalue() == model.compress(image)


@pytest.mark.parametrize("given", ["bytes", "object"])
def test_metadata_given_to_save_replace_those_of_the_image(given: str, tmp_path: Path) -> None:
    image = Image.fromarray(pixels(1)[0])
    image.info["exif"] = exif(description="old")
    new = Image.Exif()
    new[0x010E] = "new"
    image.save(tmp_path / "x.smi", exif=new.tobytes() if given == "bytes" else new, xmp="<x/>")
    with Image.open(tmp_path / "x.smi") as found:
        assert dict(found.getexif()) == {0x010E: "new"}
        assert found.info["xmp"] == b"<x/>"
    assert image.info["exif"] == exif(description="old")


def test_the_model_is_found_beside_the_file_and_in_the_zoo(
    codec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(pixels(1)[0]).save(tmp_path / "x.smi")
    wanted = np.asarray(Image.open(tmp_path / "x.smi"))
    smalti.register_pillow()
    with pytest.raises(Image.UnidentifiedImageError, match="neither in its folder nor in the zoo"):
        Image.open(tmp_path / "x.smi")
    with monkeypatch.context() as patched:
        write_zoo(tmp_path / "zoo", patched, tiny=codec / "last.safetensors")
        with Image.open(tmp_path / "x.smi") as image:
            assert np.array_equal(np.asarray(image), wanted)
    shutil.copy(codec / "last.safetensors", tmp_path / "mine.safetensors")
    with Image.open(tmp_path / "x.smi") as image:
        assert np.array_equal(np.asarray(image), wanted)


def test_a_file_of_any_size_opens_without_its_model_but_does_not_load(codec: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels(1)[0][:9]).save(tmp_path / "x.smi")
    assert info(tmp_path / "x.smi").form.name == "FULL"
    smalti.register_pillow()
    with Image.open(tmp_path / "x.smi") as image:
        assert (image.size, image.mode) == ((16, 9), "RGB")
        with pytest.raises(OSError, match="neither in its folder nor in the zoo; give `model=FILE`"):
            image.load()


def test_what_cannot_be_saved_leaves_nothing(codec: Path, grey_codec: Path, tmp_path: Path) -> None:
    image = Image.fromarray(pixels(1)[0])
    with pytest.raises(ConfigError, match="`quality` is 101"):
        image.save(tmp_path / "x.smi", quality=101)
    with pytest.raises(ConfigError, match="but this codec is for grey ones"):
        image.save(tmp_path / "x.smi", model=grey_codec)
    smalti.register_pillow()
    with pytest.raises(ConfigError, match="no model was given to compress with; give `model=FILE` to save"):
        image.save(tmp_path / "x.smi")
    assert list(tmp_path.iterdir()) == []
