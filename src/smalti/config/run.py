"""Settings of a whole training: which recipe, with what model, on what data, for how long. Imports no torch.

A `RunConfig` in its plain form (config/parse.py) is what a run folder's `config.json` and the header of a checkpoint
hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.contrastive import ContrastiveConfig
from smalti.config.data import DataConfig
from smalti.config.fields import ValidatedConfig, choice, number
from smalti.config.gan import GANConfig
from smalti.config.prior import PriorConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class LoopConfig(ValidatedConfig):
    """How long, in what steps, and what is written on the way. Everything is counted in images."""

    images: int = number(1_000_000, 1, 10**13)
    batch: int = number(64, 1, 10**6)  # over all ranks together
    seed: int = number(0, 0, 2**63 - 1)
    ema_half_life: int = number(20_000, 0, 10**10)  # of the averaged weights; 0: no averaging
    log_every: int = number(2_000, 1, 10**12)
    preview_every: int = number(50_000, 1, 10**12)
    save_every: int = number(50_000, 1, 10**12)


@dataclass(frozen=True)
class RunConfig(ValidatedConfig):
    """Everything that decides what a training computes; the machine, the precision and the folder are apart."""

    recipe: str = choice("vqvae", "gan", "contrastive", "prior")
    model: VQVAEConfig | GANConfig | ContrastiveConfig | PriorConfig = VQVAEConfig()
    data: DataConfig = DataConfig()
    train: LoopConfig = LoopConfig()
    preset: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, MODELS[self.recipe]):
            raise ConfigError(f"recipe {self.recipe!r} needs a {MODELS[self.recipe].__name__} as its model")


ENDLESS = 10**13  # images, for a training that the clock ends

MODELS: dict[str, type[VQVAEConfig] | type[GANConfig] | type[ContrastiveConfig] | type[PriorConfig]] = {
    "vqvae": VQVAEConfig,
    "gan": GANConfig,
    "contrastive": ContrastiveConfig,
    "prior": PriorConfig,
}
