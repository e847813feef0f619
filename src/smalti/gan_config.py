"""Settings of generators and discriminators, one dataclass for each kind. Imports no torch.

The word `architecture` says which one a table of settings is.
"""

from __future__ import annotations

from dataclasses import dataclass

from smalti.checked import Checked, choice, number
from smalti.errors import ConfigError


@dataclass(frozen=True)
class R3GANConfig(Checked):
    """Residual networks without normalisation, the discriminator a mirror of the generator: models/r3gan.py.

    The paper's network for CIFAR-10 is width 768, taper 1, 2 blocks, `grouped`, patch 1, `smooth`.
    """

    architecture: str = choice("r3gan")
    width: int = number(192, 8, 8192)  # channels at the coarsest grid
    taper: float = number(0.7, 0.1, 1.0)  # times as many at each finer one, rounded to multiples of 16, at least 16
    blocks: int = number(1, 1, 64)  # at each grid
    # Inside a block: grouped 3x3 convolutions at twice the width, or dense ones at half of it, fast on a processor.
    block: str = choice("bottleneck", "grouped")
    patch: int = number(2, 1, 16)  # pixels along one side that are folded into channels before the first convolution
    resample: str = choice("box", "smooth")  # nearest and mean; or the [1, 3, 3, 1] filter

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch & (self.patch - 1):
            raise ConfigError(f"patch is {self.patch}, but must be a power of two: 1, 2, 4, 8 or 16")
        if self.block == "grouped" and self.width % 8:
            raise ConfigError(f"width is {self.width}, but grouped blocks need a multiple of 8")


@dataclass(frozen=True)
class SNGANConfig(Checked):
    """Residual networks, batch normalisation in the generator, spectral in the discriminator: models/sngan.py."""

    architecture: str = choice("sngan")
    generator_width: int = number(256, 4, 8192)
    discriminator_width: int = number(128, 4, 8192)


@dataclass(frozen=True)
class DCGANConfig(Checked):
    """Few convolutions of 5x5: models/dcgan.py."""

    architecture: str = choice("dcgan")
    generator_width: int = number(256, 4, 8192)  # channels at the coarsest grid
    discriminator_width: int = number(64, 4, 8192)  # channels after the first convolution
    dropout: float = number(0.3, 0.0, 0.99)


GANNetworkConfig = R3GANConfig | SNGANConfig | DCGANConfig
