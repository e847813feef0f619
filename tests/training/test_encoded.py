"""Images of a VQ-VAE to codes in the cache, for a training on them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import pixels, write_source

from smalti.config.data import DataConfig
from smalti.data.codes import open_codes
from smalti.errors import ConfigError, DataError
from smalti.pipelines.autoencoder import Autoencoder
from smalti.training.encoded import encode_for_training, images_of


@pytest.fixture
def model(trained: SimpleNamespace) -> Autoencoder:
    return Autoencoder.from_pretrained(trained.vqvae)


def test_a_run_folder_says_what_it_was_trained_on(model: Autoencoder, trained: SimpleNamespace) -> None:
    assert model.card.config.data.source == "discs.npz"
    assert images_of(model).source == str(trained.source)


def test_elsewhere_a_checkpoint_names_its_source_alone(
    trained: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained.vqvae / "last.safetensors", "vq.safetensors")
    for other in (None, "{}", json.dumps({"recipe": "vqvae"})):
        if other is not None:
            Path("config.json").write_text(other)
        with pytest.raises(DataError, match=r"was trained on discs\.npz, which is not there; give `data=SOURCE`"):
            images_of(Autoencoder.from_pretrained("vq.safetensors"))
    write_source(Path("discs.npz"))
    assert images_of(Autoencoder.from_pretrained("vq.safetensors")).source == "discs.npz"


def test_images_are_encoded_once(model: Autoencoder, trained: SimpleNamespace, cache: Path) -> None:
    told: list[tuple[int, int | None]] = []
    images = dataclasses.replace(images_of(model), flip=False)
    folder = encode_for_training(model, images, cache=cache, progress=lambda *call: told.append(call))
    assert folder.parent == cache / "codes"
    assert told[-1] == (40, 40)
    assert np.array_equal(open_codes(folder).codes, model.encode(pixels(40)))
    told.clear()
    assert encode_for_training(model, images, cache=cache, progress=lambda *call: told.append(call)) == folder
    assert not told
    mirrored = encode_for_training(model, dataclasses.replace(images, flip=True), cache=cache)
    smaller = encode_for_training(model, dataclasses.replace(images, size=(8, 8)), cache=cache)
    assert len({folder, mirrored, smaller}) == 3
    assert len(open_codes(mirrored)) == 80
    assert open_codes(smaller).about.grid == (2, 2)
    with pytest.raises(ConfigError, match="holds codes already; leave `of` out, or give images"):
        encode_for_training(model, DataConfig(str(folder)), cache=cache)
