"""Doubling and halving of grids, against transposed convolutions, scipy and loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d
from torch import Tensor

from smalti.nn.resample import box_down, box_up, smooth_down, smooth_up

PAIRS = {"box": (box_up, box_down), "smooth": (smooth_up, smooth_down)}
FILTERS = {"box": torch.tensor([1.0, 1.0]) / 2, "smooth": torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8}
SHAPES = {"rows": st.integers(1, 5), "columns": st.integers(1, 5), "channels": st.integers(1, 4)}


def noise(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last)


@settings(max_examples=15)
@given(**SHAPES)
def test_box_up_repeats_and_box_down_is_a_mean(rows: int, columns: int, channels: int) -> None:
    x = noise(2, channels, rows, columns)
    assert torch.equal(box_up(x), x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    fine = noise(2, channels, 2 * rows, 2 * columns)
    mean = (fine[..., ::2, ::2] + fine[..., 1::2, ::2] + fine[..., ::2, 1::2] + fine[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(box_down(fine), mean)


@settings(max_examples=15)
@given(**SHAPES)
def test_smooth_down_is_scipys_convolution_at_every_other_place(rows: int, columns: int, channels: int) -> None:
    x = noise(2, channels, 2 * rows, 2 * columns)
    kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    expected = [[convolve2d(np.pad(plane, 1), kernel, "valid")[::2, ::2] for plane in image] for image in x.numpy()]
    torch.testing.assert_close(smooth_down(x), torch.tensor(np.array(expected)))


@settings(max_examples=15)
@given(**SHAPES)
def test_smooth_up_is_a_transposed_convolution_of_the_image_and_its_border(
    rows: int, columns: int, channels: int
) -> None:
    x = noise(2, channels, rows, columns)
    side = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 4
    kernel = (side[:, None] * side).expand(channels, 1, 4, 4)
    bordered = F.pad(x, (1, 1, 1, 1), mode="replicate")
    whole = F.conv_transpose2d(bordered, kernel, stride=2, padding=1, groups=channels)
    torch.testing.assert_close(smooth_up(x), whole[..., 2:-2, 2:-2])


def transposed(down: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The transpose of the linear map `down` at x, by automatic differentiation."""
    fine = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(down(fine), fine, x)
    return gradient


@pytest.mark.parametrize(("name", "border"), [("box", 0), ("smooth", 1)])
def test_up_is_four_times_the_transpose_of_down_but_for_the_border(name: str, border: int) -> None:
    up, down = PAIRS[name]
    x = noise(2, 3, 5, 4)
    inside = (..., slice(border, 10 - border), slice(border, 8 - border))
    torch.testing.assert_close(up(x)[inside], 4 * transposed(down, x)[inside])
    fine = noise(2, 3, 10, 8, seed=1)
    if border:
        x[..., [0, -1], :] = 0
        x[..., [0, -1]] = 0
    torch.testing.assert_close((up(x) * fine).sum(), 4 * (x * down(fine)).sum())


@pytest.mark.parametrize("name", PAIRS)
def test_the_filter_of_down_is_that_of_the_table(name: str) -> None:
    _, down = PAIRS[name]
    one = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    one[..., 1, 1] = 1
    seen = transposed(down, one)[0, 0]  # what the middle place sees of the grid twice as fine
    side = FILTERS[name].double()
    expected = F.pad(side[:, None] * side, ((6 - len(side)) // 2,) * 4)
    torch.testing.assert_close(seen, expected)


@pytest.mark.parametrize("name", PAIRS)
def test_constants_stay_constant_inside_the_border(name: str) -> None:
    up, down = PAIRS[name]
    x = torch.full((1, 2, 8, 6), 3.0)
    assert torch.equal(up(x), torch.full((1, 2, 16, 12), 3.0))
    assert torch.equal(down(x)[..., 1:-1, 1:-1], torch.full((1, 2, 2, 1), 3.0))
    edge = 1.0 if name == "box" else 7 / 8  # an eighth of the smooth filter hangs over
    assert torch.equal(down(x)[..., 0, 1:-1], torch.full((1, 2, 1), 3.0 * edge))
    assert torch.equal(down(x)[..., 0, 0], torch.full((1, 2), 3.0 * edge**2))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_type_and_layout_are_kept(name: str, dtype: torch.dtype) -> None:
    for change in PAIRS[name]:
        x = noise(2, 16, 6, 8)
        y = change(x.to(dtype))
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(y.double(), change(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("change", [box_up, box_down, smooth_up, smooth_down])
def test_second_derivatives_go_through(change: Callable[[Tensor], Tensor]) -> None:
    x = noise(1, 2, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(change, x)
    assert torch.autograd.gradgradcheck(change, x)
