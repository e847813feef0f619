"""Pictures in tiles: the result of the whole, whatever the tiles are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from smalti.errors import ConfigError
from smalti.pipelines.tiling import TILE, apply_blended, apply_tiled, spans


def blurred(images: Tensor, hole: Tensor | None) -> Tensor:
    """Mean over 9x9 pixels, zero outside."""
    return torch.nn.functional.avg_pool2d(images, 9, 1, 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("tile", [32, 40, 64, 1000])
@pytest.mark.parametrize("size", [(1, 1), (50, 130), (97, 33)])
def test_tiles_make_no_difference(size: tuple[int, int], tile: int, dtype: type) -> None:
    picture = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (*size, 3), dtype=dtype)
    whole = apply_tiled(blurred, picture, scale=1, reach=4, multiple=1, tile=2000)
    parts = apply_tiled(blurred, picture, scale=1, reach=4, multiple=1, tile=tile)
    assert parts.dtype == dtype
    # uint16 of sums in another order: float32 has 24 bits.
    assert np.abs(whole.astype(int) - parts.astype(int)).max() <= (0 if dtype == np.uint8 else 1)


@pytest.mark.parametrize("multiple", [1, 8, 12])
def test_spans_cover_a_side_once_and_begin_at_multiples(multiple: int) -> None:
    for size in (1, 31, 64, 200):
        found = list(spans(size, 50, 10, multiple))
        assert [begin for begin, *_ in found] == [0, *(end for _, end, *_ in found[:-1])]
        assert found[-1][1] == size
        for begin, end, first, last in found:
            assert begin % multiple == first % multiple == 0
            assert first <= max(0, begin - 10)
            assert last >= min(size, end + 10)


def test_tiles_become_smaller_when_memory_does_not_suffice() -> None:
    seen = []

    def work(images: Tensor, hole: Tensor | None) -> Tensor:
        seen.append(max(images.shape[2:]))
        if images.shape[2] > 140:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return images

    picture = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert np.array_equal(apply_tiled(work, picture, scale=1, reach=2, multiple=4), picture)
    assert seen[0] == min(TILE, 300)
    with pytest.raises(ConfigError, match="memory does not suffice for tiles of 256 pixels; give a smaller"):
        apply_tiled(work, picture, scale=1, reach=2, multiple=4, tile=256)
    with pytest.raises(RuntimeError, match="another"):
        apply_tiled(lambda *_: (_ for _ in ()).throw(RuntimeError("another")), picture, scale=1, reach=2, multiple=4)
    with pytest.raises(ConfigError, match="is 8, but must be at least 32"):
        apply_tiled(work, picture, scale=1, reach=2, multiple=4, tile=8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 90), (50, 33)])
@pytest.mark.parametrize("scale", [1, 2])
def test_blended_windows_of_what_changes_nothing_change_nothing(size: tuple[int, int], scale: int, dtype: type) -> None:
    picture = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (*size, 3), dtype=dtype)
    found = apply_blended(
        lambda images: torch.nn.functional.interpolate(images, scale_factor=float(scale)),
        picture, scale=scale, multiple=4, side=16,
    )  # fmt: skip
    wanted = np.repeat(np.repeat(picture, scale, 0), scale, 1)
    assert found.dtype == dtype
    assert np.abs(found.astype(int) - wanted).max() <= (0 if dtype == np.uint8 else 1)


def test_windows_are_blended_without_seams() -> None:
    """Each window gets a level of its own; neighbouring pixels differ by no more than a ramp's step."""
    levels = iter(torch.linspace(-1, 1, 1000).tolist() * 2)
    found = apply_blended(
        lambda images: torch.full_like(images, next(levels)), np.zeros((70, 90, 3), np.uint8),
        scale=1, multiple=1, side=32,
    ).astype(int)  # fmt: skip
    for axis in (0, 1):
        assert np.abs(np.diff(found, axis=axis)).max() <= 1
    with pytest.raises(ConfigError, match="is 0, but must be at least 1"):
        apply_blended(lambda images: images, np.zeros((4, 4, 3), np.uint8), scale=1, multiple=1, side=0)
