"""Training algorithms, one a file. A new one is one file and one line in `RECIPES`."""

from __future__ import annotations

from typing import Any

from smalti.config.run import RunConfig
from smalti.recipes.base import Codes, Images, Recipe, Score, Tokenizer, TrainingContext
from smalti.recipes.contrastive import ContrastiveRecipe
from smalti.recipes.gan import GANRecipe
from smalti.recipes.prior import PriorRecipe
from smalti.recipes.vqvae import VQVAERecipe

# The keys are words of the file format: never renamed.
RECIPES: dict[str, type[Recipe[Any]]] = {
    "vqvae": VQVAERecipe,
    "gan": GANRecipe,
    "contrastive": ContrastiveRecipe,
    "prior": PriorRecipe,
}


def build_recipe(config: RunConfig, context: TrainingContext) -> Recipe[Any]:
    """The recipe a configuration names."""
    return RECIPES[config.recipe](config, context)


__all__ = ["RECIPES", "Codes", "Images", "Recipe", "Score", "Setting", "Tokenizer", "build_recipe"]
