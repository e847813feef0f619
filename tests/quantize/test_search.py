"""The nearest code against float64 brute force."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smalti.quantize import search
from smalti.quantize.search import nearest


def squared_distances(rows: Tensor, codebook: Tensor) -> Tensor:
    return (rows.double()[:, None] - codebook.double()[None]).square().sum(dim=2)


def check(rows: Tensor, codebook: Tensor) -> None:
    """The chosen code is the best one to within float32: both terms of |e|^2/2 - z.e are rounded once for each of D."""
    codes = nearest(rows, codebook)
    assert codes.dtype == torch.int64
    assert codes.shape == rows.shape[:1]
    table = squared_distances(rows, codebook)
    chosen, best = table.gather(1, codes[:, None])[:, 0], table.min(dim=1).values
    size = codebook.double().square().sum(dim=1).max() + rows.double().square().sum(dim=1)
    allowed = size * torch.finfo(torch.float32).eps * (codebook.shape[1] + 4)
    assert (chosen - best <= allowed).all()


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize(("codes", "dimension"), [(1, 1), (2, 3), (64, 8), (513, 64)])
def test_the_nearest_code(count: int, codes: int, dimension: int) -> None:
    torch.manual_seed(0)
    check(torch.randn(count, dimension), torch.randn(codes, dimension))


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    rows, codebook = torch.randn(1000, 4), torch.randn(100, 4)
    whole = nearest(rows, codebook)
    monkeypatch.setattr(search, "CHUNK_BYTES_CPU", 1)
    assert torch.equal(nearest(rows, codebook), whole)


@pytest.mark.parametrize("scale", [1e-8, 1e8, 1e15])
def test_any_size_of_latents(scale: float) -> None:
    torch.manual_seed(0)
    check(torch.randn(200, 8) * scale, torch.randn(32, 8) * scale)


def test_far_from_the_origin() -> None:
    torch.manual_seed(0)
    check(torch.randn(200, 8) + 1000, torch.randn(32, 8) + 1000)


def test_ties_go_to_the_lowest_index() -> None:
    torch.manual_seed(0)
    distinct = torch.randn(10, 4)
    codebook = distinct.repeat(3, 1)
    codes = nearest(distinct, codebook)
    assert torch.equal(codes, torch.arange(10))
    assert int(nearest(torch.randn(500, 4), codebook).max()) < 10
    assert torch.equal(nearest(torch.tensor([[0.0]]), torch.tensor([[1.0], [-1.0]])), torch.tensor([0]))


def test_no_rows_and_one_code() -> None:
    assert nearest(torch.empty(0, 3), torch.randn(5, 3)).shape == (0,)
    assert torch.equal(nearest(torch.randn(9, 3), torch.randn(1, 3)), torch.zeros(9, dtype=torch.int64))


def test_memory_order_does_not_matter() -> None:
    torch.manual_seed(0)
    rows, codebook = torch.randn(8, 300).T, torch.randn(8, 64).T[::2]
    assert not rows.is_contiguous()
    assert torch.equal(nearest(rows, codebook), nearest(rows.contiguous(), codebook.contiguous()))
    check(rows, codebook)


def test_float32_inside_autocast() -> None:
    torch.manual_seed(0)
    rows, codebook = torch.randn(400, 8), torch.randn(512, 8)
    expected = nearest(rows, codebook)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest(rows, codebook), expected)
    half = rows.bfloat16()
    assert torch.equal(nearest(half, codebook), nearest(half.float(), codebook))


def test_rows_that_are_not_numbers_still_get_a_code() -> None:
    codes = nearest(
        torch.tensor([[float("nan")], [float("inf")], [float("-inf")], [3e38]]), torch.tensor([[0.0], [1.0]])
    )
    assert ((codes >= 0) & (codes < 2)).all()
