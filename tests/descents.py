"""Which networks each descent of a recipe's step reaches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smalti.recipes import Images, Recipe


def descents(recipe: Recipe, images: Images, images_seen: int, patch: pytest.MonkeyPatch) -> list[tuple[str, set[str]]]:
    """Of one step, in turn: the optimizer that descends, and the modules that its loss gives a gradient."""
    seen: list[tuple[str, set[str]]] = []

    def spy(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        for module in recipe.modules.values():
            module.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        name = next(name for name, value in recipe.optimizers.items() if value is optimizer)
        seen.append((name, {n for n, m in recipe.modules.items() if any(p.grad is not None for p in m.parameters())}))

    with patch.context() as here:
        here.setattr("smalti.recipes.base.descend", spy)
        recipe.step(images, images_seen)
    return seen
