"""Rows gathered over ranks, with the other ranks played by the test."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smalti.runtime import distributed


def test_one_rank_is_plain_indexing_and_every_sum_is_itself() -> None:
    rows, indices = torch.randn(5, 3), torch.tensor([4, 0, 0])
    assert torch.equal(distributed.gather_rows(rows, indices), rows[indices])
    assert distributed.all_reduce_sum(rows) is rows
    assert distributed.all_reduce_sum_with_gradient(rows) is rows
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.all_reduce_max(7) == 7
    with pytest.raises(ValueError, match="mine"), distributed.raise_together():
        raise ValueError("mine")


@pytest.mark.parametrize("world", [2, 3])
def test_each_rank_gives_the_rows_it_has(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.randn(4 * world, 3)
    indices = torch.tensor([0, 4 * world - 1, 5, 5, 3])
    given: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        given.append(tensor)
        return tensor

    monkeypatch.setattr(distributed, "world", lambda: world)
    monkeypatch.setattr(distributed, "all_reduce_sum", keep)
    for number in range(world):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        distributed.gather_rows(whole[4 * number : 4 * number + 4], indices)
    torch.testing.assert_close(torch.stack(given).sum(dim=0), whole[indices])
