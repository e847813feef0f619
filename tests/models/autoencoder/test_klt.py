"""The transform autoencoder: an orthogonal map of tiles, the best one there is, and nothing lost beside it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smalti.config.autoencoder import TransformConfig
from smalti.config.quantizer import ProductConfig, VectorConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.errors import ConfigError
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.autoencoder.klt import TileLinear, balanced_order, repeat_tile, tiles


def model(
    *, stride: int = 4, groups: int = 2, dimension: int = 3, channels: int = 3, patch: int = 2, codes: int = 8
) -> Autoencoder:
    torch.manual_seed(0)
    config = VQVAEConfig(
        TransformConfig(stride=stride, width=8, encoder_blocks=1, decoder_blocks=1, patch=min(patch, stride)),
        ProductConfig(layer=VectorConfig(codes=codes, dimension=dimension), groups=groups),
    )
    return Autoencoder(config, channels).eval()


def smooth(count: int = 40, side: int = 16, channels: int = 3, seed: int = 0) -> Tensor:
    """Images whose pixels follow their neighbours, so that some directions hold more energy than others."""
    coarse = torch.randn(count, channels, 5, 5, generator=torch.Generator().manual_seed(seed))
    fine = 0.05 * torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed + 1))
    return (0.4 * F.interpolate(coarse, (side, side), mode="bicubic") + 0.1 + fine).clamp(-1, 1)


def fitted(images: Tensor | None = None, **options: int) -> tuple[Autoencoder, Tensor]:
    images = smooth() if images is None else images
    autoencoder = model(**options)
    autoencoder.fit(lambda: iter(images.split(8)), batch=8)
    return autoencoder, images


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variances (falling) and their unit vectors in columns, in float64."""
    mean = rows.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    return mean, values[::-1], vectors[:, ::-1]


@given(channels=st.integers(1, 4), side=st.integers(1, 5), height=st.integers(1, 3), width=st.integers(1, 3))
def test_an_orthogonal_map_of_tiles_is_undone_by_its_transpose(
    channels: int, side: int, height: int, width: int
) -> None:
    size = channels * side * side
    linear = TileLinear(channels, side, size, scale=0.1)
    rotation, _ = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(size)))
    linear.weight.data.copy_(rotation * 10)
    images = torch.randn(2, channels, height * side, width * side, generator=torch.Generator().manual_seed(1))
    vectors = linear.analyse(images)
    assert vectors.shape == (2, size, height, width)
    torch.testing.assert_close(vectors.square().sum(), images.square().sum())
    torch.testing.assert_close(linear.synthesise(vectors), images)


def test_a_tile_is_a_square_of_the_image() -> None:
    images = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    found = tiles(images, 2)
    assert found.shape == (2, 2, 3, 12)
    for row, column in itertools.product(range(2), range(3)):
        square = images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(found[:, row, column], square.flatten(1))
    tile = torch.randn(3, 2, 2)
    assert torch.equal(tiles(repeat_tile(tile, images)[None], 2)[0, 1, 2], tile.flatten())


def test_the_maps_are_the_karhunen_loeve_transform_of_numpy() -> None:
    autoencoder, images = fitted()
    mean, variances, vectors = moments(tiles(images, 4).reshape(-1, 48).double().numpy())
    for part in (autoencoder.encoder, autoencoder.decoder):
        basis = (part.linear.weight * part.linear.scale).detach().double().numpy()
        np.testing.assert_allclose(basis @ basis.T, np.eye(6), atol=1e-5)
        # Each of the first six directions is there once, whatever its sign and place.
        matches = np.abs(basis @ vectors[:, :6])
        np.testing.assert_allclose(np.sort(matches, axis=1), np.eye(6)[np.zeros(6, int)][:, ::-1], atol=2e-3)
        np.testing.assert_allclose(matches.sum(axis=0), np.ones(6), atol=5e-3)
        assert np.trace(basis @ np.cov(tiles(images, 4).reshape(-1, 48).double().numpy().T, bias=True) @ basis.T) == (
            pytest.approx(variances[:6].sum(), rel=1e-5)
        )
    latents = autoencoder.encoder(images).detach().double()
    energy = float(latents.square().sum(dim=1).mean())
    assert energy == pytest.approx(variances[:6].sum(), rel=1e-4)
    np.testing.assert_allclose(latents.mean(dim=(0, 2, 3)).numpy(), np.zeros(6), atol=1e-5)
    assert np.abs(mean).max() > 0.01, "there was a mean to take away"


def test_a_fresh_autoencoder_is_the_linear_codec() -> None:
    autoencoder, images = fitted()
    rows = tiles(images, 4).reshape(-1, 48).double().numpy()
    mean, variances, vectors = moments(rows)
    projected = mean + (rows - mean) @ vectors[:, :6] @ vectors[:, :6].T
    with torch.no_grad():
        linear = autoencoder.decoder(autoencoder.encoder(images))
    np.testing.assert_allclose(tiles(linear, 4).reshape(-1, 48).numpy(), projected, atol=1e-4)
    error = float((linear - images).double().square().mean())
    assert error == pytest.approx(variances[6:].sum() / 48, rel=1e-3)


def test_training_only_improves_on_it() -> None:
    autoencoder, images = fitted(codes=64)
    optimizer = torch.optim.Adam(autoencoder.parameters(), 3e-3)
    errors = []
    for _ in range(40):
        _, reconstruction, quantized = autoencoder.train()(images)
        error = (reconstruction - images).square().mean()
        errors.append(float(error.detach()))
        optimizer.zero_grad()
        (6 * error + quantized.loss).backward()
        optimizer.step()
    assert errors[-1] < 0.9 * errors[0]


@given(variances=st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=12), groups=st.sampled_from([1, 2, 3, 4]))
def test_a_balanced_order_is_a_permutation(variances: list[float], groups: int) -> None:
    falling = torch.tensor(sorted(variances * groups, reverse=True))
    assert balanced_order(falling, groups).sort().values.tolist() == list(range(len(falling)))


def test_a_balanced_order_shares_the_bits() -> None:
    variances = 2.0 ** -torch.arange(64.0).div(4)  # each asks for an eighth of a bit less than the one before
    level = float(variances[59])
    bits = (torch.log2(variances / level) / 2).clamp_min(0)
    for groups in (2, 4, 8):
        shares = bits[balanced_order(variances, groups)].view(groups, -1).sum(dim=1)
        assert float(shares.max() - shares.min()) <= float(bits[0])
        in_turn = bits.view(groups, -1).sum(dim=1)
        assert float(shares.std()) < 0.1 * float(in_turn.std())


@pytest.mark.parametrize("variances", [torch.zeros(6), torch.tensor([1.0, 0, 0, 0, 0, 0])])
def test_directions_without_energy_are_shared_out_too(variances: Tensor) -> None:
    assert balanced_order(variances, 3).sort().values.tolist() == list(range(6))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32])
def test_any_size_channels_and_stride(stride: int, channels: int) -> None:
    autoencoder = model(stride=stride, channels=channels, groups=2, dimension=2)
    for height, width in [(1, 1), (stride, stride), (stride + 1, 3), (33, 2 * stride - 1)]:
        images = torch.rand(2, channels, height, width) * 2 - 1
        grid = (math.ceil(height / stride), math.ceil(width / stride))
        latents, reconstruction, quantized = autoencoder(images)
        assert latents.shape == (2, 4, *grid)
        assert quantized.codes.shape == (2, 2, *grid)
        assert reconstruction.shape == autoencoder.reconstruct(images).shape == images.shape


def test_images_smaller_than_a_tile_are_fitted_to() -> None:
    autoencoder, images = fitted(smooth(side=5), stride=8, patch=4)
    padded = F.pad(images, (0, 3, 0, 3), mode="replicate")
    _, variances, _ = moments(padded.flatten(1).double().numpy())
    with torch.no_grad():
        assert autoencoder.encode(images).values.shape == (40, 6, 1, 1)
        linear = autoencoder.decoder(autoencoder.encoder(padded))
    error = float((linear - padded).double().square().mean())
    assert error == pytest.approx(variances[6:].sum() / 192, rel=1e-3)


def test_more_numbers_than_a_tile_has_pixels_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes 13 numbers for a tile, which has only 12 pixel values; give fewer"):
        model(stride=2, groups=1, dimension=13)
    assert model(stride=2, groups=1, dimension=12).reconstruct(torch.zeros(1, 3, 4, 4)).shape == (1, 3, 4, 4)


def test_all_directions_lose_nothing() -> None:
    images = smooth(side=8)
    autoencoder, _ = fitted(images, stride=2, groups=1, dimension=12)
    with torch.no_grad():
        torch.testing.assert_close(autoencoder.decoder(autoencoder.encoder(images)), images, rtol=0, atol=1e-4)


def test_fitting_twice_is_the_same_and_draws_no_random_numbers() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    images = smooth()
    states = []
    for size in (8, 8, 20):
        autoencoder = model()
        torch.random.set_rng_state(before)
        autoencoder.fit(lambda size=size: iter(images.split(size)), batch=8)  # type: ignore[misc]
        assert torch.equal(torch.random.get_rng_state(), before)
        states.append(autoencoder.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    # Other batches of the same images sum up in another order.
    torch.testing.assert_close(states[2]["encoder.mean"], states[0]["encoder.mean"], rtol=1e-4, atol=1e-5)


def test_fitted_codes_are_used_and_do_better_than_fresh_ones() -> None:
    autoencoder, images = fitted(codes=8)
    assert [len(plane.unique()) for plane in autoencoder.encode(images).codes.unbind(1)] == [8, 8]
    error = float((autoencoder.reconstruct(images) - images).detach().square().mean())
    one_code = float((images - images.mean(dim=(0, 2, 3), keepdim=True)).square().mean())
    assert error < 0.5 * one_code


def test_too_few_images_for_the_codes_are_named() -> None:
    with pytest.raises(ConfigError, match="the training images have 32, the codebook 64; use more or larger images"):
        fitted(smooth(count=2), codes=64)


def test_images_that_are_all_alike_are_fitted_to() -> None:
    autoencoder, images = fitted(torch.full((40, 3, 16, 16), 0.25))
    torch.testing.assert_close(autoencoder.reconstruct(images), images, rtol=0, atol=1e-4)
    assert all(bool(tensor.isfinite().all()) for tensor in autoencoder.state_dict().values())
