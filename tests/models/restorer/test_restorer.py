"""Networks that restore images: sizes, identity at first, and what a pixel of the result depends on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from smalti.config.restorer import FlatConfig, RestorerConfig, RestorerNetworkConfig, UNetConfig
from smalti.models.restorer.restorer import Restorer, enlarged

NETWORKS = (
    UNetConfig(width=8),
    UNetConfig(width=4, levels=2, blocks=2, middle=1, patch=1),
    UNetConfig(width=4, levels=1, middle=1),
    FlatConfig(width=8, blocks=2),
    FlatConfig(width=4, blocks=1, patch=2),
)


def network(config: RestorerNetworkConfig, degradation: str = "noise(5)", channels: int = 3) -> Restorer:
    """A restorer with random weights, also where training begins with zeros."""
    torch.manual_seed(0)
    model = Restorer(RestorerConfig(degradation, config), channels).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("degradation", ["noise(5)", "down(2)", "down(3) jpeg(50)", "mask(boxes,0.1)"])
@pytest.mark.parametrize("config", NETWORKS)
def test_any_size_comes_back_in_its_scale(config: RestorerNetworkConfig, degradation: str) -> None:
    model = network(config, degradation)
    for height, width in ((1, 1), (7, 16), (16, 5), (33, 20)):
        hole = torch.ones(2, 1, height, width) if model.holes else None
        found = model(torch.rand(2, 3, height, width) * 2 - 1, hole)
        assert found.shape == (2, 3, model.scale * height, model.scale * width)
        assert found.dtype == torch.float32


@pytest.mark.parametrize("degradation", ["noise(5)", "down(2)"])
def test_a_new_network_changes_nothing(degradation: str) -> None:
    model = Restorer(RestorerConfig(degradation, UNetConfig(width=8)), 3)
    images = torch.rand(1, 3, 16, 24) * 2 - 1
    assert torch.equal(model(images), enlarged(images, model.scale))


@pytest.mark.parametrize("degradation", ["noise(5)", "down(2)"])
@pytest.mark.parametrize("config", NETWORKS)
def test_no_pixel_sees_farther_than_the_reach(config: RestorerNetworkConfig, degradation: str) -> None:
    model = network(config, degradation)
    side = model.multiple * ((2 * model.reach + 20) // model.multiple + 1)
    images = torch.rand(1, 3, side, side) * 2 - 1
    with torch.no_grad():
        before = model(images)
        for place in range(side // 2, side // 2 + model.multiple):
            changed = images.clone()
            changed[:, :, place, place] += 1
            touched = (model(changed) - before).abs().amax(dim=(0, 1)).nonzero()
            assert len(touched)
            distance = (touched.div(model.scale, rounding_mode="floor") - place).abs().max()
            assert distance <= model.reach
