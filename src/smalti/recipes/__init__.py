"""Training algorithms, one per file; config/kinds.py registers them."""

from __future__ import annotations

from typing import Any

from smalti.config.run import RunConfig
from smalti.recipes.base import Recipe, Score, Tokenizer, TrainingContext
from smalti.recipes.images import ImageRecipe, Images


def build_recipe(config: RunConfig, context: TrainingContext) -> Recipe[Any]:
    """Build the recipe that a configuration names."""
    recipe: Recipe[Any] = config.kind.load_recipe()(config, context)
    return recipe


__all__ = ["ImageRecipe", "Images", "Recipe", "Score", "Tokenizer", "TrainingContext", "build_recipe"]
