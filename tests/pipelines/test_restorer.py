"""Restoring images in every form that they come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import pixels, small_config, small_data
from torch import nn

import smalti
from smalti.data.pictures import Picture
from smalti.errors import ConfigError, DataError
from smalti.pipelines.restorer import Restorer
from smalti.runtime.device import Machine
from smalti.training.loop import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Restorer]:
    """Restorers by preset, with random weights where a short training leaves zeros."""
    folder, found = tmp_path_factory.mktemp("restorers"), {}

    def get(preset: str) -> Restorer:
        if preset not in found:
            config = small_config(preset, "train.images=16")
            train(config, small_data(folder), folder / preset, machine=Machine("cpu", "float32"))
            model = Restorer.from_pretrained(folder / preset)
            torch.manual_seed(0)
            nn.init.normal_(model.module.head.weight, std=0.05)
            found[preset] = model
        return found[preset]

    return get


@pytest.mark.parametrize("preset", ["denoise", "super-x2", "colourise"])
def test_the_result_has_the_form_of_the_image(trained: Callable[..., Restorer], preset: str, tmp_path: Path) -> None:
    model, image = trained(preset), pixels(1, side=21)[0][:13]
    scale = model.scale
    assert model.scale == (2 if preset == "super-x2" else 1)
    found = model.restore(image)
    assert found.dtype == np.uint8
    assert found.shape == (13 * scale, 21 * scale, 3)
    assert (found != np.repeat(np.repeat(image, scale, 0), scale, 1)).any()
    pil = model.restore(Image.fromarray(image))
    assert isinstance(pil, Image.Image)
    assert np.array_equal(np.asarray(pil), found)
    Image.fromarray(image).save(tmp_path / "a.png")
    picture = model.restore(tmp_path / "a.png")
    assert isinstance(picture, Picture)
    assert np.array_equal(picture.pixels, found)
    deep = model.restore(image.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    floats = model.restore(image / np.float32(255))
    assert floats.dtype == np.float32
    tensor = model.restore(torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1)
    assert tensor.shape == (3, 13 * scale, 21 * scale)
    as_levels = (tensor.permute(1, 2, 0).numpy() + 1) * 127.5
    for other, unit in ((deep, 257), (floats, 1 / 255), (as_levels, 1)):
        assert np.abs(other / unit - found).max() <= 0.51
    batch = model.restore(np.stack([image, image]))
    assert np.array_equal(batch, np.stack([found, found]))


def test_alpha_and_grey_are_carried(trained: Callable[..., Restorer]) -> None:
    model, image = trained("super-x2"), pixels(1, side=20, channels=4)[0]
    image[:10, :, 3], image[10:, :, 3] = 0, 255
    found = model.restore(image)
    assert found.shape == (40, 40, 4)
    assert np.array_equal(found[..., :3], model.restore(image[..., :3]))
    assert (found[:15, :, 3] == 0).all()
    assert (found[25:, :, 3] == 255).all()
    assert model.restore(image[..., :1]).shape == (40, 40, 1)
    assert model.restore(image[..., 0]).shape == (40, 40)
    assert trained("colourise").restore(image[..., :1]).shape == (20, 20, 3)


def test_strength_and_ensemble(trained: Callable[..., Restorer]) -> None:
    model, image = trained("denoise"), pixels(1, side=24)[0]
    none, half, whole = (model.restore(image, strength=strength).astype(int) for strength in (0, 0.5, 1))
    assert np.array_equal(none, image)
    inside = (whole > 0) & (whole < 255)
    assert np.abs(half - (none + whole) / 2)[inside].max() <= 1
    mean = model.restore(image, self_ensemble=True)
    turned = np.rot90(model.restore(np.rot90(image).copy(), self_ensemble=True), -1)
    assert np.abs(mean.astype(int) - turned.astype(int)).max() <= 1
    assert not np.array_equal(mean, whole)


def test_metadata_are_kept(trained: Callable[..., Restorer]) -> None:
    model, image = trained("denoise"), pixels(1, side=24)[0]
    found = model.restore(Picture(image, icc=b"profile", exif=b"MM\0*", xmp=b"<x/>"))
    assert (found.icc, found.exif, found.xmp) == (b"profile", b"MM\0*", b"<x/>")


def test_only_holes_are_filled(trained: Callable[..., Restorer]) -> None:
    model, image = trained("fill"), pixels(1, side=24)[0]
    hole = np.zeros((24, 24), bool)
    hole[5:12, 7:15] = True
    found = model.restore(image, hole=hole)
    assert np.array_equal(found[~hole], image[~hole])
    other = image.copy()
    other[hole] = 77
    assert np.array_equal(model.restore(other, hole=hole), found), "what is in the hole is not looked at"
    for form in (hole.astype(np.uint8) * 255, torch.from_numpy(hole), Image.fromarray(hole.astype(np.uint8) * 255)):
        assert np.array_equal(model.restore(image, hole=form), found)
    with pytest.raises(ConfigError, match="fills holes, so give `hole"):
        model.restore(image)
    with pytest.raises(ConfigError, match="has 24x23 pixels, the image 24x24"):
        model.restore(image, hole=hole[:, 1:])
    with pytest.raises(ConfigError, match="fills no holes; leave"):
        trained("denoise").restore(image, hole=hole)


@pytest.mark.parametrize(
    ("image", "error", "said"),
    [
        (np.zeros((4, 4, 2), np.uint8), ConfigError, "with 1, 3 or 4 channels"),
        (np.zeros((4, 0, 3), np.uint8), ConfigError, r"shape \(4, 0, 3\)"),
        (np.zeros((4, 4, 3), np.int64), ConfigError, "an array of int64; give uint8, uint16 or floats"),
        (np.full((4, 4, 3), 2.0), DataError, r"floats outside of \[0, 1\]"),
        (np.full((4, 4, 3), np.nan), DataError, r"floats outside of \[0, 1\]"),
        (torch.zeros(3, 4), ConfigError, r"a tensor of shape \(3, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), ConfigError, "floats in"),
        (7, ConfigError, "is a int; give a Pillow image"),
        ("nowhere.png", DataError, "nowhere.png"),
    ],
)
def test_other_things_are_refused(trained: Callable[..., Restorer], image: object, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        trained("denoise").restore(image)


def test_strength_is_bounded(trained: Callable[..., Restorer]) -> None:
    for strength in (-0.1, 2.1, float("nan")):
        with pytest.raises(ConfigError, match="but must be from 0 to 2"):
            trained("denoise").restore(np.zeros((4, 4, 3), np.uint8), strength=strength)
    assert isinstance(smalti.load(trained("denoise").path), Restorer)
    assert trained("denoise").degradation == "noise(0..55)"
