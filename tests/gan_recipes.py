"""Recipes of small GANs, and batches for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from smalti.config.gan import GANConfig, PenaltyConfig, R3GANConfig
from smalti.config.run import LoopConfig, RunConfig
from smalti.data.spec import ImageSpec
from smalti.recipes import Images, TrainingContext, build_recipe
from smalti.recipes.gan import GANRecipe

BATCH, LATENT, SHAPE = 8, 6, (3, 16, 16)
SMALL = R3GANConfig(width=16, patch=1)


def make(
    *,
    precision: str = "float32",
    classes: int = 0,
    count: int | None = None,
    half_life: int = 0,
    seed: int = 0,
    **model: Any,
) -> GANRecipe:
    """One that has begun, on so many images; `model` are settings of `GANConfig`."""
    config = RunConfig(
        recipe="gan",
        model=GANConfig(**{"latent": LATENT, "network": SMALL, "penalty": PenaltyConfig(gamma=0.5)} | model),
        train=LoopConfig(batch=BATCH, ema_half_life=half_life, seed=seed),
    )
    recipe = build_recipe(config, TrainingContext(ImageSpec(*SHAPE), classes, precision=precision, count=count))
    assert isinstance(recipe, GANRecipe)
    recipe.start(lambda: [batch(classes=classes)])
    return recipe


def batch(seed: int = 0, classes: int = 0) -> Images:
    """Noise, with labels in turn if there are classes."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(BATCH, *SHAPE, generator=generator) * 2 - 1
    return Images(pixels, torch.arange(BATCH) % classes if classes else None)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of what is learned."""
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}
