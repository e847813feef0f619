"""The transform codec's network: transform, steps, decoder."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from codec_models import QUALITY, batches, codec_config, discs, drawn_codec, recipe_of, some_codes
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smalti.config.codec import CodecConfig, PleasingConfig
from smalti.data.spec import ImageSpec
from smalti.errors import ConfigError
from smalti.models.autoencoder.klt import tiles
from smalti.models.codec.codec import ImageCodec, build_codec, step_size


def levels(count: int, quality: float = QUALITY) -> Tensor:
    return torch.full((count,), quality)


def fitted(channels: int = 3, coefficients: int = 48, *, neighbours: bool = False) -> tuple[ImageCodec, Tensor]:
    """A codec as training begins, and the images that it was fitted to."""
    data = batches(discs(channels=channels))
    codec = ImageCodec(codec_config(coefficients=coefficients, neighbours=neighbours), channels)
    codec.fit(lambda: (batch.pixels for batch in data))
    return codec.eval(), torch.cat([batch.pixels for batch in data])


# --- Transform


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_training_begins_with_the_karhunen_loeve_transform(channels: int) -> None:
    """Orthonormal vectors that hold as much of the variance as any do, in falling order."""
    codec, images = fitted(channels)
    rows = tiles(images, 8).reshape(-1, channels * 64).double().numpy()
    basis = (codec.basis.weight * codec.basis.scale).double().detach().numpy()
    assert np.abs(basis @ basis.T - np.eye(48)).max() < 1e-5
    centred = rows - rows.mean(axis=0)
    variances = (centred @ basis.T).var(axis=0)
    wanted = np.linalg.eigvalsh(centred.T @ centred / len(rows))[::-1][:48]
    np.testing.assert_allclose(variances, wanted, rtol=1e-3, atol=1e-4)
    covariance = np.cov((centred @ basis.T).T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3 * variances[0]
    mean = (codec.mean * codec.basis.scale).detach().numpy().ravel()
    np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-5)


def test_the_decoder_begins_as_the_linear_synthesis() -> None:
    codec, images = fitted()
    codes = torch.from_numpy(some_codes((3, 48, 2, 2))).float()
    with torch.no_grad():
        found = codec.decode(codes, levels(3))
        base = codec.basis.synthesise(codes * step_size(levels(3))[:, None, None, None])
        wanted = base + (codec.mean * codec.basis.scale).repeat(1, 2, 2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert images.shape[1:] == found.shape[1:]


def test_all_coefficients_hold_the_whole_picture() -> None:
    codec, images = fitted(1, 64)
    with torch.no_grad():
        step = step_size(levels(len(images), 100.0))[:, None, None, None]
        again = codec.decode(codec.analyse(images) / step, levels(len(images), 100.0))
    torch.testing.assert_close(again, images, rtol=0, atol=1e-4)


def test_steps_halve_every_sixteen_qualities() -> None:
    qualities = torch.tensor([0.0, 16, 32, 48, 96])
    assert step_size(qualities).tolist() == [2, 1, 0.5, 0.25, 2**-5]
    every = step_size(torch.arange(1, 101))
    assert (every.diff() < 0).all()


@given(st.integers(1, 20), st.integers(1, 20))
def test_pictures_are_padded_with_their_last_rows_and_columns(height: int, width: int) -> None:
    codec = drawn_codec()
    images = torch.arange(3.0 * height * width).view(1, 3, height, width)
    found = codec.padded(images)
    assert found.shape[2:] == (-(-height // 8) * 8, -(-width // 8) * 8)
    assert torch.equal(found[:, :, :height, :width], images)
    assert (found[:, :, height:] == found[:, :, height - 1 : height]).all()
    assert (found[:, :, :, width:] == found[:, :, :, width - 1 : width]).all()


# --- Decoder


def test_images_of_a_batch_have_their_own_quality() -> None:
    codec = drawn_codec()
    codes = torch.from_numpy(some_codes((3, 48, 2, 3))).float()
    quality = torch.tensor([10.0, 40.0, 90.0])
    together = codec.decode(codes, quality)
    for image in range(3):
        alone = codec.decode(codes[image : image + 1], quality[image : image + 1])
        torch.testing.assert_close(alone[0], together[image], rtol=1e-4, atol=1e-4)


def test_the_decoder_is_differentiable_in_codes() -> None:
    codec = drawn_codec()
    codes = torch.from_numpy(some_codes((1, 48, 2, 2), spread=0.5)).float().requires_grad_()
    codec.decode(codes, levels(1)).square().sum().backward()
    assert codes.grad is not None
    assert torch.isfinite(codes.grad).all()
    assert (codes.grad != 0).float().mean() > 0.9


@pytest.mark.parametrize("neighbours", [False, True], ids=["alone", "neighbours"])
def test_rates_and_the_linear_part_are_never_in_half_precision(neighbours: bool) -> None:
    codec = drawn_codec(neighbours=neighbours)
    codes = torch.from_numpy(some_codes((2, 48, 2, 2))).float()
    wanted = codec.distribution(codes, levels(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = codec.distribution(codes, levels(2))
        decoded = codec.decode(codes, levels(2))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert decoded.dtype == torch.float32


def test_the_second_decoder_is_another_one() -> None:
    config = dataclasses.replace(codec_config(), pleasing=PleasingConfig(start=0))
    codec = ImageCodec(config, 3)
    assert codec.pleasing is not None
    torch.nn.init.normal_(codec.pleasing.correct.weight)
    codes = torch.from_numpy(some_codes((1, 48, 2, 2))).float()
    faithful, pleasing = (codec.decode(codes, levels(1), decoder=name) for name in ("faithful", "pleasing"))
    assert not torch.equal(faithful, pleasing)
    assert ImageCodec(codec_config(), 3).pleasing is None


# --- Building


def test_more_coefficients_than_pixel_values_are_refused() -> None:
    ImageCodec(CodecConfig(tile=4, coefficients=48, patch=2, width=4), 3)
    with pytest.raises(ConfigError, match="coefficients is 49, but a tile of 4x4 pixels and 3 channels has 48"):
        ImageCodec(CodecConfig(tile=4, coefficients=49, patch=2, width=4), 3)


def test_a_codec_is_built_for_the_channels_of_the_data() -> None:
    for channels in (1, 3, 4):
        codec = build_codec(codec_config(), ImageSpec(channels, 16, 16), 0, None)
        assert codec.basis.weight.shape == (48, channels * 64)


def test_names_and_shapes_of_the_weights() -> None:
    """They are the format of model files: a change makes these unreadable."""
    shapes = {name: tuple(value.shape) for name, value in drawn_codec(neighbours=True).state_dict().items()}
    assert shapes["basis.weight"] == (48, 192)
    assert shapes["mean"] == (3, 8, 8)
    assert shapes["context.nets.2.first.weight"] == (16, 2 * 4 + 8 * 2 * 7 + 3)
    assert shapes["context.nets.2.linear.weight"] == (3, 8 * 7)
    assert {name.rpartition("nets.2.")[2] for name in shapes if "nets.2." in name} == {
        "first.weight", "first_bias.weight", "second.weight", "second.bias", "last.weight", "last_bias.weight",
        "linear.weight",
    }  # fmt: skip
    assert {name for name in shapes if not name.startswith("context.")} == {
        "basis.weight", "mean", "refiner.stem.weight", "refiner.stem.bias", "refiner.quality.weight",
        "refiner.quality.bias", "refiner.blocks.0.conv1.weight", "refiner.blocks.0.conv1.bias",
        "refiner.blocks.0.conv2.weight", "refiner.blocks.0.conv2.bias", "refiner.correct.weight",
        "refiner.correct.bias",
    }  # fmt: skip


def test_a_recipe_starts_its_codec_and_its_average_alike() -> None:
    recipe = recipe_of(codec_config(), half_life=50)
    data = batches(discs())
    recipe.start(lambda: data)
    wanted, _ = fitted()
    for codec in (recipe.codec, recipe.export()):
        assert torch.equal(codec.basis.weight, wanted.basis.weight)
        assert torch.equal(codec.mean, wanted.mean)
