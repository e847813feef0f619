"""The context net: what it sees, and what it must not see."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from codec_models import drawn_codec, some_codes
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smalti.config.codec import ContextConfig
from smalti.models.codec.context import (
    EDGES,
    LARGEST,
    NEIGHBOURS,
    ContextNet,
    GroupNet,
    compressed,
    edge_sums,
    group_bounds,
    masked,
    phases,
    quality_variable,
    surroundings,
)

both = pytest.mark.parametrize("neighbours", [False, True], ids=["alone", "neighbours"])


# --- Groups and features


@given(st.integers(1, 16384), st.integers(1, 64))
def test_groups_cover_all_coefficients_and_grow(coefficients: int, groups: int) -> None:
    bounds = group_bounds(coefficients, groups)
    sizes = [end - start for start, end in itertools.pairwise(bounds)]
    assert bounds[0] == 0
    assert bounds[-1] == coefficients
    assert len(sizes) == min(groups, coefficients)
    assert min(sizes) >= 1
    assert sizes[-1] == max(sizes) or coefficients < 5 * groups


def test_groups_of_the_presets() -> None:
    """They decide the shapes of the weights: a change makes models unreadable."""
    assert group_bounds(1024, 12) == [0, 4, 7, 11, 18, 30, 50, 82, 136, 226, 374, 619, 1024]
    assert group_bounds(768, 8) == [0, 4, 8, 18, 38, 81, 171, 362, 768]


def test_features_are_logarithms_that_are_linear_between_powers_of_two() -> None:
    for q in range(-300, 301):
        m = 1 + abs(q)
        power = 2 ** (m.bit_length() - 1)
        wanted = math.copysign(min(math.log2(power) + (m - power) / power, LARGEST), q) if q else 0.0
        assert float(compressed(torch.tensor(float(q)))) == wanted


def test_features_have_the_slopes_of_their_pieces() -> None:
    codes = torch.tensor([0.5, 1.5, 2.5, 6.0, -6.0, 200.0, 300.0], requires_grad=True)
    compressed(codes).sum().backward()
    assert codes.grad is not None
    assert codes.grad.tolist() == [1, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 128, 0]


def test_qualities_are_exact_in_binary() -> None:
    assert quality_variable(torch.tensor([1.0, 50.0, 82.0])).tolist() == [-49 / 32, 0, 1]


# --- Neighbours


def test_surroundings_are_the_eight_neighbours_and_zero_outside() -> None:
    values = torch.arange(1.0, 25).view(2, 1, 3, 4)
    found = surroundings(values)
    assert found.shape == (24, 8, 1)
    for image in range(2):
        for y in range(3):
            for x in range(4):
                for number, (down, right) in enumerate(NEIGHBOURS):
                    there = 0 <= y + down < 3 and 0 <= x + right < 4
                    wanted = float(values[image, 0, y + down, x + right]) if there else 0
                    assert float(found[12 * image + 4 * y + x, number, 0]) == wanted
    edges = found[:, list(EDGES), 0].sum(dim=1)
    assert torch.equal(edge_sums(values)[:, 0], edges)
    assert all(abs(down) + abs(right) == 1 for down, right in (NEIGHBOURS[number] for number in EDGES))


def test_tiles_that_share_an_edge_have_the_other_phase() -> None:
    grid = phases(3, 4).view(3, 4)
    assert grid.tolist() == [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]


def test_what_is_not_yet_known_is_masked() -> None:
    around = torch.ones(5, 8, 10)
    for phase in (0, 1):
        found = masked(around, 4, phase)
        assert (found[:, :, :4] == 1).all()
        for number in range(8):
            assert (found[:, number, 4:] == float(phase == 1 and number in EDGES)).all()


def passes(net: ContextNet) -> list[tuple[int, int]]:
    return [(group, phase) for group in range(len(net.bounds) - 1) for phase in range(2 if net.neighbours else 1)]


def coded(net: ContextNet, group: int, phase: int, shape: tuple[int, ...]) -> Tensor:
    """Where a pass codes something."""
    found = torch.zeros(shape, dtype=torch.bool)
    tiles = phases(*shape[2:]).view(shape[2:]) == phase if net.neighbours else torch.ones(shape[2:], dtype=torch.bool)
    found[:, net.bounds[group] : net.bounds[group + 1]] = tiles
    return found


@both
def test_unknown_codes_change_no_distribution(neighbours: bool) -> None:
    """For every group and phase: whatever is coded later, or now."""
    net = drawn_codec(neighbours=neighbours).context
    codes, quality = torch.from_numpy(some_codes((2, 48, 3, 4))).float(), torch.tensor([10.0, 60.0])
    wanted, known = net(codes, quality), torch.zeros(codes.shape, dtype=torch.bool)
    other = torch.from_numpy(some_codes((2, 48, 3, 4), seed=1, spread=20)).float()
    for group, phase in passes(net):
        now = coded(net, group, phase, codes.shape)
        assert not (now & known).any()
        found = net(torch.where(known, codes, other), quality)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a[now], b[now], rtol=0, atol=1e-5)
        known |= now
    assert known.all()


@both
def test_known_codes_do_change_it(neighbours: bool) -> None:
    """Those of earlier groups of the tile, and with neighbours those around it that are coded before."""
    net = drawn_codec(neighbours=neighbours).context
    codes, quality = torch.from_numpy(some_codes((1, 48, 3, 3))).float(), torch.tensor([40.0])
    group = 2
    start, end = net.bounds[group : group + 2]

    def seen(coefficient: int, y: int, x: int) -> bool:
        """Whether the group's distributions of the tile in the middle, which is even, or beside it change."""
        changed = codes.clone()
        changed[0, coefficient, y, x] += 5
        before, after = net(codes, quality), net(changed, quality)
        return any(bool((a != b)[0, start:end, 1, 1].any()) for a, b in zip(before, after, strict=True))

    assert seen(0, 1, 1)
    assert seen(start - 1, 1, 1)
    assert not seen(start, 1, 1)
    for y in range(3):
        for x in range(3):
            if (y, x) != (1, 1):
                assert seen(0, y, x) == neighbours
                assert not seen(start, y, x)  # the middle is coded in the first phase
    changed = codes.clone()
    changed[0, start, 1, 1] += 5
    beside = (net(codes, quality).mean != net(changed, quality).mean)[0, start:end]
    assert bool(beside[:, 0, 1].any()) == neighbours
    assert not beside[:, 0, 0].any()  # even, too


@both
def test_images_of_a_batch_have_nothing_to_do_with_each_other(neighbours: bool) -> None:
    net = drawn_codec(neighbours=neighbours).context
    codes, quality = torch.from_numpy(some_codes((3, 48, 2, 3))).float(), torch.tensor([1.0, 40.0, 100.0])
    together = net(codes, quality)
    for image in range(3):
        alone = net(codes[image : image + 1], quality[image : image + 1])
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a[0], b[image], rtol=0, atol=1e-5)


# --- Layers


def test_a_net_is_its_formula() -> None:
    torch.manual_seed(0)
    net = GroupNet(6, 5, 4, 3, 7)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    inputs, linear, t = torch.randn(9, 11), torch.randn(9, 4), torch.linspace(-1, 1, 9)
    powers = torch.stack([t**0, t, t**2], dim=1)
    assert net.linear is not None
    h1 = (inputs @ net.first.weight.T + powers @ net.first_bias.weight).clamp(0, LARGEST)
    h2 = (h1 @ net.second.weight.T + net.second.bias).clamp(0, LARGEST)
    wanted = h2 @ net.last.weight.T + powers @ net.last_bias.weight
    wanted[:, :3] += linear @ net.linear.weight.T / 64
    torch.testing.assert_close(net(inputs, linear, t), wanted)


@both
def test_the_first_scales_are_those_of_the_variances(neighbours: bool) -> None:
    """The code of a coefficient with the variance v has the standard deviation sqrt(v) / step."""
    net = ContextNet(ContextConfig(groups=3, width=8, neighbours=neighbours), 10)
    for part in net.nets:
        torch.nn.init.zeros_(part.last.weight)
    variances = 4.0 ** torch.arange(2, -8, -1)
    net.fit(variances)
    for quality in (18.0, 50.0, 66.0):
        found = net(torch.zeros(1, 10, 2, 2), torch.tensor([quality])).log_scale[0, :, 0, 0]
        wanted = torch.log2(variances.sqrt() / 2 ** (1 - quality / 16) / (math.pi / 3**0.5))
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.02)
