"""Complete settings of a training: recipe, model, data, loop. Imports no torch.

The `config.json` of a run folder and the header of a checkpoint store a `RunConfig` in its plain form
(config/parse.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.data import DataConfig
from smalti.config.fields import ValidatedConfig, number
from smalti.config.kinds import ModelKind, kind_named
from smalti.config.vqvae import VQVAEConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class LoopConfig(ValidatedConfig):
    """Settings of the training loop: duration, batch size, seed, EMA, logging. Durations are in images."""

    images: int = number(1_000_000, 1, 10**13)
    batch: int = number(64, 1, 10**6)  # total over all ranks
    seed: int = number(0, 0, 2**63 - 1)
    ema_half_life: int = number(20_000, 0, 10**10)  # of the EMA weights; 0: no averaging
    log_every: int = number(2_000, 1, 10**12)
    preview_every: int = number(50_000, 1, 10**12)
    save_every: int = number(50_000, 1, 10**12)
    start_from: str = ""  # digest of the model whose weights the training starts from; empty: random weights


@dataclass(frozen=True)
class RunConfig(ValidatedConfig):
    """All settings that determine the result of a training; device, precision and run folder are separate."""

    recipe: str = "vqvae"  # key in the registry of kinds
    model: ValidatedConfig = VQVAEConfig()
    data: DataConfig = DataConfig()
    train: LoopConfig = LoopConfig()
    preset: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = kind_named(self.recipe).settings
        if not isinstance(self.model, settings):
            raise ConfigError(f"recipe {self.recipe!r} needs a {settings.__name__} as its model")

    @property
    def kind(self) -> ModelKind:
        """The registry entry of the recipe."""
        return kind_named(self.recipe)


ENDLESS = 10**13  # images; for a training that only a time budget ends
