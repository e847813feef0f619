"""The rate-distortion search: no image gets worse, by any number of rounds."""

from __future__ import annotations

import pytest
import torch
from codec_models import QUALITY, batches, discs, trained_codec
from torch import Tensor

from smalti.models.codec.codec import ImageCodec, step_size
from smalti.models.codec.search import DEAD_ZONE, rounded, search

RATE_WEIGHT = 0.15
kinds = pytest.mark.parametrize(
    ("channels", "neighbours"),
    [(3, False), (3, True), (4, False), (1, False)],
    ids=["rgb", "neighbours", "rgba", "grey"],
)


def images_of(channels: int, count: int = 12) -> Tensor:
    return torch.cat([batch.pixels for batch in batches(discs(count, channels=channels, seed=8))])


def costs(
    codec: ImageCodec, images: Tensor, codes: Tensor, quality: Tensor, rate_weight: float = RATE_WEIGHT
) -> Tensor:
    """J of each image in bits."""
    with torch.no_grad():
        errors = (codec.decode(codes, quality) - images).square().flatten(1).sum(dim=1)
        bits = codec.distribution(codes, quality).bits(codes).flatten(1).sum(dim=1)
    return errors / (rate_weight * step_size(quality).square()) + bits


@kinds
def test_no_image_gets_worse_with_more_rounds(channels: int, neighbours: bool) -> None:
    codec, images = trained_codec(channels=channels, neighbours=neighbours), images_of(channels)
    quality = torch.linspace(5, 90, len(images)).round()
    before = costs(codec, images, rounded(codec, images, quality), quality)
    gained = []
    for rounds in (0, 1, 2, 3, 5, 9, 16):
        codes = search(codec, images, quality, rounds=rounds, rate_weight=RATE_WEIGHT)
        after = costs(codec, images, codes, quality)
        assert (after <= before * (1 + 1e-6)).all(), rounds
        gained.append(float((after / costs(codec, images, rounded(codec, images, quality), quality)).mean()))
        before = after
    assert gained[0] == 1
    assert gained[-1] < gained[1] < 1


def test_pictures_with_little_to_gain_are_searched_too() -> None:
    """No single change of these saves as many bits as the margin begins with."""
    codec = trained_codec()
    images = torch.nn.functional.interpolate(images_of(3, 4), scale_factor=3)
    quality = torch.full((4,), 15.0)
    before = costs(codec, images, rounded(codec, images, quality), quality)
    after = costs(codec, images, search(codec, images, quality, rounds=3, rate_weight=RATE_WEIGHT), quality)
    assert (after < before - 1).all()


@kinds
def test_codes_are_integers(channels: int, neighbours: bool) -> None:
    codec, images = trained_codec(channels=channels, neighbours=neighbours), images_of(channels, 4)
    codes = search(codec, images, torch.full((4,), 60.0), rounds=3, rate_weight=RATE_WEIGHT)
    assert codes.dtype == torch.float32
    assert torch.equal(codes, codes.round())
    assert not codes.requires_grad


def test_without_rounds_codes_are_rounded_towards_zero() -> None:
    codec, images = trained_codec(), images_of(3, 4)
    quality = torch.full((4,), float(QUALITY))
    with torch.no_grad():
        scaled = codec.analyse(images) / step_size(quality)[:, None, None, None]
    found = search(codec, images, quality, rounds=0, rate_weight=RATE_WEIGHT)
    assert torch.equal(found, rounded(codec, images, quality))
    assert (found.abs() <= scaled.abs() + 0.5 - DEAD_ZONE).all()
    assert ((scaled - found).abs() < 0.5 + DEAD_ZONE + 1e-5).all()


def test_a_dearer_bit_gives_fewer_bits_and_larger_errors() -> None:
    codec, images = trained_codec(), images_of(3)
    quality = torch.full((len(images),), 60.0)
    rates, errors = [], []
    for rate_weight in (0.01, 0.15, 2.0):
        codes = search(codec, images, quality, rounds=12, rate_weight=rate_weight)
        with torch.no_grad():
            rates.append(float(codec.distribution(codes, quality).bits(codes).sum()))
            errors.append(float((codec.decode(codes, quality) - images).square().sum()))
    assert rates == sorted(rates, reverse=True)
    assert errors == sorted(errors)


def test_an_image_is_searched_as_it_is_alone() -> None:
    """Its cost does not depend on those beside it, up to roundings that decide between equal changes."""
    codec, images = trained_codec(), images_of(3, 6)
    quality = torch.tensor([10.0, 20.0, 40.0, 50.0, 60.0, 80.0])
    together = search(codec, images, quality, rounds=4, rate_weight=RATE_WEIGHT)
    for image in range(6):
        part = slice(image, image + 1)
        alone = search(codec, images[part], quality[part], rounds=4, rate_weight=RATE_WEIGHT)
        one = costs(codec, images[part], alone, quality[part])
        other = costs(codec, images[part], together[part], quality[part])
        torch.testing.assert_close(one, other, rtol=0.01, atol=0)


def test_the_search_leaves_no_gradients_behind() -> None:
    codec, images = trained_codec(), images_of(3, 2)
    for parameter in codec.parameters():
        parameter.requires_grad_(True)
    try:
        with torch.no_grad():  # as in a preview
            search(codec, images, torch.full((2,), 40.0), rounds=2, rate_weight=RATE_WEIGHT)
        assert all(parameter.grad is None for parameter in codec.parameters())
    finally:
        codec.requires_grad_(False)
