"""Blocks against torch's own, and dropout as the law of large numbers sees it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from smalti.nn.blocks import (
    BatchNorm2d,
    ConvolutionPair,
    Dropout,
    NormalizedBlock,
    PlainBlock,
    ResidualBlock,
    Upsample,
    group_norm,
)
from smalti.runtime.rng import Draws


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_of_one_rank_is_torchs_own(affine: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm2d(5, affine=affine), nn.BatchNorm2d(5, affine=affine)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for _ in range(3):
        x = torch.randn(4, 5, 3, 2) * 3 + 1
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        left, right = ours(a), theirs(b)
        torch.testing.assert_close(left, right, rtol=0, atol=0)
        left.square().sum().backward()
        right.square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)
    for name, buffer in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], buffer)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_of_two_ranks_with_equal_shares_is_that_of_both(
    affine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm2d(5, affine=affine), nn.BatchNorm2d(5, affine=affine)
    for norm in (ours, theirs):
        for parameter, value in zip(norm.parameters(), (2.0, -1.0), strict=affine):
            nn.init.constant_(parameter, value)
    x = torch.randn(4, 5, 3, 2) * 3 + 1
    expected = theirs(torch.cat([x, x]))[:4]
    # The other rank has the same images: whatever it adds is what this one has.
    monkeypatch.setattr("smalti.nn.blocks.world", lambda: 2)
    monkeypatch.setattr("smalti.nn.blocks.all_reduce_sum_with_gradient", lambda tensor: 2 * tensor)
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))


def test_batch_norm_without_an_affine_map_has_no_weights_and_unit_variance() -> None:
    norm = BatchNorm2d(5, affine=False)
    assert not list(norm.parameters())
    y = norm(torch.randn(8, 5, 4, 4) * 3 + 1)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var(dim=(0, 2, 3), correction=0), torch.ones(5), rtol=0, atol=1e-4)


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_keeps_the_mean(probability: float) -> None:
    x = torch.ones(16, 8, 32, 32)
    y = Dropout(probability)(x, Draws(1, 2))
    keep = 1 - probability
    zero = float((y == 0).float().mean())
    # Five standard deviations of a binomial share, and the 2^-16 to which the probability is rounded.
    margin = 5 * (keep * probability / x.numel()) ** 0.5 + 2**-16
    assert abs(zero - probability) < margin
    assert torch.equal(y.unique(), torch.tensor([0.0, 1 / keep]))


def test_dropout_treats_every_channel_place_and_image_alike() -> None:
    y = Dropout(0.5)(torch.ones(32, 16, 16, 16), Draws(3, 0)).bool().float()
    for dims in [(0, 2, 3), (1, 2, 3), (0, 1)]:
        share = y.mean(dim=dims)
        count = y.numel() / share.numel()
        assert float((share - 0.5).abs().max()) < 5 * (0.25 / count) ** 0.5


def test_dropout_depends_on_its_draws_alone() -> None:
    x = torch.randn(2, 3, 4, 4)
    layer = Dropout(0.5)
    assert torch.equal(layer(x, Draws(1, 64)), layer(x, Draws(1, 64)))
    assert not torch.equal(layer(x, Draws(1, 64)), layer(x, Draws(1, 128)))
    assert not torch.equal(layer(x, Draws(1, 64)), layer(x, Draws(2, 64)))
    draws = Draws(1, 64)
    assert not torch.equal(layer(x, draws), layer(x, draws)), "two layers of one step must not share a mask"


@pytest.mark.parametrize("probability", [1e-7, 1e-5])
def test_a_tiny_dropout_keeps_nearly_everything(probability: float) -> None:
    kept = Dropout(probability)(torch.ones(4, 4, 16, 16), Draws(0, 0)) > 0
    assert float(kept.float().mean()) > 0.99


def test_dropout_rests_in_eval_without_draws_and_at_zero() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert Dropout(0.5).eval()(x, Draws(0, 0)) is x
    assert Dropout(0.5)(x, None) is x
    assert Dropout(0.0)(x, Draws(0, 0)) is x


def test_dropout_keeps_the_type_of_what_it_drops() -> None:
    x = torch.ones(1, 2, 4, 4, dtype=torch.bfloat16)
    assert Dropout(0.5)(x, Draws(0, 0)).dtype == torch.bfloat16


def test_residual_block_is_its_formula() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(6, 3)
    x = torch.randn(2, 6, 5, 7)
    inner = F.conv2d(x.clamp(min=0), block.conv1.weight, block.conv1.bias, padding=1)
    expected = x + F.conv2d(inner.clamp(min=0), block.conv2.weight, block.conv2.bias)
    torch.testing.assert_close(block(x), expected)
    assert block.conv1.weight.shape == (3, 6, 3, 3)
    assert block.conv2.weight.shape == (6, 3, 1, 1)


def test_plain_block_halves_rounding_up() -> None:
    block = PlainBlock(3, 8, stride=2)
    assert block(torch.randn(2, 3, 7, 4)).shape == (2, 8, 4, 2)
    assert block.conv.bias is None


def test_upsample_repeats_every_pixel() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert torch.equal(Upsample()(x), x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


@pytest.mark.parametrize("kind", [ConvolutionPair, NormalizedBlock])
def test_a_fresh_block_is_the_identity_and_learns(kind: type[ConvolutionPair | NormalizedBlock]) -> None:
    torch.manual_seed(0)
    block, x = kind(8), torch.randn(2, 8, 5, 4)
    assert torch.equal(block(x), x)
    optimizer = torch.optim.SGD(block.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        block(x).square().mean().backward()
        optimizer.step()
    assert all(bool(parameter.grad.any()) for parameter in block.parameters())


def test_convolution_pair_is_its_formula() -> None:
    torch.manual_seed(0)
    block, x = ConvolutionPair(6), torch.randn(2, 6, 5, 7)
    nn.init.normal_(block.conv2.weight)
    inner = F.conv2d(x.clamp(min=0), block.conv1.weight, block.conv1.bias, padding=1)
    expected = x + F.conv2d(inner.clamp(min=0), block.conv2.weight, block.conv2.bias, padding=1)
    torch.testing.assert_close(block(x), expected)


def test_normalized_block_is_its_formula() -> None:
    torch.manual_seed(0)
    block, x = NormalizedBlock(32), torch.randn(2, 32, 5, 7)
    nn.init.normal_(block.conv2.weight)
    y = x
    for norm, conv in [(block.norm1, block.conv1), (block.norm2, block.conv2)]:
        groups = y.reshape(2, 2, 16 * 5 * 7)
        spread = groups.var(dim=2, keepdim=True, correction=0)
        y = ((groups - groups.mean(dim=2, keepdim=True)) / (spread + norm.eps).sqrt()).view_as(x)
        y = F.conv2d(y * torch.sigmoid(y), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(block(x), x + y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("width", "groups"), [(1, 1), (8, 1), (16, 1), (17, 1), (32, 2), (48, 3), (100, 5), (128, 8), (97, 1)]
)
def test_groups_have_sixteen_channels_or_more(width: int, groups: int) -> None:
    norm = group_norm(width)
    assert (norm.num_groups, norm.num_channels) == (groups, width)
    assert norm(torch.randn(1, width, 3, 3)).shape == (1, width, 3, 3)
