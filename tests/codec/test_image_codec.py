"""Codecs as functions of arrays: strips, regions, batches, channels, depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from codec_models import QUALITY, discs, drawn_codec, engine_of, some_codes, trained_codec
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.codec import image_codec
from smalti.codec.image_codec import CodecEngine, regions, squared_error
from smalti.models.codec.search import rounded
from smalti.runtime.pixels import premultiplied, to_tensor


def apart(found: np.ndarray, wanted: np.ndarray) -> int:
    """Levels; convolutions of other sizes may sum in another order, so a value close to the middle may round over."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    return int(np.abs(found.astype(int) - wanted.astype(int)).max())


def plain_pixels(engine: CodecEngine, codes: np.ndarray, height: int, width: int) -> np.ndarray:
    """In one pass."""
    levels = torch.full((len(codes),), float(QUALITY))
    with torch.no_grad():
        decoded = engine.module.decode(torch.from_numpy(codes).float(), levels).clamp(-1, 1)
    levels = (decoded + 1) * 127.5
    return levels.round().permute(0, 2, 3, 1).numpy()[:, :height, :width].astype(np.uint8)


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_strips_have_no_seams(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each strip sees as far beyond its border as the convolutions do."""
    engine = engine_of(drawn_codec(blocks=blocks, width=12))
    codes = some_codes((2, 48, 9, 3), spread=1)
    wanted = plain_pixels(engine, codes, 70, 21)
    for strip in (1, 24 * 8, 24 * 8 * 2, 24 * 8 * 4, 10**6):
        monkeypatch.setattr(image_codec, "STRIP", strip)
        found = engine.pixels_of(codes, QUALITY, 70, 21)
        assert apart(found, wanted) <= 1
        assert (found != wanted).mean() < 0.001
    # The test would notice a halo that is too small.
    monkeypatch.setattr(image_codec, "STRIP", 1)
    monkeypatch.setattr(type(engine.module), "refiner_reach", property(lambda self: 0))
    assert blocks == 0 or apart(engine.pixels_of(codes, QUALITY, 70, 21), wanted) > 1


def test_the_reach_is_how_far_the_convolutions_see() -> None:
    for patch, blocks in ((2, 0), (2, 2), (4, 1)):
        codec = drawn_codec(patch=patch, blocks=blocks, width=12)
        base = torch.zeros(1, 3, 64, 64)
        t = torch.zeros(1)
        with torch.no_grad():
            changed = base.clone()
            changed[:, :, 32 : 32 + patch, 32 : 32 + patch] = 1
            rows = torch.nonzero((codec.refiner(changed, t) != codec.refiner(base, t)).any(dim=1)[0].any(dim=1))[:, 0]
        assert int(rows.min()) == 32 - codec.refiner_reach
        assert int(rows.max()) == 32 + patch - 1 + codec.refiner_reach


def test_images_are_decoded_as_they_are_alone() -> None:
    engine = engine_of(trained_codec())
    codes = some_codes((7, 48, 2, 2))
    together = engine.pixels_of(codes, QUALITY, 16, 16)
    for number in range(7):
        alone = engine.pixels_of(codes[number : number + 1], QUALITY, 16, 16)
        assert apart(alone[0], together[number]) <= 1


# --- Regions


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
def test_regions_cover_a_picture_once_by_rows(height: int, width: int, side: int) -> None:
    found = np.zeros((height, width), int)
    places = list(regions(height, width, side))
    for top, left, bottom, right in places:
        assert 0 < bottom - top <= side
        assert 0 < right - left <= side
        found[top:bottom, left:right] += 1
    assert (found == 1).all()
    assert places == sorted(places)
    assert len(places) == -(-height // side) * -(-width // side)


@pytest.mark.parametrize("neighbours", [False, True], ids=["alone", "neighbours"])
def test_regions_are_searched_on_their_own(neighbours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(trained_codec(neighbours=neighbours))
    images = np.random.default_rng(0).integers(0, 256, (2, 37, 51, 3), dtype=np.uint8)
    monkeypatch.setattr(image_codec, "REGION", 30)  # 24, a multiple of the tile
    assert engine.region == 24
    found = engine.codes_of(images, QUALITY, effort=2)
    for top, left, bottom, right in regions(37, 51, 24):
        alone = engine.codes_of(images[:, top:bottom, left:right], QUALITY, effort=2)
        assert np.array_equal(found[:, :, top // 8 : -(-bottom // 8), left // 8 : -(-right // 8)], alone)


def test_a_region_has_at_least_one_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_codec, "REGION", 5)
    assert engine_of(drawn_codec()).region == 8


@settings(max_examples=10)
@given(st.integers(1, 20), st.integers(1, 20))
def test_any_size_is_padded_and_cut(height: int, width: int) -> None:
    engine = engine_of(drawn_codec())
    images = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    codes = engine.codes_of(images, QUALITY, effort=0)
    assert codes.shape[1:] == engine.grid(height, width) == (48, -(-height // 8), -(-width // 8))
    assert codes.dtype == np.int32
    assert engine.pixels_of(codes, QUALITY, height, width).shape == images.shape


# --- Pixels


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_come_back_the_better_the_higher_the_quality(channels: int) -> None:
    engine = engine_of(trained_codec(channels=channels))
    images = discs(8, channels=channels, seed=3)
    errors = [
        squared_error(engine.pixels_of(engine.codes_of(images, quality, effort=3), quality, 16, 16), images)
        for quality in (10, 30, 60)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < squared_error(np.full_like(images, 128), images) / 2


def test_codes_without_effort_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = trained_codec()
    images = discs(3)
    monkeypatch.setattr(image_codec, "fast_bfloat16", lambda device: False)
    with torch.no_grad():
        wanted = rounded(codec, to_tensor(images), torch.full((3,), float(QUALITY)))
    found = engine_of(codec).codes_of(images, QUALITY, effort=0)
    assert np.abs(found - wanted.numpy()).max() <= 1
    assert (found != wanted.numpy()).mean() < 0.001


def test_deep_pixels_are_the_same_pictures() -> None:
    engine = engine_of(trained_codec())
    images = discs(3)
    codes = engine.codes_of(images, QUALITY, effort=0)
    deep = engine.codes_of(images.astype(np.uint16) * 257, QUALITY, effort=0)
    assert (codes != deep).mean() < 0.001  # but for values close to the middle
    found = engine.pixels_of(codes, QUALITY, 16, 16, bit_depth=16)
    assert found.dtype == np.uint16
    assert np.abs(found / 257 - engine.pixels_of(codes, QUALITY, 16, 16)).max() < 0.51
    assert len(np.unique(found)) > 257


def test_the_colour_of_transparent_pixels_makes_no_difference() -> None:
    engine = engine_of(trained_codec(channels=4))
    images = discs(6, channels=4)
    other = np.where(images[..., 3:] == 0, 99, images)
    other[..., 3] = images[..., 3]
    assert (other != images).any()
    codes = engine.codes_of(images, QUALITY, effort=2)
    assert np.array_equal(engine.codes_of(other, QUALITY, effort=2), codes)
    assert squared_error(images, other) == 0


def test_colours_are_divided_by_alpha() -> None:
    """A codec that loses nothing: its basis is the identity."""
    codec = drawn_codec(channels=4, coefficients=256, groups=2)
    with torch.no_grad():
        codec.basis.weight.copy_(torch.eye(256) / codec.basis.scale)
        codec.mean.zero_()
        codec.refiner.correct.weight.zero_()
        codec.refiner.correct.bias.zero_()
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 4), dtype=np.uint8)
    images[0, :4, :, 3] = 255
    images[1, :2, :, 3] = 0
    # Premultiplied levels in steps of 2^-5.25 of a range of 2: errors of 4 levels, times 255 / alpha.
    found = engine_of(codec).pixels_of(engine_of(codec).codes_of(images, 100, effort=0), 100, 8, 8).astype(int)
    alpha = images[..., 3:].astype(int)
    assert np.abs(found[..., 3:] - alpha).max() <= 3
    errors = np.abs(found[..., :3] - images[..., :3]) * np.maximum(alpha, 1) / 255
    assert errors[np.broadcast_to(alpha > 8, errors.shape)].max() < 7
    wanted = premultiplied(to_tensor(images))
    again = premultiplied(to_tensor(found.astype(np.uint8)))
    assert float((wanted - again).abs().max()) * 127.5 < 7
    assert (found[1, :2, :, :3] == 0).all()  # transparent pixels become black


def test_squared_errors() -> None:
    black, white = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 65535, np.uint16)
    assert squared_error(black, white) == 1
    assert squared_error(black + 128, np.full((1, 2, 2, 3), 128 * 257, np.uint16)) == 0
    half = np.array([[[[255, 255, 255, 51]]]], np.uint8)
    clear = np.array([[[[0, 0, 0, 0]]]], np.uint8)
    assert squared_error(half, clear) == pytest.approx(0.2**2)
