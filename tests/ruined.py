"""Trainings of a GAN that go wrong because weights are ruined; what notices it, and what is then done, is smalti's own.

`python ruined.py 01,1 train ...` is `smalti train ...`, ruined on ranks 0 and 1 and then, when it comes by again, on 1.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from typing import Any

import torch

from smalti.recipes import Images
from smalti.recipes.gan import GANRecipe
from smalti.runtime.distributed import rank

Step = Callable[[Any, Images, int], Any]


def run_away(recipe: GANRecipe) -> None:
    """Make the generator's last layer ten thousand times as large."""
    recipe.generator.network.image.weight.mul_(1e4)


def diverge(recipe: GANRecipe) -> None:
    """Make one of the discriminator's weights no number."""
    next(recipe.discriminator.parameters()).view(-1)[0] = torch.nan


def turn_grey(recipe: GANRecipe) -> None:
    """Let the averaged generator draw nothing; the one that trains is as it was."""
    recipe.averages["generator"].module.network.image.weight.zero_()


def ruined(step: Step, ruin: Callable[[GANRecipe], None], *, at: int, times: int = 1) -> Step:
    """A recipe's step that is followed by ruin where it begins at so many images, the first times it comes by."""
    left = [times]

    def and_then(self: GANRecipe, batch: Images, images_seen: int) -> Any:
        terms = step(self, batch, images_seen)
        if images_seen == at and left[0] > 0:
            left[0] -= 1
            with torch.no_grad():
                ruin(self)
        return terms

    return and_then


if __name__ == "__main__":
    turns = sys.argv.pop(1).split(",")
    coming = iter(turns)
    GANRecipe.step = ruined(
        GANRecipe.step,
        lambda recipe: run_away(recipe) if str(rank()) in next(coming) else None,
        at=40,
        times=len(turns),
    )
    runpy.run_module("smalti", run_name="__main__", alter_sys=True)
