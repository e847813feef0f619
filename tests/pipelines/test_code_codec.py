"""Codes to payloads and back with a trained context net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_codes import CODES, small_codes, small_pictures, some_codes
from small_runs import small_config

from smalti.errors import CheckpointError, CodecError, CodeRangeError
from smalti.pipelines import base as api
from smalti.pipelines import code_codec
from smalti.pipelines.autoencoder import Autoencoder
from smalti.pipelines.code_codec import CodeCodec
from smalti.runtime.device import Machine
from smalti.training.loop import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    config = small_config("context", "train.images=640", "model.optimizer.warm_up=0")
    train(config, small_codes(folder), folder / "run", machine=Machine("cpu", "float32"))
    return folder / "run"


def test_codes_become_payloads_and_come_back(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_codec, "LANES", 4)
    model = CodeCodec.from_pretrained(run)
    assert model.codebook_sizes == (CODES,)
    codes = some_codes(10, seed=3)
    payloads = model.compress_codes(codes)
    assert len(payloads) == 10
    assert np.array_equal(model.decompress_codes(payloads, (4, 4)), codes)
    assert np.array_equal(model.decompress_codes(payloads[5:6], (4, 4)), codes[5:6])
    bits = model.information(codes)
    assert bits.sum() < 0.85 * 3 * codes.size
    assert all(8 * len(payload) <= size + 36 for payload, size in zip(payloads, bits, strict=True))


def test_images_go_through_the_tokenizer(run: Path) -> None:
    model = api.load(run)
    assert isinstance(model.tokenizer, Autoencoder)
    codes = model.tokenizer.encode(small_pictures(3))
    found = model.decompress_codes(model.compress_codes(codes), codes.shape[2:])
    assert np.array_equal(model.tokenizer.decode(found), model.tokenizer.decode(codes))


def test_nothing_is_compressed_to_nothing(run: Path) -> None:
    model = api.load(run)
    assert model.compress_codes(np.zeros((0, 1, 4, 4), np.int64)) == []
    assert model.decompress_codes([], (4, 4)).shape == (0, 1, 4, 4)
    assert model.information(np.zeros((0, 1, 4, 4), np.int64)).shape == (0,)


def test_mistakes_are_refused(run: Path) -> None:
    model = api.load(run)
    with pytest.raises(CodeRangeError, match="plane 0 holds codes outside of"):
        model.compress_codes(np.full((1, 1, 2, 2), CODES))
    (payload,) = model.compress_codes(some_codes(1))
    for bad in (b"", payload[:-1], payload + b"\0\0", payload[:2] + bytes([payload[2] ^ 1]) + payload[3:]):
        with pytest.raises(CodecError, match="compressed"):
            model.decompress_codes([bad], (4, 4))
    with pytest.raises(CheckpointError, match="is a vqvae, which compresses no codes; give a model trained with"):
        api.load_as(run.parent / "codes" / "tokenizer.safetensors", CodeCodec)
