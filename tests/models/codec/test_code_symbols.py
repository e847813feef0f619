"""Symbols of codes: their sizes, the order of positions, ranks of similar codes."""

from __future__ import annotations

import numpy as np
import pytest

from smalti.models.codec.code_symbols import (
    ABOVE,
    LARGEST_ALPHABET,
    LEFT,
    NEIGHBOURS,
    RIGHT,
    code_ranks,
    low_size,
    symbol_sizes,
    waves,
)


@pytest.mark.parametrize("size", [1, 2, 512, 4096, 4097, 5000, 8192, 16384, 2**20])
def test_symbols_are_few_values_and_enough(size: int) -> None:
    sizes = symbol_sizes([size])
    assert len(sizes) == 1 + (size > LARGEST_ALPHABET)
    assert max(sizes) <= LARGEST_ALPHABET
    if size > LARGEST_ALPHABET:
        assert sizes[1] == low_size(size)
        assert size <= sizes[0] * sizes[1] < size + sizes[1]
        assert max(sizes) <= 4 * min(sizes)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (4, 6), (6, 4), (2, 2)])
def test_waves_visit_every_position_once_and_after_its_neighbours(height: int, width: int) -> None:
    number = np.full((height, width), -1)
    for wave, (rows, columns) in enumerate(waves(height, width)):
        assert len(rows)
        assert (np.diff(rows) > 0).all()
        assert (number[rows, columns] == -1).all()
        number[rows, columns] = wave
    assert (number >= 0).all()
    for row, column in np.ndindex(height, width):
        for down, right in NEIGHBOURS:
            y, x = row + down, column + right
            assert -ABOVE <= down <= 0
            assert -LEFT <= right <= RIGHT
            if 0 <= y < height and 0 <= x < width:
                assert number[y, x] < number[row, column]


def test_similar_codes_have_the_same_high_digit() -> None:
    chance = np.random.default_rng(0)
    centres = chance.normal(size=(8, 3)) * 10
    values = np.repeat(centres, 16, axis=0) + chance.normal(size=(128, 3)) * 0.01
    ranks = code_ranks(values)
    assert np.array_equal(np.sort(ranks), np.arange(128))
    assert all(len(set(group)) == 1 for group in (ranks // 16).reshape(8, 16).tolist())
    assert np.array_equal(np.sort(code_ranks(values[:100])), np.arange(100))
