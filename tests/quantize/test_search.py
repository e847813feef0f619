"""The nearest code against float64 brute force, on latents and codebooks that are meant to break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smalti.quantize import search
from smalti.quantize.search import best_scores_in_tiles, linear_form, nearest, tile_shape

EPSILON = torch.finfo(torch.float32).eps


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distances(rows: Tensor, codebook: Tensor) -> Tensor:
    return (rows.double()[:, None] - codebook.double()[None]).square().sum(dim=2).sqrt()


def excess(rows: Tensor, codebook: Tensor, codes: Tensor) -> Tensor:
    """How much farther each chosen code is than the nearest, (N,) float64."""
    table = distances(rows.float(), codebook.float())
    return table.gather(1, codes[:, None])[:, 0] - table.min(dim=1).values


def check(rows: Tensor, codebook: Tensor) -> Tensor:
    """The codes, each the best one to within float32: the terms of w.z + b are rounded once for each of D channels."""
    codes = nearest(rows, codebook)
    assert codes.dtype == torch.int64
    assert codes.shape == rows.shape[:1]
    assert ((codes >= 0) & (codes < len(codebook))).all()
    if len(rows):
        # Of a squared distance; what is promised is relative to the squared sizes, and never to their difference.
        size = codebook.double().square().sum(dim=1).max() + rows.double().square().sum(dim=1)
        table = distances(rows.float(), codebook.float()).square()
        error = table.gather(1, codes[:, None])[:, 0] - table.min(dim=1).values
        assert (error <= size * EPSILON * (codebook.shape[1] + 4)).all()
    return codes


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 1000])
@pytest.mark.parametrize(("codes", "dimension"), [(1, 1), (2, 3), (64, 8), (513, 64), (2049, 5)])
def test_the_nearest_code(count: int, codes: int, dimension: int) -> None:
    check(randn(count, dimension), randn(codes, dimension, seed=1))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 70),
    codes=st.integers(1, 70),
    dimension=st.integers(1, 20),
    seed=st.integers(0, 1000),
    row_exponent=st.integers(-30, 30),
    code_exponent=st.integers(-30, 30),
    offset=st.sampled_from([0.0, 1.0, -1e4, 1e6]),
    copies=st.integers(1, 3),
    score_bytes=st.sampled_from([1, 64, 1000, 2**20]),
    row_step=st.integers(1, 2),
)
def test_against_brute_force_whatever_comes(
    count: int, codes: int, dimension: int, seed: int, row_exponent: int, code_exponent: int, offset: float,
    copies: int, score_bytes: int, row_step: int,
) -> None:  # fmt: skip
    rows = (randn(dimension, count * row_step, seed=seed) * 2.0**row_exponent + offset).T[::row_step]
    codebook = (randn(codes, dimension, seed=seed + 1) * 2.0**code_exponent + offset).repeat(copies, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_score_bytes", lambda: score_bytes)
        patch.setattr(search, "LATENTS_AT_ONCE", 16)
        chosen = check(rows, codebook)
    if count:
        assert int(chosen.max()) < codes  # never a copy


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, codebook = randn(1000, 4), randn(100, 4, seed=1)
    whole = nearest(rows, codebook)
    for latents in (1, 7, 64):
        for score_bytes in (1, 4 * 64 * 9, 4 * 1000):
            monkeypatch.setattr(search, "LATENTS_AT_ONCE", latents)
            monkeypatch.setattr(search, "_score_bytes", lambda size=score_bytes: size)
            assert torch.equal(nearest(rows, codebook), whole)


@pytest.mark.parametrize("rows", [1, 100, 10**6])
@pytest.mark.parametrize("codes", [2, 512, 8192, 10**6])
@pytest.mark.parametrize("threads", [1, 2, 64])
def test_a_tile_takes_the_memory_it_may(rows: int, codes: int, threads: int) -> None:
    latents, height = tile_shape(rows, codes, threads, 2**21)
    assert 1 <= latents <= rows
    assert 1 <= height <= codes
    assert 4 * latents * height <= 2**21
    assert latents == min(rows, search.LATENTS_AT_ONCE * threads) or height == codes


def test_the_scores_order_codes_by_distance() -> None:
    rows, codebook = randn(50, 6) + 20, randn(30, 6, seed=1) + 20
    lift, shift, weights, offsets = (part.double() for part in linear_form(codebook))
    assert (shift != 0).any()
    scores = (lift * rows + shift) @ weights.T + offsets
    halves = distances(rows, codebook).square() / 2
    # score = s (|z - c|^2 - |z - e|^2) / 2: the same s for all, and a constant for each row
    differences = (scores[:, :1] - scores)[:, 1:] / (halves - halves[:, :1])[:, 1:]
    scale = differences.median()
    assert torch.allclose(differences, scale.expand_as(differences), rtol=1e-3)
    assert float(scale.log2()) == pytest.approx(round(float(scale.log2())), abs=1e-3)


# Sizes and places


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-8, 1e8, 1e15, 1e18, 1e30, 1e37])
def test_any_size_of_latents_gives_the_same_codes(scale: float) -> None:
    rows, codebook = randn(200, 8), randn(32, 8, seed=1)
    if scale > 1e-38:
        power = 2.0 ** round(torch.tensor(scale).log2().item())  # exact, so that nothing at all may change
        assert torch.equal(nearest(rows * power, codebook * power), nearest(rows, codebook))
    check(rows * scale, codebook * scale)


@pytest.mark.parametrize(("row_scale", "code_scale"), [(1e30, 1.0), (1.0, 1e30), (1e-30, 1.0), (1.0, 1e-30)])
def test_latents_and_codes_of_other_sizes(row_scale: float, code_scale: float) -> None:
    rows, codebook = randn(100, 4) * row_scale, randn(40, 4, seed=1) * code_scale
    codes = check(rows, codebook)
    if row_scale > 1:  # so far away only the direction decides
        assert torch.equal(codes, (rows.double() @ codebook.double().T).argmax(dim=1))
    if code_scale > 1:  # the shortest
        assert (codes == codebook.double().norm(dim=1).argmin()).all()


def test_subnormal_differences() -> None:
    step = 2.0**-149  # the smallest number above 0
    codebook = (torch.arange(64.0) * 2**10).mul(step)[:, None].contiguous()
    assert codebook[1] > 0
    assert codebook[-1] < torch.finfo(torch.float32).tiny
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    # Channels of zeros beside it do not hide it.
    codebook = torch.cat([torch.zeros(64, 3), codebook], dim=1)
    assert torch.equal(nearest(codebook[order], codebook), order)


@pytest.mark.parametrize("place", [1.0, -1.0, 1000.0, 3e-38, 1e30])
def test_neighbouring_numbers_are_told_apart(place: float) -> None:
    """Codes one unit in the last place apart, at which |e|^2/2 - z.e alone sees nothing."""
    start = torch.full((1,), place).view(torch.int32)
    codebook = (start + torch.arange(100, dtype=torch.int32)).view(torch.float32)[:, None]
    assert len(codebook.unique()) == 100
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(nearest(codebook[order], codebook), order)


@pytest.mark.parametrize("offset", [1000.0, -3e5, 1e7])
def test_far_from_the_origin_nothing_is_lost(offset: float) -> None:
    rows, codebook = randn(500, 8) * 3 + offset, randn(300, 8, seed=1) * 3 + offset
    codes = check(rows, codebook)
    assert (excess(rows, codebook, codes) <= 1e-5).all()  # as exact as near it


def test_one_far_code_does_not_spoil_the_others() -> None:
    rows, codebook = randn(200, 4), randn(50, 4, seed=1)
    expected = nearest(rows, codebook)
    assert torch.equal(nearest(rows, torch.cat([codebook, torch.full((1, 4), 1e9)])), expected)


# Ties


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 7, 8, 9, 16, 17, 33, 64, 65])
@pytest.mark.parametrize("distinct", [1, 2, 5, 17])
def test_of_equal_vectors_the_first_wherever_they_stand(distinct: int, dimension: int) -> None:
    """Matrix products round differently at their edges, so equal vectors have unequal scores in places."""
    codebook = randn(distinct, dimension, seed=2)
    for copies in (2, 3, 7, 31):
        for count in (1, 2, 5, 33):
            many = codebook.repeat(copies, 1)
            rows = randn(count, dimension, seed=3)
            assert torch.equal(check(rows, many), nearest(rows, codebook))


def test_equal_vectors_in_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    codebook = randn(20, 6)[torch.randint(20, (500,), generator=generator)]
    rows = randn(300, 6, seed=1)
    first = (codebook[:, None] == codebook[None]).all(dim=2).int().argmax(dim=1)
    codes = check(rows, codebook)
    assert torch.equal(first[codes], codes)
    assert torch.equal(search._first_of_equals(codebook), first)


def test_vectors_with_the_same_key_are_still_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    codebook = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [-0.0, 0.0], [0.0, 0.0]])
    assert search._first_of_equals(codebook).tolist() == [0, 1, 0, 3, 3]
    monkeypatch.setattr(search, "KEY", 0)  # one key for many
    places = search._first_of_equals(codebook)
    assert torch.equal(codebook[places], codebook)


def test_ties_between_unequal_vectors_go_to_the_lowest_index() -> None:
    assert torch.equal(nearest(torch.tensor([[0.0]]), torch.tensor([[1.0], [-1.0]])), torch.tensor([0]))
    grid = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))  # small integers: every score is exact
    middles = grid[:12] + 0.5
    lowest = distances(middles, grid).argmin(dim=1)
    assert torch.equal(nearest(middles, grid), lowest)
    signs = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 8)
    assert (nearest(torch.zeros(300, 8), signs) == 0).all()


def test_ties_across_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_score_bytes", lambda: 4 * 10 * 3)
    monkeypatch.setattr(search, "LATENTS_AT_ONCE", 10)
    assert (nearest(torch.zeros(50, 3), torch.ones(100, 3)) == 0).all()
    assert (best_scores_in_tiles(torch.zeros(50, 3), linear_form(torch.ones(100, 3))) == 0).all()


# Edges


def test_no_rows_and_one_code() -> None:
    assert nearest(torch.empty(0, 3), randn(5, 3)).shape == (0,)
    assert nearest(torch.empty(0, 3), randn(1, 3)).dtype == torch.int64
    assert torch.equal(nearest(randn(9, 3), randn(1, 3)), torch.zeros(9, dtype=torch.int64))


def test_memory_order_does_not_matter() -> None:
    rows, codebook = randn(8, 300).T, randn(8, 64, seed=1).T[::2]
    assert not rows.is_contiguous()
    assert torch.equal(nearest(rows, codebook), nearest(rows.contiguous(), codebook.contiguous()))
    check(rows, codebook)
    spread = randn(300, 1).expand(300, 8)
    assert torch.equal(nearest(spread, codebook), nearest(spread.contiguous(), codebook))


def test_float32_inside_autocast() -> None:
    rows, codebook = randn(400, 8), randn(512, 8, seed=1)
    expected = nearest(rows, codebook)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest(rows, codebook), expected)
    half = rows.bfloat16()
    assert torch.equal(nearest(half, codebook), nearest(half.float(), codebook))
    double = randn(400, 8).double() + 1e-12
    assert torch.equal(nearest(double, codebook.double()), nearest(double.float(), codebook))


def test_no_gradient_and_no_trace_in_the_inputs() -> None:
    rows, codebook = randn(30, 4).requires_grad_(), randn(20, 4, seed=1).requires_grad_()
    before = rows.detach().clone(), codebook.detach().clone()
    assert not nearest(rows, codebook).requires_grad
    assert torch.equal(rows, before[0])
    assert torch.equal(codebook, before[1])


def test_rows_that_are_not_numbers_still_get_a_code_and_leave_the_others_alone() -> None:
    odd = torch.tensor([[float("nan")], [float("inf")], [float("-inf")], [3e38]])
    for codebook in (torch.tensor([[0.0], [1.0]]), randn(100, 1), torch.tensor([[1000.0], [1001.0], [1002.0]])):
        codes = nearest(torch.cat([odd, randn(60, 1)]), codebook)
        assert ((codes >= 0) & (codes < len(codebook))).all()
        assert torch.equal(codes[4:], nearest(randn(60, 1), codebook))


def test_cache_sizes_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (("1024K", 2**21), ("2M", 2**22), ("", 2**21), ("many", 2**21), ("64M", 2**24)):
        search._score_bytes.cache_clear()
        monkeypatch.setattr(search.Path, "read_text", lambda _path, text=text: text)
        assert search._score_bytes() == expected
    search._score_bytes.cache_clear()
