"""Training algorithms, one a file. A new one is one file and one line in `RECIPES`."""

from __future__ import annotations

from smalti.config import RunConfig
from smalti.recipes.base import Images, Recipe, Score, Setting
from smalti.recipes.contrastive import ContrastiveRecipe
from smalti.recipes.gan import GANRecipe
from smalti.recipes.vqvae import VQVAERecipe

# The keys are words of the file format: never renamed.
RECIPES: dict[str, type[Recipe]] = {"vqvae": VQVAERecipe, "gan": GANRecipe, "contrastive": ContrastiveRecipe}


def build_recipe(config: RunConfig, setting: Setting) -> Recipe:
    """The recipe a configuration names."""
    return RECIPES[config.recipe](config, setting)


__all__ = ["RECIPES", "Images", "Recipe", "Score", "Setting", "build_recipe"]
