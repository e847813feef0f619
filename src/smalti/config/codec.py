"""Settings of the recipe `codec`: transform, decoder, context net, rate-distortion search. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, number
from smalti.config.optimizer import OptimizerConfig
from smalti.config.vqvae import AdversaryConfig, PerceptualConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class ContextConfig(ValidatedConfig):
    """Context net: predicts the distribution of each group of coefficients from those before it."""

    groups: int = number(12, 1, 64)
    width: int = number(192, 8, 2048)  # hidden units of the net of a group
    neighbours: bool = False  # whether it sees the neighbouring tiles; without, tiles are coded independently
    shared: int = number(48, 1, 1024)  # leading coefficients of the neighbouring tiles that it sees


@dataclass(frozen=True)
class PleasingConfig(ValidatedConfig):
    """A second decoder for the same codes, whose pictures look sharper and have a larger error: recipes/codec.py."""

    # Images after which everything else is frozen and it is trained; None: the model has no such decoder.
    start: int | None = number(None, 0, 10**13)
    loss_weight: float = number(4.0, 0.0, 1e6)  # of the mean squared error
    perceptual: PerceptualConfig = PerceptualConfig(weight=2.0)
    # Its inputs are pixels. Its `start` and that of the perceptual loss are counted from `start`.
    adversary: AdversaryConfig = AdversaryConfig(weight=0.1)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-4, beta1=0.5, beta2=0.99)


@dataclass(frozen=True)
class CodecConfig(ValidatedConfig):
    """Recipe `codec`: transform coding of images, trained on codes from a rate-distortion search."""

    tile: int = number(32, 2, 128)  # side in pixels
    coefficients: int = number(1024, 1, 16384)  # of a tile; more reach higher qualities
    patch: int = number(2, 1, 16)  # the decoder's convolutions run on a grid of patch x patch pixels
    width: int = number(48, 4, 1024)  # channels of these convolutions
    blocks: int = number(2, 0, 64)  # residual blocks of two convolutions each
    context: ContextConfig = ContextConfig()
    rate_weight: float = number(0.19, 1e-6, 100.0)  # lambda, squared error for a bit, in squared quantisation steps
    quality_low: int = number(20, 1, 100)  # range of qualities in training
    quality_high: int = number(70, 1, 100)
    pleasing: PleasingConfig = PleasingConfig()
    rounds: int = number(3, 0, 1000)  # of the search, for each training batch
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile % self.patch:
            raise ConfigError(f"tile is {self.tile}, which is not a multiple of patch, {self.patch}")
        if self.quality_low > self.quality_high:
            raise ConfigError(
                f"quality_low is {self.quality_low}, but must not be larger than quality_high, {self.quality_high}"
            )
