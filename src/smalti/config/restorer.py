"""Settings of the recipe `restore`: degradation, network, losses. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.degradation import parse_degradation
from smalti.config.fields import ValidatedConfig, choice, number
from smalti.config.optimizer import OptimizerConfig
from smalti.config.vqvae import AdversaryConfig, PerceptualConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class UNetConfig(ValidatedConfig):
    """Residual blocks at several resolutions: a large receptive field for few operations."""

    architecture: str = choice("unet")
    patch: int = number(2, 1, 8)  # side of the pixel blocks that are folded into channels before the first convolution
    width: int = number(48, 4, 1024)  # channels at the finest resolution, doubled at each coarser one
    levels: int = number(3, 1, 6)  # resolutions
    blocks: int = number(1, 1, 32)  # residual blocks per resolution, on the way down and on the way up
    middle: int = number(2, 0, 64)  # at the coarsest resolution


@dataclass(frozen=True)
class FlatConfig(ValidatedConfig):
    """Residual blocks at one resolution, as in networks for super-resolution."""

    architecture: str = choice("flat")
    patch: int = number(1, 1, 8)
    width: int = number(48, 4, 1024)
    blocks: int = number(6, 1, 128)


RestorerNetworkConfig = UNetConfig | FlatConfig


@dataclass(frozen=True)
class RestorerConfig(ValidatedConfig):
    """Recipe `restore`: a network that undoes a degradation, trained on pairs that it makes itself."""

    # What is done to the images: config/degradation.py. With pairs (data.targets) it says how much larger targets are.
    degradation: str = "noise(0..55)"
    network: RestorerNetworkConfig = UNetConfig()
    loss: str = choice("charbonnier", "l1", "mse", "huber")
    loss_weight: float = number(1.0, 0.0, 1e6)
    perceptual: PerceptualConfig = PerceptualConfig()
    adversary: AdversaryConfig = AdversaryConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3, beta2=0.99, schedule="cosine")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_restoration(self.degradation, self.adversary)

    @property
    def scale(self) -> int:
        """Size of a result in sizes of what is given."""
        return parse_degradation(self.degradation).scale

    @property
    def holes(self) -> bool:
        """Whether the network takes a mask of what is missing."""
        return parse_degradation(self.degradation).has_hole


def check_restoration(degradation: str, adversary: AdversaryConfig) -> None:
    """Check the settings that all recipes of restorers have.

    Raises:
        ConfigError: the degradation cannot be read, or the discriminator's inputs are no pixels.
    """
    try:
        parse_degradation(degradation)
    except ConfigError as error:
        raise ConfigError(f"degradation: {error.message}") from None
    if adversary.weight and adversary.inputs == "features":
        raise ConfigError("adversary.inputs is 'features', but restorers have discriminators of pixels alone")
