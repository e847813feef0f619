"""Which examples the rows of a batch belong to, and how many rows the other ranks hold.

Without a mask every example has the same number of rows and every rank the same number of examples. A mask leaves rows
out, so that both differ; what ranks compute together then needs their counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smalti.runtime.distributed import all_reduce_sum, rank, world
from smalti.runtime.rng import Draws


@dataclass(frozen=True)
class Examples:
    """The origin of (N, D) rows.

    Attributes:
        count: number of examples on this rank; the same on every rank.
        rows: N, number of rows on this rank.
        first: number of rows on the ranks before this one.
        total: number of rows on all ranks.
        owners: (N,) int64, the example each row belongs to; None: each has N / count rows, the first example's first.
        weight: factor of a mean over this rank's rows with which the mean over the ranks is that over all rows.
    """

    count: int
    rows: int
    first: int
    total: int
    owners: Tensor | None = None
    weight: float = 1.0

    @classmethod
    def equal(cls, count: int, rows: int) -> Examples:
        """Equal shares: `rows` rows of `count` examples on every rank."""
        return cls(count, rows, rank() * rows, world() * rows)

    @classmethod
    def masked(cls, kept: Tensor, positions: Tensor, *, shared: bool) -> Examples:
        """Unequal shares, by a mask.

        Args:
            kept: (B, G) bool, for each of the G positions of an example whether it is quantized.
            positions: (N,) int64, the positions of the kept ones in the flat mask.
            shared: whether the other ranks have their shares; then all ranks must call this together.
        """
        rows = len(positions)
        owners = positions // max(kept.shape[1], 1)
        if not shared or world() == 1:
            return cls(len(kept), rows, 0, rows, owners)
        counts = torch.zeros(world(), dtype=torch.int64, device=kept.device)
        counts[rank()] = rows
        numbers = all_reduce_sum(counts).tolist()
        total = sum(numbers)
        return cls(len(kept), rows, sum(numbers[: rank()]), total, owners, rows * world() / max(total, 1))

    def per_row(self, values: Tensor) -> Tensor:
        """(count, ...) values of the examples -> (N, ...) values of their rows."""
        if self.owners is not None:
            return values[self.owners]
        return values.repeat_interleave(self.rows // max(self.count, 1), dim=0)

    def gather(self, rows: Tensor, indices: Tensor) -> Tensor:
        """Rows of the matrix that the shares of all ranks make together, stacked in rank order.

        Args:
            rows: (N, D), this rank's share.
            indices: (K,) int64 in [0, total), the same on every rank.

        Returns:
            (K, D), the same on every rank.
        """
        if world() == 1:
            return rows[indices]
        local = indices - self.first
        mine = (local >= 0) & (local < len(rows))
        if len(rows):
            picked = rows[local.clamp(0, len(rows) - 1)] * mine[:, None]
        else:
            picked = rows.new_zeros(len(indices), rows.shape[1])
        return all_reduce_sum(picked)

    def normal(self, draws: Draws, width: int) -> Tensor:
        """(N, width) float32 from N(0, 1): this rank's rows of the noise of all ranks."""
        whole = torch.randn(self.total, width, generator=draws.generator, device=draws.device)
        return whole[self.first : self.first + self.rows]
