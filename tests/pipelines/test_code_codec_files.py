"""Pictures to files and back with a VQ-VAE and its context net, from Python and as typed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_codes import small_codes, small_pictures
from small_runs import small_config

import smalti as package
from smalti.codec.archive import ArchiveReader
from smalti.codec.container import CoderKind, Form, FullHeader, PayloadKind, TinyHeader, form_of, read_header
from smalti.data.pictures import Picture
from smalti.errors import CheckpointError, CodecError, ConfigError
from smalti.pipelines.code_codec import CodeCodec
from smalti.runtime.device import Machine
from smalti.training.loop import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    config = small_config("context", "train.images=640", "model.optimizer.warm_up=0")
    train(config, small_codes(folder), folder / "run", machine=Machine("cpu", "float32"))
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> CodeCodec:
    return package.CodeCodec.from_pretrained(run)


def test_a_native_picture_is_a_tiny_file(model: CodeCodec) -> None:
    (picture,) = small_pictures(1)
    data = model.compress(picture)
    header = read_header(data)
    assert isinstance(header, TinyHeader)
    assert header.step == 0
    assert np.array_equal(model.decompress(data), model.tokenizer.reconstruct(picture)[0])
    errors = [np.square(model.decompress(model.compress(picture, effort=n)) - 1.0 * picture).mean() for n in (0, 4)]
    assert errors[1] <= errors[0]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize(("height", "width", "channels"), [(37, 29, 3), (16, 16, 1), (5, 40, 4), (1, 1, 3)])
def test_any_other_picture_is_a_full_file(
    model: CodeCodec, height: int, width: int, channels: int, depth: type[np.unsignedinteger]
) -> None:
    if depth == np.uint16 and channels != 1:
        return
    top = int(np.iinfo(depth).max)
    pixels = np.random.default_rng(0).integers(0, top + 1, (height, width, channels)).astype(depth)
    data = model.compress(pixels)
    header = read_header(data)
    if isinstance(header, FullHeader):
        assert (header.payload, header.coder, header.step) == (PayloadKind.CODES, CoderKind.STATE, 0)
    found = model.decompress(data)
    assert (found.shape, found.dtype) == (pixels.shape, pixels.dtype)
    if channels == 4:
        assert np.array_equal(found[..., 3], pixels[..., 3])
    if channels >= 3:
        assert np.array_equal(found[..., :3], model.tokenizer.reconstruct(pixels[..., :3])[0])


def test_archives(model: CodeCodec, tmp_path: Path) -> None:
    pictures = [*small_pictures(8), small_pictures(1)[0][:9]]
    with model.write_archive(tmp_path / "all.smt", per_block=4) as writer:
        for number, pixels in enumerate(pictures):
            writer.add(Picture(pixels), name=f"{number}.png")
    with model.open_archive(tmp_path / "all.smt") as archive:
        assert (archive.reader.header.payload, archive.reader.header.step, len(archive)) == (PayloadKind.CODES, 0, 9)
        assert all(
            np.array_equal(archive[n].pixels, model.decompress(model.compress(p))) for n, p in enumerate(pictures)
        )


def test_damage_is_found(model: CodeCodec) -> None:
    data = model.compress(small_pictures(1)[0][:9])
    for place in range(len(data)):
        with pytest.raises(CodecError):
            model.decompress(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    tiny = model.compress(small_pictures(1)[0])
    with pytest.raises(CodecError, match="step 40, which this kind of model does not write; expected CODES"):
        model.decompress(tiny[:5] + bytes([40]) + tiny[6:])
    with pytest.raises(CodecError):
        model.decompress(tiny + b"\0\0")


@pytest.mark.parametrize(
    "settings", [{"quality": 40}, {"max_bytes": 9}, {"bpp": 1.0}, {"target_psnr": 20.0}, {"tune": 1}, {"exact": True}]
)
def test_a_vqvae_has_one_rate(model: CodeCodec, settings: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a VQ-VAE has one rate"):
        model.compress(small_pictures(1)[0], **settings)
    with pytest.raises(ConfigError, match="effort"):
        model.compress(small_pictures(1)[0], effort=1001)
    with pytest.raises(ConfigError, match="a VQ-VAE has one rate"):
        model.write_archive(tmp_path / "all.smt", quality=40)


def test_a_picture_that_is_too_large_is_refused(model: CodeCodec) -> None:
    with pytest.raises(ConfigError, match="up to 16,777,216 pixels"):
        model.engine.codes_of(np.broadcast_to(np.uint8(0), (1, 4097, 4096, 3)), 0, effort=0)
    with pytest.raises(CodecError, match="up to 16,777,216 pixels"):
        model.engine.grid(4097, 4096)


def test_as_typed(smalti, run: Path) -> None:
    shutil.copy(run / "last.safetensors", "vq.safetensors")
    Path("in").mkdir()
    for number, pixels in enumerate(small_pictures(4)):
        Image.fromarray(pixels).save(f"in/{number}.png")
    for words in (("in/0.png", "--out", "a.smi", "--effort", 1), ("in", "--out", "all.smt"), ("in", "--out", "small")):
        done = smalti("compress", "vq.safetensors", *words)
        assert done.code == 0, done.err
    assert smalti("compress", "vq.safetensors", "in", "--append", "--out", "all.smt").code == 0
    with ArchiveReader("all.smt") as archive:
        assert len(archive) == 8
    done = smalti("info", "all.smt")
    assert "payload           codes" in done.out
    assert "quality" not in done.out
    done = smalti("decompress", "a.smi", "all.smt", "--out", "back")  # the model is found by its digest
    assert done.code == 0, done.err
    assert smalti("decompress", "small", "--model", "vq.safetensors", "--out", "back").code == 0
    assert form_of(Path("a.smi").read_bytes()[:3]) == Form.TINY
    assert len(list(Path("back").rglob("*.png"))) == 13
    assert len(package.datasets.load("all.smt", cache="cache")) == 8
    done = smalti("compress", "vq.safetensors", "in", "--out", "again", "--quality", 30)
    assert (done.code != 0, "--quality is not for vq.safetensors: a VQ-VAE has one rate" in done.err) == (True, True)
    assert not Path("again").exists()


def test_pillow(model: CodeCodec, tmp_path: Path) -> None:
    (pixels,) = small_pictures(1)
    package.register_pillow(models=[model])
    Image.fromarray(pixels).save(tmp_path / "a.smi")
    with Image.open(tmp_path / "a.smi") as image:
        assert np.array_equal(np.asarray(image), model.decompress(model.compress(pixels)))


def test_another_model_is_refused(run: Path) -> None:
    with pytest.raises(CheckpointError):
        package.CodeCodec.from_pretrained(run.parent / "codes" / "tokenizer.safetensors")
