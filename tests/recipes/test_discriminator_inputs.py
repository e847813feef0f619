"""What the discriminator is shown of images, and gamma from it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smalti.config.gan import DiscriminatorConfig
from smalti.data.spec import ImageSpec
from smalti.features.extractor import Extractor, extractor
from smalti.recipes.base import TrainingContext
from smalti.recipes.discriminator_inputs import FeatureInputs, _squares, build_discriminator_inputs, pixels
from smalti.recipes.gamma import SHARE, automatic_gamma
from smalti.runtime.rng import Draws


@pytest.fixture(scope="module")
def network() -> Extractor:
    return extractor("smalti-vit")


def images(channels: int, height: int, width: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, height, width, generator=generator) * 2 - 1


def test_pixels_are_the_images_themselves() -> None:
    x = images(3, 8, 8)
    assert pixels(x, Draws(0, 0))[0] is x


@pytest.mark.parametrize(
    ("channels", "height", "width", "views"),
    [(3, 32, 32, 1), (3, 16, 16, 1), (1, 28, 28, 1), (3, 48, 64, 2), (3, 64, 64, 2), (3, 128, 160, 3), (4, 32, 32, 2)],
)
def test_larger_images_have_more_views(network: Extractor, channels: int, height: int, width: int, views: int) -> None:
    sight = FeatureInputs(network, (channels, height, width))
    found = sight(images(channels, height, width), Draws(0, 0))
    assert [maps.shape[1] for maps in found] == sight.channels
    assert len(found) == 5 * views
    assert all(maps.shape[0] == 2 for maps in found)


def test_an_image_of_the_networks_size_is_seen_as_it_is(network: Extractor) -> None:
    x = images(3, 32, 32)
    loss = network.perceptual_loss()
    for found, expected in zip(FeatureInputs(network, (3, 32, 32))(x, Draws(0, 0)), loss.maps(x)[1:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("sees", "count"), [("pixels", 1), ("features", 5), ("both", 5)])
def test_a_discriminator_of_both_sees_the_image_and_the_coarser_maps(sees: str, count: int) -> None:
    sight, channels = build_discriminator_inputs(DiscriminatorConfig(sees), TrainingContext(ImageSpec(3, 32, 32)))
    x = images(3, 32, 32)
    found = sight(x, Draws(0, 0))
    assert len(found) == count
    assert (found[0] is x) == (sees != "features")
    maps = found if sees == "features" else found[1:]
    assert [part.shape[1] for part in maps] == channels
    context = TrainingContext(ImageSpec(3, 32, 32))
    every = build_discriminator_inputs(DiscriminatorConfig("features"), context)[0](x, Draws(0, 0))
    for part, expected in zip(reversed(maps), reversed(every), strict=False):
        assert torch.equal(part, expected)


def test_a_network_in_bfloat16_sees_about_the_same_and_gives_gradients(network: Extractor) -> None:
    """Its weights are copies: those of the extractor stay as they are."""
    x = images(3, 32, 32).requires_grad_()
    coarse, fine = (FeatureInputs(network, (3, 32, 32), precision=name) for name in ("bfloat16", "float32"))
    slopes = []
    for sight in (coarse, fine):
        maps = [part.float() for part in sight(x, Draws(0, 0))]
        slopes += torch.autograd.grad(torch.stack([part.square().mean() for part in maps]).sum(), x)
    x = x.detach()
    for found, expected in zip(coarse(x, Draws(0, 0)), fine(x, Draws(0, 0)), strict=True):
        assert (found.dtype, expected.dtype) == (torch.bfloat16, torch.float32)
        assert float((found - expected).norm() / expected.norm()) < 0.03
    assert float((slopes[0] - slopes[1]).norm() / slopes[1].norm()) < 0.1


def test_squares_are_cut_from_each_image_at_its_own_place() -> None:
    places = torch.arange(40 * 50).view(1, 1, 40, 50).float().expand(512, 1, 40, 50)
    cut = _squares(places, 16, Draws(0, 0))
    assert cut.shape == (512, 1, 16, 16)
    assert torch.equal(cut - cut[:, :, :1, :1], places[:, :, :16, :16])
    first = cut[:, 0, 0, 0].long()
    rows, columns = (first // 50).tolist(), (first % 50).tolist()
    assert set(rows) == set(range(40 - 16 + 1))
    assert set(columns) == set(range(50 - 16 + 1))
    assert len(set(zip(rows, columns, strict=True))) > 300, "one does not follow from the other"


def test_the_alpha_of_an_image_has_a_gradient_where_its_colour_is_white(network: Extractor) -> None:
    x = torch.ones(1, 4, 32, 32)
    x[:, 3] = images(1, 32, 32, 1)[:, 0]
    x.requires_grad_()
    sight = FeatureInputs(network, (4, 32, 32))
    torch.stack([maps.square().mean() for maps in sight(x, Draws(0, 0))]).sum().backward()
    assert x.grad is not None
    assert float(x.grad[:, 3].abs().max()) > 0


@pytest.mark.parametrize(("images", "factor"), [(None, 1.0), (100_000, 2.0), (2_500, 41.0)])
def test_gamma_is_in_proportion_to_the_variance_of_each_thing_that_is_seen(images: int | None, factor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [[torch.randn(50, 3, 4, 4, generator=generator), 5 + 2 * torch.randn(50, 2, 2, 2, generator=generator)]
             for _ in range(8)]  # fmt: skip
    found = automatic_gamma(parts, images)
    variances = [torch.cat([batch[j] for batch in parts]).double().var(dim=0, unbiased=False).sum() for j in range(2)]
    torch.testing.assert_close(found, SHARE * factor * torch.stack(variances).float())
    assert float(automatic_gamma([[torch.ones(4, 1, 2, 2)]], images)) == 0
