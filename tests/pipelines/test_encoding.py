"""Data sets to codes on disk and back, from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_codes import small_codes, write_tokenizer
from small_runs import pixels, write_source

from smalti.data.codes import TOKENIZER, open_codes
from smalti.errors import ConfigError, DataError, OutputError
from smalti.pipelines import encoding, limits
from smalti.pipelines.autoencoder import Autoencoder
from smalti.pipelines.base import load_as
from smalti.pipelines.encoding import decode_codes, encode_dataset, encode_split, open_splits, open_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> Autoencoder:
    write_tokenizer(tmp_path / "vq.safetensors")
    return load_as(tmp_path / "vq.safetensors", Autoencoder)


def test_a_data_set_becomes_codes_and_comes_back(tokenizer: Autoencoder, tmp_path: Path, cache: Path) -> None:
    source, told = write_source(tmp_path / "discs.npz"), []
    (split,) = encode_dataset(
        tokenizer, source, tmp_path / "codes", cache=cache, progress=lambda *call: told.append(call)
    )
    assert (split.folder, split.count, split.bits, split.complete) == (tmp_path / "codes" / "all", 40, 48.0, False)
    assert told[-2:] == [(0, 40), (40, 40)]
    codes = open_codes(tmp_path / "codes")
    assert np.array_equal(codes.codes, tokenizer.encode(pixels(40)))
    assert (codes.source, codes.classes) == ("discs.npz", ("0", "1"))
    model = open_tokenizer(codes)
    assert model.card.digest == tokenizer.card.digest
    ((first, pictures),) = decode_codes(model, codes, first=3, count=2)
    assert first == 3
    assert np.array_equal(pictures, tokenizer.reconstruct(pixels(40)[3:5]))
    (again,) = encode_dataset(tokenizer, source, tmp_path / "codes", cache=cache)
    assert again.complete


def test_only_images_to_train_on_are_mirrored(tokenizer: Autoencoder, tmp_path: Path, cache: Path) -> None:
    images = open_splits(tokenizer, str(write_source(tmp_path / "discs.npz")), cache=cache)[0]
    done = encode_split(tokenizer, images, tmp_path / "codes", source="discs", flip=True)
    codes = open_codes(tmp_path / "codes")
    assert (done.count, len(codes)) == (80, 80)
    assert codes.about.names[40] == codes.about.names[0] + encoding.MIRRORED
    assert codes.labels is not None
    assert np.array_equal(codes.labels[:40], codes.labels[40:])
    assert np.array_equal(codes.codes[40:], tokenizer.encode(pixels(40)[:, :, ::-1].copy()))
    images.split = "test"
    assert encode_split(tokenizer, images, tmp_path / "codes", source="discs", flip=True).count == 40


def test_an_interrupted_encoding_goes_on(
    tokenizer: Autoencoder, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHUNK", 16)
    images = open_splits(tokenizer, str(write_source(tmp_path / "discs.npz")), cache=cache)[0]

    def interrupt(done: int, total: int | None) -> None:
        if done == 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_split(tokenizer, images, tmp_path / "broken", source="discs", progress=interrupt)
    told: list[int] = []
    encode_split(tokenizer, images, tmp_path / "broken", source="discs", progress=lambda done, _: told.append(done))
    assert told == [32, 40]
    encode_split(tokenizer, images, tmp_path / "whole", source="discs")
    assert open_codes(tmp_path / "broken").fingerprint == open_codes(tmp_path / "whole").fingerprint


def test_groups_take_the_place_of_labels(tokenizer: Autoencoder, tmp_path: Path, cache: Path) -> None:
    encode_dataset(tokenizer, write_source(tmp_path / "discs.npz"), tmp_path / "codes", groups=3, cache=cache)
    codes = open_codes(tmp_path / "codes")
    assert (codes.classes, codes.about.groups) == (("group 0", "group 1", "group 2"), 3)
    assert codes.labels is not None
    assert set(codes.labels) <= {0, 1, 2}
    images = open_splits(tokenizer, str(tmp_path / "discs.npz"), cache=cache)
    images[0].split = "test"
    with pytest.raises(ConfigError, match="`groups` are learned from the images to train on; leave `split` out"):
        encoding.group_splits(images, 3, cache=cache)


def test_a_folder_of_other_things_is_not_taken(tokenizer: Autoencoder, tmp_path: Path, cache: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(OutputError, match="holds other things than codes; give `out` a new folder"):
        encode_dataset(tokenizer, source, tmp_path / "mine", cache=cache)
    write_tokenizer(tmp_path / "other" / TOKENIZER, seed=1)
    with pytest.raises(OutputError, match="holds codes of the tokenizer"):
        encode_dataset(tokenizer, source, tmp_path / "other", cache=cache)
    with pytest.raises(ConfigError, match="effort is -1"):
        encode_dataset(tokenizer, source, tmp_path / "new", effort=-1, cache=cache)
    assert not (tmp_path / "new").exists()


def test_codes_are_decoded_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = small_codes(tmp_path)
    model = open_tokenizer(codes)
    monkeypatch.setattr(limits, "CHUNK_PIXELS", 16 * 16 * 16)
    found = list(decode_codes(model, codes, first=5))
    assert [(first, len(pictures)) for first, pictures in found] == [(5, 16), (21, 16), (37, 3)]
    for numbers in ({"first": 40}, {"first": -1}, {"count": 0}, {"first": 39, "count": 2}):
        with pytest.raises(ConfigError, match="there are images 0 to 39"):
            next(decode_codes(model, codes, **numbers))
    write_tokenizer(tmp_path / "codes" / TOKENIZER, seed=1)
    with pytest.raises(DataError, match="are of the tokenizer"):
        open_tokenizer(codes)
