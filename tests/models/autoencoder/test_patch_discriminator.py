"""The discriminators of patches: one logit a place, silent at first, each seeing a patch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from smalti.models.autoencoder.patch_discriminator import MapDiscriminator, PatchDiscriminator


def discriminator(channels: int = 3, width: int = 8) -> PatchDiscriminator:
    torch.manual_seed(0)
    network = PatchDiscriminator(channels, width)
    nn.init.normal_(network.head.weight)
    return network


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(4, 4), (8, 12), (33, 18), (5, 7)])
def test_a_logit_for_every_four_pixels(channels: int, size: tuple[int, int]) -> None:
    found = discriminator(channels)(images(2, channels, *size))
    assert found.shape == (2, 1, size[0] // 4, size[1] // 4)


def test_a_fresh_one_has_no_opinion_but_learns_one() -> None:
    network = PatchDiscriminator(3, 8)
    found = network(images(2, 3, 16, 16))
    assert not found.any()
    torch.nn.functional.softplus(found).mean().backward()
    assert bool(network.head.weight.grad.any())


def test_a_logit_sees_its_patch_alone() -> None:
    network = discriminator()
    for norm in (network.norm2, network.norm3):
        norm.forward = lambda x: x  # type: ignore[method-assign]  # its statistics are the whole image's
    x = images(1, 3, 64, 64).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, 0, 8, 8], x)
    rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert (int(rows.max()) - int(rows.min()) + 1) == 26


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network, x = discriminator(), images(4, 3, 16, 16)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]))


def test_every_weight_learns() -> None:
    network = discriminator()
    network(images(2, 3, 16, 16)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def map_discriminator() -> MapDiscriminator:
    torch.manual_seed(0)
    network = MapDiscriminator(5, 8)
    nn.init.normal_(network.head.weight)
    return network


@pytest.mark.parametrize("size", [(1, 1), (4, 7)])
def test_a_logit_for_every_place_of_a_map(size: tuple[int, int]) -> None:
    assert map_discriminator()(images(2, 5, *size)).shape == (2, 1, *size)
    assert not MapDiscriminator(5, 8)(images(2, 5, *size)).any()


def test_the_size_of_the_vectors_of_a_map_says_nothing() -> None:
    network, maps = map_discriminator(), images(2, 5, 4, 4)
    sizes = torch.tensor([1e-3, 1.0, 7.0, 1e4]).reshape(4, 1)
    torch.testing.assert_close(network(maps * sizes), network(maps), rtol=1e-4, atol=1e-4)


def test_a_logit_of_a_map_sees_its_neighbours_alone() -> None:
    network = map_discriminator()
    network.norm2.forward = lambda x: x  # type: ignore[method-assign]  # its statistics are the whole map's
    x = images(1, 5, 16, 16).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, 0, 8, 8], x)
    assert gradient.abs().sum(dim=(0, 1, 3)).nonzero().flatten().tolist() == [7, 8, 9]


def test_every_weight_of_a_judge_of_maps_learns() -> None:
    network = map_discriminator()
    network(images(2, 5, 4, 4)).square().mean().backward()
    assert all(bool(parameter.grad.any()) for parameter in network.parameters())
