"""One process is a group of one: every call is the identity, and errors stay what they are."""

from __future__ import annotations

import pytest
import torch

from smalti.runtime import distributed


def test_one_rank_is_a_group_of_one() -> None:
    rows = torch.randn(5, 3)
    assert distributed.all_reduce_sum(rows) is rows
    assert distributed.all_reduce_sum_with_gradient(rows) is rows
    assert distributed.all_gather_rows(rows) is rows
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.all_reduce_max(7) == 7
    with pytest.raises(ValueError, match="mine"), distributed.raise_together():
        raise ValueError("mine")


@pytest.mark.parametrize("world", [2, 3])
def test_each_rank_gives_the_rows_it_has(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other ranks are played by the test: their sum is the whole matrix."""
    whole = torch.randn(4 * world, 3)
    given: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        given.append(tensor)
        return tensor

    monkeypatch.setattr(distributed, "world", lambda: world)
    monkeypatch.setattr(distributed, "all_reduce_sum_with_gradient", keep)
    for number in range(world):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        distributed.all_gather_rows(whole[4 * number : 4 * number + 4])
    torch.testing.assert_close(torch.stack(given).sum(dim=0).flatten(0, 1), whole)
