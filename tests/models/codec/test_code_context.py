"""The context net of VQ codes: what its bits depend on, where it starts, how large it is."""

from __future__ import annotations

import math

import pytest
import torch
from variants import VARIANTS

from smalti.config.code_context import CodeContextConfig
from smalti.config.quantizer import QuantizerConfig
from smalti.models.codec.code_context import CodeContextNet
from smalti.models.codec.code_symbols import NEIGHBOURS

SMALL = CodeContextConfig(embedding=4, width=16)


def codes_of(sizes: tuple[int, ...], count: int = 2, height: int = 3, width: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    planes = [torch.randint(0, size, (count, height, width), generator=generator) for size in sizes]
    return torch.stack(planes, dim=1)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_the_probabilities_of_every_quantizers_codes_sum_to_one(config: QuantizerConfig) -> None:
    sizes = config.codebook_sizes
    torch.manual_seed(0)
    net = CodeContextNet(SMALL, sizes)
    plane = len(sizes) - 1
    codes = codes_of(sizes, 1, 1, 1).repeat(sizes[plane], 1, 1, 1)
    codes[:, plane, 0, 0] = torch.arange(sizes[plane])
    with torch.no_grad():
        bits = net(codes)
    assert bits.shape == codes.shape
    total = float(torch.exp2(-bits[:, plane]).sum())
    spare = -sizes[plane] % (net.sizes[-1] if len(net.sizes) > len(sizes) else 1)  # ranks that no code has
    assert total <= 1 + 1e-4
    assert spare > 0 or total == pytest.approx(1, abs=1e-4)
    assert all(bits[0, other].eq(bits[-1, other]).all() for other in range(plane))


def test_bits_depend_on_the_six_neighbours_and_the_earlier_planes_alone() -> None:
    sizes = (7, 5, 5000)
    torch.manual_seed(0)
    net = CodeContextNet(SMALL, sizes)
    codes = codes_of(sizes, 1, 5, 6)
    before = net(codes)
    for row, column, plane in [(2, 3, 0), (2, 3, 1), (2, 3, 2), (0, 0, 1), (4, 5, 0)]:
        changed = codes.clone()
        changed[0, plane, row, column] = (codes[0, plane, row, column] + 1) % sizes[plane]
        different = (net(changed) != before)[0]
        expected = torch.zeros_like(different)
        expected[plane:, row, column] = True
        for down, right in NEIGHBOURS:
            y, x = row - down, column - right
            if 0 <= y < 5 and 0 <= x < 6:
                expected[:, y, x] = True
        assert torch.equal(different, expected)


def test_it_starts_from_the_frequencies() -> None:
    sizes = (4, 4500)
    counts = [torch.tensor([8.0, 4.0, 2.0, 2.0]), torch.arange(4500) % 3 + 1.0]
    torch.manual_seed(0)
    net = CodeContextNet(SMALL, sizes)
    net.last.data.zero_()
    net.fit([torch.randn(4, 3), torch.randn(4500, 3)], counts)
    assert net.ranks is not None
    assert torch.equal(net.ranks.sort().values, torch.arange(4500))
    codes = torch.tensor([0, 1, 2, 3]).view(4, 1, 1, 1).repeat(1, 2, 1, 1)
    torch.testing.assert_close(net(codes)[:, 0, 0, 0], torch.tensor([1.0, 2.0, 3.0, 3.0]))
    assert net(codes_of(sizes))[:, 1].mean().item() == pytest.approx(math.log2(4500), abs=0.3)


def test_similar_codes_start_with_similar_rows() -> None:
    torch.manual_seed(0)
    values = torch.randn(6, 3).repeat_interleave(2, dim=0) + 0.01 * torch.randn(12, 3)
    net = CodeContextNet(CodeContextConfig(embedding=3), (12,))
    net.fit([values], [torch.ones(12)])
    distances = torch.cdist(net.table[:12], net.table[:12]).fill_diagonal_(9)
    assert torch.equal(distances.argmin(dim=1), torch.arange(12) ^ 1)


@pytest.mark.parametrize(
    ("sizes", "most"), [((512,), 200_000), ((512,) * 64, 2_600_000), ((16384,), 150_000), ((2**20,), 600_000)]
)
def test_its_size_is_bounded(sizes: tuple[int, ...], most: int) -> None:
    with torch.device("meta"):
        net = CodeContextNet(CodeContextConfig(), sizes)
    assert sum(parameter.numel() for parameter in net.parameters()) <= most
