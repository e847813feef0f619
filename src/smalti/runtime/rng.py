"""The random numbers of a training step, as a function of (seed, images_seen) alone.

No generator state is ever saved: a resumed run gets the same numbers because it resumes at the same step. Every rank
generates the numbers of the whole batch and keeps its own rows, so a batch gets the same noise for any number of ranks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smalti.runtime.distributed import rank, world
from smalti.runtime.hashing import hash_integer


def mix(*words: int) -> int:
    """Hash several integers to a 63-bit seed; similar inputs give unrelated seeds (runtime/hashing.py)."""
    state = 0
    for word in words:
        state = hash_integer(state + word)
    return state >> 1


def seeded_generator(*words: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by the hash of the words."""
    return torch.Generator(device).manual_seed(mix(*words))


class Draws:
    """The random numbers of one training step, from one generator; they depend on the order of the calls.

    Args:
        seed: of the training.
        images_seen: number of images before the step.
        device: where the numbers are generated.
    """

    def __init__(self, seed: int, images_seen: int, *, device: torch.device | str = "cpu") -> None:
        self.generator = seeded_generator(seed, images_seen, device=device)
        self.device = torch.device(device)

    def normal(self, count: int, *shape: int) -> Tensor:
        """(count, *shape) float32 from N(0, 1), for count = this rank's share of the batch."""
        return self._rows(torch.randn(count * world(), *shape, generator=self.generator, device=self.device), count)

    def uniform(self, count: int, *shape: int) -> Tensor:
        """(count, *shape) float32 from [0, 1), for count = this rank's share of the batch."""
        return self._rows(torch.rand(count * world(), *shape, generator=self.generator, device=self.device), count)

    def keep(self, probability: float, count: int, *shape: int) -> Tensor:
        """(count, *shape) bool, true with the given probability, accurate to 2^-16."""
        whole = (count * world(), *shape)
        # Four values from each 64-bit number: on a CPU the generator is the bottleneck, not the memory.
        words = torch.empty(-(-math.prod(whole) // 4), dtype=torch.int64, device=self.device)
        bits = words.random_(-(2**63), None, generator=self.generator).view(torch.int16)[: math.prod(whole)]
        threshold = min(round(probability * 65536), 65535)  # 65536 would overflow int16
        return self._rows(bits.view(whole) < threshold - 32768, count)

    @staticmethod
    def _rows(whole: Tensor, count: int) -> Tensor:
        return whole[rank() * count : (rank() + 1) * count]
