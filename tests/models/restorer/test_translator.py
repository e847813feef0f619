"""Translators: the network of a restorer, its feature maps, and the heads that compare patches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from smalti.config.restorer import FlatConfig, UNetConfig
from smalti.config.translator import TranslatorConfig
from smalti.data.spec import ImageSpec
from smalti.models.restorer.translator import PatchHeads, build_translator


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        (UNetConfig(width=4, levels=3), [(12, 8, 8), (4, 8, 8), (4, 8, 8), (8, 4, 4), (16, 2, 2)]),
        (FlatConfig(width=4, blocks=1), [(3, 11, 15), (4, 11, 15), (4, 11, 15)]),
    ],
)
def test_the_result_has_the_size_and_the_maps_are_those_of_the_way_down(network, shapes) -> None:
    model = build_translator(TranslatorConfig(network), ImageSpec(3, 11, 15), 0, None)
    images = torch.rand(2, 3, 11, 15) * 2 - 1
    assert torch.equal(model(images), images), "at first nothing is changed"
    maps = model.maps(images)
    assert [tuple(part.shape[1:]) for part in maps] == shapes


def test_the_last_map_decides_the_result() -> None:
    """The maps are those that the result is computed from: the way up from them gives it."""
    torch.manual_seed(0)
    model = build_translator(TranslatorConfig(FlatConfig(width=4, blocks=2)), ImageSpec(3, 8, 8), 0, None)
    nn.init.normal_(model.head.weight)
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    assert torch.allclose(model(images), images + model.head(model.maps(images)[-1]), atol=1e-6)


def test_heads_give_unit_vectors_of_the_places() -> None:
    torch.manual_seed(0)
    heads = PatchHeads([3, 5], 7)
    maps = [torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)]
    places = [torch.tensor([[0, 23, 5], [1, 2, 3]]), torch.tensor([[5], [0]])]
    first, second = heads(maps, places)
    assert (first.shape, second.shape) == ((2, 3, 7), (2, 1, 7))
    assert torch.allclose(first.norm(dim=2), torch.ones(2, 3))
    wanted = heads.heads[0](maps[0][0, :, 3, 5])
    assert torch.allclose(first[0, 1], wanted / wanted.norm(), atol=1e-6)
