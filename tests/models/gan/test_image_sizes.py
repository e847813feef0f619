"""Sizes that doubling reaches, found here by doubling, and the advice for those it does not."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smalti.errors import ConfigError
from smalti.models.gan.image_sizes import doublings

SIDES = sorted({coarse * 2**count for coarse in (4, 5, 6, 7) for count in range(2, 8)})


@given(
    count=st.integers(2, 7),
    shorter=st.integers(4, 7),
    more=st.integers(0, 12),
    lying=st.booleans(),
)
def test_a_grid_that_was_doubled_is_found_again(count: int, shorter: int, more: int, lying: bool) -> None:
    grid = (shorter, shorter + more) if lying else (shorter + more, shorter)
    assert doublings(grid[0] * 2**count, grid[1] * 2**count) == (count, grid)


@given(height=st.integers(1, 600), width=st.integers(1, 600))
@example(30, 36)  # the shorter side goes up to 32, so that the longer one must be a multiple of 8
@example(36, 30)
@example(1, 1)
@example(255, 257)
def test_every_size_is_reached_or_refused_with_one_that_is(height: int, width: int) -> None:
    try:
        count, (rows, columns) = doublings(height, width)
    except ConfigError as error:
        advice = re.search(r"give for example `size=(\d+)x(\d+)`$", str(error))
        assert advice is not None
        suggested = tuple(int(side) for side in advice.groups())
        doublings(*suggested)
        assert suggested != (height, width)
        # The shorter side goes to the nearest that is reached, and stays the shorter one.
        assert abs(min(suggested) - min(height, width)) == min(abs(side - min(height, width)) for side in SIDES)
        assert (suggested[0] <= suggested[1]) == (height <= width) or suggested[0] == suggested[1]
        unit = 2 ** doublings(*suggested)[0]
        assert all(
            abs(near - side) <= unit / 2 for near, side in zip(suggested, (height, width), strict=True) if side >= 16
        )
    else:
        assert (rows * 2**count, columns * 2**count) == (height, width)
        assert 4 <= min(rows, columns) <= 7
        assert count >= 2


@pytest.mark.parametrize(
    ("height", "width", "advice"),
    [(15, 40, "16x40"), (18, 16, "20x16"), (30, 30, "32x32"), (64, 63, "64x64"), (100, 250, "96x256")],
)
def test_a_refusal_names_what_is_wrong_and_what_would_do(height: int, width: int, advice: str) -> None:
    problem = "are smaller than 16 pixels along a side" if min(height, width) < 16 else "cannot be reached by doubling"
    with pytest.raises(ConfigError) as caught:
        doublings(height, width)
    message = str(caught.value)
    assert message.startswith(f"images of {height}x{width} {problem}")
    assert message.endswith(f"give for example `size={advice}`")


def test_a_refusal_lists_every_side_up_to_256() -> None:
    with pytest.raises(ConfigError) as caught:
        doublings(18, 18)
    listed = re.search(r"can be reached are ([\d, ]+), \.\.\.;", str(caught.value))
    assert listed is not None
    assert [int(side) for side in listed[1].split(", ")] == [side for side in SIDES if side <= 256]
