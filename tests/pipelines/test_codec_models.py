"""Codecs by the digests that files state."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from zoo_files import write_zoo

from smalti.errors import CheckpointError
from smalti.pipelines import codec_models
from smalti.pipelines.codec import Codec
from smalti.pipelines.codec_models import CodecFinder, UnknownModelError, zoo_name


@pytest.fixture
def digest(codec: Path) -> bytes:
    return bytes.fromhex(Codec.from_pretrained(codec).card.digest)


@pytest.mark.parametrize("length", [2, 8, 32])
def test_a_given_model_is_found_and_loaded_once(codec: Path, clear_codec: Path, digest: bytes, length: int) -> None:
    finder = CodecFinder([clear_codec, codec])
    found = finder.find(digest[:length], source="x.smi")
    assert found.card.digest == digest.hex()
    assert finder.find(digest, source="y.smi") is found
    assert finder.card(digest, source="x.smi").image.shape == (3, 16, 16)
    assert CodecFinder([found]).find(digest, source="x.smi") is found


def test_given_models_come_before_the_folder_and_the_zoo(
    codec: Path, digest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside").mkdir()
    shutil.copy(codec / "last.safetensors", tmp_path / "beside" / "b.safetensors")
    (tmp_path / "beside" / "a.safetensors").write_bytes(b"something else")
    write_zoo(tmp_path / "zoo", monkeypatch, tiny=codec / "last.safetensors")
    assert CodecFinder().find(digest, source="x").path == tmp_path / "zoo" / "tiny.safetensors"
    assert zoo_name(digest[:2]) == "zoo:tiny"
    assert zoo_name(b"\0" * 8) is None
    beside = CodecFinder().find(digest, source="x", folders=[tmp_path / "beside"])
    assert beside.path == tmp_path / "beside" / "b.safetensors"
    given = CodecFinder([codec]).find(digest, source="x", folders=[tmp_path / "beside"])
    assert given.path == codec / "last.safetensors"


def test_a_model_that_was_replaced_is_read_again(codec: Path, clear_codec: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    shutil.copy(clear_codec / "last.safetensors", file)
    digest = bytes.fromhex(Codec.from_pretrained(codec).card.digest)
    with pytest.raises(UnknownModelError):
        CodecFinder().find(digest, source="x", folders=[tmp_path])
    file.unlink()
    shutil.copy(codec / "last.safetensors", file)
    codec_models._card_of.cache_clear()  # copies within the clock's resolution
    assert CodecFinder().find(digest, source="x", folders=[tmp_path]).path == file


def test_what_is_not_found(codec: Path, digest: bytes, trained) -> None:
    said = "x was compressed with the model 0001, which is neither in its folder nor in the zoo"
    with pytest.raises(UnknownModelError, match=said) as caught:
        CodecFinder([codec]).find(b"\0\1", source="x")
    assert (caught.value.digest, caught.value.arguments) == ("0001", ("model",))
    with pytest.raises(CheckpointError, match="there is no nowhere"):
        CodecFinder(["nowhere"]).find(digest, source="x")
    with pytest.raises(CheckpointError, match="is a gan, which cannot compress pictures"):
        CodecFinder().open(trained.gan)
