"""Judges of feature maps: a logit for each place, each map as much as another."""

from __future__ import annotations

import pytest
import torch
from networks import strong
from torch import nn

from smalti.models.gan.feature_discriminator import DoubleDiscriminator, FeatureDiscriminator

SHAPES = ((5, 8), (6, 4), (7, 2))  # channels, side


def maps(count: int = 3) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(count, channels, side, side) for channels, side in SHAPES]


def build(classes: int = 0) -> FeatureDiscriminator:
    torch.manual_seed(0)
    return strong(FeatureDiscriminator([channels for channels, _ in SHAPES], 8, classes))


@pytest.mark.parametrize("classes", [0, 2])
def test_a_coarse_place_stands_for_as_many_fine_ones_as_it_covers(classes: int) -> None:
    labels = torch.tensor([0, 1, 1]) if classes else None
    logits = build(classes)(maps(), labels)
    assert logits.shape == (3, 3, 64)
    for number, (_, side) in enumerate(SHAPES):
        rows = logits[:, number].view(3, side * side, -1)
        assert torch.equal(rows, rows[:, :, :1].expand_as(rows))
        assert rows[0, :, 0].unique().numel() == side * side


def test_each_judge_sees_its_own_map_and_each_image_alone() -> None:
    network, seen = build(), maps()
    before = network(seen)
    seen[1][2] += 1
    changed = (network(seen) != before).any(dim=2)
    assert changed.nonzero().tolist() == [[2, 1]]


def test_a_label_counts_at_every_place() -> None:
    network = build(2)
    one, other = (network(maps(), torch.full((3,), label)) for label in (0, 1))
    assert bool((one != other).all())


def test_pixels_count_as_much_as_all_maps() -> None:
    class Mean(nn.Module):
        def forward(self, images, labels, draws):
            return images.mean(dim=(1, 2, 3))

    images = torch.randn(3, 3, 8, 8)
    logits = DoubleDiscriminator(Mean(), build())([images, *maps()])
    assert logits.shape == (3, 6, 64)
    torch.testing.assert_close(logits[:, :3], images.mean(dim=(1, 2, 3))[:, None, None].expand(3, 3, 64))
    assert torch.equal(logits[:, 3:], build()(maps()))
