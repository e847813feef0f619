"""Random numbers of one training step, as a function of (seed, images_seen) alone.

Nothing of a generator's state is ever saved: a resumed run draws the same numbers because it asks for the same
step. Several ranks draw the whole batch's numbers and keep their own rows, so a batch gets the same noise however
many processes share it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smalti.runtime.distributed import rank, world
from smalti.runtime.hashing import hash_integer


def mix(*words: int) -> int:
    """A 63-bit seed from several integers; near inputs give unrelated seeds (runtime/hashing.py)."""
    state = 0
    for word in words:
        state = hash_integer(state + word)
    return state >> 1


def seeded_generator(*words: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on the words alone."""
    return torch.Generator(device).manual_seed(mix(*words))


class Draws:
    """The noise of one step, drawn in a fixed order from one generator."""

    def __init__(self, seed: int, images_seen: int, *, device: torch.device | str = "cpu") -> None:
        self.generator = seeded_generator(seed, images_seen, device=device)
        self.device = torch.device(device)

    def normal(self, count: int, *shape: int) -> Tensor:
        """(count, *shape) float32 from N(0, 1), where count is this rank's share of the batch."""
        return self._rows(torch.randn(count * world(), *shape, generator=self.generator, device=self.device), count)

    def uniform(self, count: int, *shape: int) -> Tensor:
        """(count, *shape) float32 from [0, 1), where count is this rank's share of the batch."""
        return self._rows(torch.rand(count * world(), *shape, generator=self.generator, device=self.device), count)

    def keep(self, probability: float, count: int, *shape: int) -> Tensor:
        """(count, *shape) bool, true with the given probability, to within 2^-16."""
        whole = (count * world(), *shape)
        # Four values from each 64-bit draw: the generator, not the memory, is the slow part on a CPU.
        words = torch.empty(-(-math.prod(whole) // 4), dtype=torch.int64, device=self.device)
        bits = words.random_(-(2**63), None, generator=self.generator).view(torch.int16)[: math.prod(whole)]
        threshold = min(round(probability * 65536), 65535)  # 65536 does not fit and would wrap round to nothing
        return self._rows(bits.view(whole) < threshold - 32768, count)

    @staticmethod
    def _rows(whole: Tensor, count: int) -> Tensor:
        return whole[rank() * count : (rank() + 1) * count]
