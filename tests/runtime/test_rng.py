"""Draws are a function of (seed, images_seen), whoever shares the batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from smalti.runtime import rng
from smalti.runtime.rng import Draws, mix, seeded_generator

KINDS: dict[str, Callable[[Draws, int], Tensor]] = {
    "normal": lambda draws, count: draws.normal(count, 3, 2),
    "uniform": lambda draws, count: draws.uniform(count, 5),
    "keep": lambda draws, count: draws.keep(0.3, count, 3, 3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_step_draws_the_same(kind: str) -> None:
    draw = KINDS[kind]
    torch.manual_seed(5)
    first = draw(Draws(7, 640), 4)
    torch.manual_seed(6)
    torch.rand(100)
    assert torch.equal(first, draw(Draws(7, 640), 4))
    assert not torch.equal(first, draw(Draws(7, 704), 4))
    assert not torch.equal(first, draw(Draws(8, 640), 4))


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    draws = Draws(0, 0)
    for draw in KINDS.values():
        draw(draws, 2)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_numbers_of_one(kind: str, ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [KINDS[kind](draws, 6) for draws in [Draws(3, 64)] for _ in range(2)]
    parts = []
    monkeypatch.setattr(rng, "world", lambda: ranks)
    for number in range(ranks):
        monkeypatch.setattr(rng, "rank", lambda number=number: number)
        draws = Draws(3, 64)
        parts.append([KINDS[kind](draws, 6 // ranks) for _ in range(2)])
    for index in range(2):
        assert torch.equal(torch.cat([part[index] for part in parts]), whole[index])


def test_distributions() -> None:
    draws = Draws(1, 1)
    normal, uniform = draws.normal(20_000, 2), draws.uniform(20_000, 2)
    assert normal.dtype == uniform.dtype == torch.float32
    assert abs(float(normal.mean())) < 5 / 40_000**0.5
    assert abs(float(normal.std()) - 1) < 0.02
    assert 0 <= float(uniform.min()) <= float(uniform.max()) < 1
    assert abs(float(uniform.mean()) - 0.5) < 5 * (1 / 12 / 40_000) ** 0.5


@pytest.mark.parametrize("probability", [0.0, 2**-16, 0.25, 0.5, 0.75, 1 - 2**-16, 0.999999, 1.0])
def test_keep_is_true_with_its_probability(probability: float) -> None:
    kept = Draws(4, 0).keep(probability, 100, 1000)
    assert kept.dtype == torch.bool
    share = float(kept.double().mean())
    assert abs(share - probability) <= 5 * (probability * (1 - probability) / kept.numel()) ** 0.5 + 2**-16 * 2


def test_keep_gives_any_number_of_values() -> None:
    for count in (1, 2, 3, 5, 7):
        assert Draws(0, 0).keep(0.5, count).shape == (count,)


def test_mix_changes_half_the_bits_whatever_bit_is_flipped() -> None:
    for place in range(3):
        changed = []
        for word in (0, 7, 2**33):
            for bit in range(64):
                words, flipped = [1, 2, 3], [1, 2, 3]
                words[place], flipped[place] = word, word ^ (1 << bit)
                changed.append((mix(*words) ^ mix(*flipped)).bit_count())
        assert 30 < np.mean(changed) < 33
        assert min(changed) > 12


def test_mix_of_near_words_never_meets() -> None:
    seeds = {mix(seed, step) for seed in range(40) for step in range(0, 64 * 40, 64)}
    assert len(seeds) == 1600
    assert len({mix(), mix(0), mix(0, 0), mix(0, 0, 0)}) == 4
    assert mix(1, 2) != mix(2, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_mix_is_fixed_for_ever() -> None:
    # A run that is resumed by a later version draws the same: these numbers are part of the format.
    # The first is the first output of the published splitmix64, halved.
    assert [mix(0), mix(1), mix(0, 1), mix(2**63 - 1, 64)] == [
        8147104208329303767,
        5225608189600411232,
        1534736266818221247,
        7834964950985517001,
    ]


def test_seeded_generators_agree() -> None:
    assert torch.equal(torch.rand(3, generator=seeded_generator(1, 2)), torch.rand(3, generator=seeded_generator(1, 2)))
