"""Restyling images: by the methods of restorers, which are tested there in every form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import pixels, small_config, small_pairs
from torch import nn

import smalti
from smalti.errors import CheckpointError, ConfigError
from smalti.pipelines.base import load_as
from smalti.pipelines.restorer import Restorer
from smalti.pipelines.translator import Translator
from smalti.runtime.device import Machine
from smalti.training.loop import train


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    folder = tmp_path_factory.mktemp("translator")
    config = small_config("restyle-paired", "train.images=16")
    train(config, small_pairs(folder), folder / "run", machine=Machine("cpu", "float32"))
    found = smalti.load(folder / "run")
    assert isinstance(found, Translator)
    torch.manual_seed(0)
    nn.init.normal_(found.module.head.weight, std=0.05)
    return found


def test_every_form_comes_back_in_it(model: Translator) -> None:
    image = pixels(1, side=21)[0][:13]
    found = model.restyle(image)
    assert (found.shape, found.dtype) == ((13, 21, 3), np.uint8)
    assert (found != image).any()
    assert np.array_equal(np.asarray(model.restyle(Image.fromarray(image))), found)
    network = model.module(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1)
    assert np.abs((network[0].permute(1, 2, 0).detach().numpy() + 1) * 127.5 - found)[found % 255 > 0].max() <= 0.51
    assert np.array_equal(model.restyle(image, strength=0), image)
    large = pixels(1, side=150)[0]
    assert np.abs(model.restyle(large, tile=64).astype(int) - model.restyle(large)).max() <= 1


def test_alpha_is_carried_and_grey_gets_colours(model: Translator) -> None:
    image = pixels(1, side=20, channels=4)[0]
    found = model.restyle(image)
    assert np.array_equal(found[..., 3], image[..., 3])
    grey = model.restyle(image[..., 0])
    assert grey.shape == (20, 20, 3)
    assert np.array_equal(grey, model.restyle(np.repeat(image[..., :1], 3, axis=2)))


def test_it_is_no_restorer(model: Translator) -> None:
    assert not isinstance(model, Restorer)
    with pytest.raises(CheckpointError, match="is a translate, which cannot restore pictures"):
        load_as(model.path, Restorer)
    with pytest.raises(ConfigError, match="must be from 0 to 2"):
        model.restyle(np.zeros((4, 4, 3), np.uint8), strength=3)


def test_a_checkpoint_says_what_it_learned_from_and_not_where_that_was(model: Translator, tmp_path: Path) -> None:
    assert model.card.data["targets"] == "positives.npz"
    assert len(model.card.data["targets_fingerprint"]) == 64
    saved = model.save_pretrained(tmp_path)
    image = pixels(1)[0]
    assert np.array_equal(Translator.from_pretrained(saved).restyle(image), model.restyle(image))
