"""Trained models that another training needs: weights to start from, and a VQ-VAE whose codes are learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.find import find_checkpoint
from smalti.config.kinds import KINDS
from smalti.config.run import RunConfig
from smalti.errors import ConfigError, arg
from smalti.recipes import Recipe, Tokenizer


def with_settings_of(config: RunConfig, path: str | Path) -> RunConfig:
    """The configuration with the model settings of a trained model of the same kind.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: it is of another kind, or the recipe cannot start from a trained model.
    """
    card = checkpoint.read_card(find_checkpoint(path))
    _check_kind(config, card.kind, path)
    return dataclasses.replace(config, model=card.config.model)


def read_initial(config: RunConfig, path: str | Path) -> tuple[RunConfig, nn.Module]:
    """The configuration with the digest of a trained model, and its network.

    Raises:
        CheckpointError, ConfigError: as `with_settings_of`.
    """
    model, card = checkpoint.read(find_checkpoint(path))
    _check_kind(config, card.kind, path)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, start_from=card.digest)), model


def start_from(recipe: Recipe, model: nn.Module) -> None:  # type: ignore[type-arg]
    """Give a recipe the weights of a trained model.

    Raises:
        ConfigError: they do not fit its networks.
    """
    try:
        recipe.start_from(model)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t")[1:2]) or str(error)
        raise ConfigError(
            f"the model to start from does not fit these settings ({reason}); leave out changes of its network, "
            "and give images with as many channels"
        ) from None


def read_tokenizer(config: RunConfig, path: str | Path | None) -> tuple[RunConfig, Tokenizer | None]:
    """The configuration with the digest of a tokenizer, and the tokenizer, for recipes that are given one.

    Args:
        path: a run folder, a checkpoint or zoo:NAME; None: of recipes that are given none.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: the recipe needs one and none is given, or the other way round, or it is of another kind.
    """
    wanted = config.kind.tokenizer
    if not config.kind.takes_tokenizer:
        if path is None:
            return config, None
        takers = ", ".join(name for name, row in KINDS.items() if row.takes_tokenizer)
        raise ConfigError(
            f"{arg('of', path)} is for the recipe {takers}, but {config.recipe} learns "
            f"{'codes that come with their tokenizer' if wanted else 'images'}; leave it out"
        )
    if path is None:
        raise ConfigError(
            f"the recipe {config.recipe} predicts the codes of a trained VQ-VAE; give {arg('of', 'RUN')}, its run"
        )
    module, card = checkpoint.read(find_checkpoint(path))
    if card.kind != wanted:
        raise ConfigError(
            f"{path} is of the kind {card.kind}, but {arg('of')} must be a {wanted}, whose codes are learned"
        )
    model: Any = config.model
    if model.tokenizer not in ("", card.digest):
        raise ConfigError(
            f"model.tokenizer is {model.tokenizer!r}, but {path} is {card.digest[:16]}; leave model.tokenizer out, "
            f"which {arg('of')} sets"
        )
    return dataclasses.replace(config, model=dataclasses.replace(model, tokenizer=card.digest)), Tokenizer(module, card)


def _check_kind(config: RunConfig, kind: str, path: str | Path) -> None:
    able = sorted(name for name, row in KINDS.items() if row.load_recipe().can_start_from)
    if not config.kind.load_recipe().can_start_from:
        raise ConfigError(
            f"the recipe {config.recipe} cannot start from a trained model, only {', '.join(able)} can; "
            f"leave {arg('start_from', path)} out"
        )
    if kind != config.recipe:
        raise ConfigError(
            f"{path} is of the kind {kind}, but the preset trains the kind {config.recipe}; "
            f"give {arg('start_from')} one of that kind"
        )
