"""Registry of the kinds of models that smalti trains, saves and loads.

An entry names the components of a kind: its settings, its recipe, the function that rebuilds its network from a
checkpoint, and its pipeline. To add a kind, write these and add an entry here, or, outside of the package, assign
`KINDS["name"] = ModelKind(...)` before using it.

Components are given as objects, or as "module:name", which is imported on first use. This avoids circular imports, and
settings can be parsed without importing torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smalti.config.code_context import CodeContextConfig
from smalti.config.code_restorer import CodeRestorerConfig
from smalti.config.codec import CodecConfig
from smalti.config.contrastive import ContrastiveConfig
from smalti.config.fields import ValidatedConfig, shown
from smalti.config.gan import GANConfig
from smalti.config.prior import PriorConfig
from smalti.config.restorer import RestorerConfig
from smalti.config.translator import TranslatorConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class ModelKind:
    """An entry of the registry.

    Attributes:
        settings: the dataclass of `RunConfig.model`.
        recipe: subclass of `smalti.recipes.Recipe`, called with (RunConfig, TrainingContext).
        build: called with (settings, spec, classes, tokenizer); returns the network without trained weights. `classes`
            is the number of classes in the training data, `tokenizer` the network of the tokenizer or None.
        pipeline: subclass of `smalti.Pipeline`.
        data: what its recipe trains on: "images", "pairs" of images, or "codes" of images. Determines how a data source
            is opened.
        pairs: whether a recipe that trains on images takes pairs, too.
        tokenizer: kind of the model whose codes it learns; None without one. It comes with the data if these are
            codes, and is given to the training otherwise.
    """

    settings: type[ValidatedConfig]
    recipe: str | type[Any]
    build: str | Any
    pipeline: str | type[Any]
    data: str = "images"
    pairs: bool = False
    tokenizer: str | None = None

    @property
    def takes_tokenizer(self) -> bool:
        """Whether a training has to be given the tokenizer, which does not come with the data."""
        return self.tokenizer is not None and self.data != "codes"

    def load_recipe(self) -> Any:
        """The recipe class."""
        return _resolve(self.recipe)

    def load_build(self) -> Any:
        """The function that rebuilds the network."""
        return _resolve(self.build)

    def load_pipeline(self) -> Any:
        """The pipeline class."""
        return _resolve(self.pipeline)


# The keys are part of the file format and are never renamed.
KINDS: dict[str, ModelKind] = {
    "vqvae": ModelKind(
        VQVAEConfig,
        "smalti.recipes.vqvae:VQVAERecipe",
        "smalti.models.autoencoder.autoencoder:build_autoencoder",
        "smalti.pipelines.autoencoder:Autoencoder",
    ),
    "gan": ModelKind(
        GANConfig,
        "smalti.recipes.gan:GANRecipe",
        "smalti.models.gan.base:build_generator",
        "smalti.pipelines.gan:GAN",
    ),
    "contrastive": ModelKind(
        ContrastiveConfig,
        "smalti.recipes.contrastive:ContrastiveRecipe",
        "smalti.models.vision_transformer:build_encoder",
        "smalti.pipelines.encoder:Encoder",
    ),
    "codec": ModelKind(
        CodecConfig,
        "smalti.recipes.codec:CodecRecipe",
        "smalti.models.codec.codec:build_codec",
        "smalti.pipelines.codec:Codec",
    ),
    "restore": ModelKind(
        RestorerConfig,
        "smalti.recipes.restore:RestoreRecipe",
        "smalti.models.restorer.restorer:build_restorer",
        "smalti.pipelines.restorer:Restorer",
        pairs=True,
    ),
    "translate": ModelKind(
        TranslatorConfig,
        "smalti.recipes.translate:TranslateRecipe",
        "smalti.models.restorer.translator:build_translator",
        "smalti.pipelines.translator:Translator",
        data="pairs",
    ),
    "restore-codes": ModelKind(
        CodeRestorerConfig,
        "smalti.recipes.restore_codes:RestoreCodesRecipe",
        "smalti.models.restorer.code_restorer:build_code_restorer",
        "smalti.pipelines.code_restorer:CodeRestorer",
        tokenizer="vqvae",
    ),
    "prior": ModelKind(
        PriorConfig,
        "smalti.recipes.prior:PriorRecipe",
        "smalti.models.prior.image_prior:build_image_prior",
        "smalti.pipelines.prior:Prior",
        data="codes",
        tokenizer="vqvae",
    ),
    "context": ModelKind(
        CodeContextConfig,
        "smalti.recipes.context:ContextRecipe",
        "smalti.models.codec.code_context:build_code_context",
        "smalti.pipelines.code_codec:CodeCodec",
        data="codes",
        tokenizer="vqvae",
    ),
}


def kind_named(name: object, kinds: Mapping[str, ModelKind] = KINDS) -> ModelKind:
    """The registry entry with a given name.

    Raises:
        ConfigError: there is none; the message suggests the closest name.
    """
    if not isinstance(name, str) or name not in kinds:
        word = name if isinstance(name, str) else shown(name)
        raise ConfigError(f"there is no recipe {shown(name)}; {did_you_mean(word[:80], kinds)}")
    return kinds[name]


def _resolve(named: Any) -> Any:
    if not isinstance(named, str):
        return named
    module, _, name = named.partition(":")
    return getattr(importlib.import_module(module), name)
