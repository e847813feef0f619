"""Settings of the quantizers, one dataclass for each. Imports no torch.

The word `name` says which one a table of settings is; `dimension` is the number of channels that a quantizer takes,
`codebook_sizes` the number of symbols in each of its code planes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, choice, number, numbers
from smalti.errors import ConfigError

LARGEST_CODEBOOK = 2**20


@dataclass(frozen=True)
class VectorConfig(ValidatedConfig):
    """A codebook of `codes` vectors with `dimension` numbers, moved by EMA or by gradient: quantize/vector.py."""

    name: str = choice("vector")
    codes: int = number(512, 2, LARGEST_CODEBOOK)
    dimension: int = number(64, 1, 4096)
    update: str = choice("ema", "gradient")
    commitment: float = number(0.25, 0.0, 1000.0)  # beta in the paper
    decay: float = number(0.99, 0.0, 0.999999)  # of the EMA statistics, per step
    dead_code_threshold: float = number(0.25, 0.0, 1.0)  # share of the mean use under which a code counts as dead
    projection: int | None = number(None, 1, 4096)  # numbers in a code, where that is not `dimension`
    normalize: bool = False  # codes and latents on the unit sphere
    start: str = choice("latents", "kmeans")  # what the first batch makes of the codebook
    gradient: str = choice("straight-through", "rotation", "diveq")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradient == "diveq" and self.update != "gradient":
            raise ConfigError(
                f"gradient is 'diveq', which moves the codebook by gradient, but update is {self.update!r}; "
                "set update to gradient"
            )

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (self.codes,)


@dataclass(frozen=True)
class SimConfig(ValidatedConfig):
    """SimVQ, a frozen codebook seen through a learned linear map: quantize/simvq.py."""

    name: str = choice("simvq")
    codes: int = number(512, 2, LARGEST_CODEBOOK)
    dimension: int = number(64, 1, 4096)
    commitment: float = number(0.25, 0.0, 1000.0)
    gradient: str = choice("straight-through", "rotation")

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (self.codes,)


@dataclass(frozen=True)
class ScalarConfig(ValidatedConfig):
    """FSQ, each channel rounded to a few fixed levels: quantize/scalar.py."""

    name: str = choice("scalar")
    levels: tuple[int, ...] = numbers((8, 8, 8), 2, 256, longest=16)

    def __post_init__(self) -> None:
        super().__post_init__()
        if math.prod(self.levels) > LARGEST_CODEBOOK:
            raise ConfigError(
                f"levels make {math.prod(self.levels):,} codes, but may make {LARGEST_CODEBOOK:,} at most; "
                "take fewer or smaller levels, or a product of several quantizers"
            )

    @property
    def dimension(self) -> int:
        return len(self.levels)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (math.prod(self.levels),)


@dataclass(frozen=True)
class BinaryConfig(ValidatedConfig):
    """The signs of the channels, on the unit sphere (BSQ) or not (LFQ): quantize/binary.py."""

    name: str = choice("binary")
    bits: int = number(9, 1, 20)
    spherical: bool = True
    commitment: float = number(0.25, 0.0, 1000.0)
    entropy: float = number(0.1, 0.0, 1000.0)  # weight of the loss that wants sure bits and all codes in use
    inverse_temperature: float = number(1.0, 0.001, 1000.0)  # of the soft assignment in that loss

    @property
    def dimension(self) -> int:
        return self.bits

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (2**self.bits,)


LayerConfig = VectorConfig | SimConfig | ScalarConfig | BinaryConfig


@dataclass(frozen=True)
class ResidualConfig(ValidatedConfig):
    """Several quantizers, each of what the ones before it left: quantize/residual.py."""

    name: str = choice("residual")
    layer: LayerConfig = VectorConfig()
    depth: int = number(4, 1, 64)
    shared: bool = False  # one codebook for all stages, or one each
    dropout: float = number(0.0, 0.0, 1.0)  # share of the examples that train with a shorter prefix of the stages

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.layer, VectorConfig) and self.layer.normalize and self.layer.projection is None:
            raise ConfigError(
                "layer.normalize is true, but what a stage leaves has a length that its codes must be able to match; "
                "set layer.normalize to false, or give layer.projection"
            )
        if isinstance(self.layer, ScalarConfig) and min(self.layer.levels) < 3:
            raise ConfigError(
                "layer.levels hold a 2, but only three levels or more leave the next stage something finer to do; "
                "take a binary layer, or more levels"
            )

    @property
    def dimension(self) -> int:
        return self.layer.dimension

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.layer.codebook_sizes * self.depth


@dataclass(frozen=True)
class ProductConfig(ValidatedConfig):
    """The channels in equal groups, each with a quantizer of its own: quantize/product.py."""

    name: str = choice("product")
    layer: LayerConfig = VectorConfig()
    groups: int = number(2, 1, 64)

    @property
    def dimension(self) -> int:
        return self.layer.dimension * self.groups

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.layer.codebook_sizes * self.groups


QuantizerConfig = VectorConfig | SimConfig | ScalarConfig | BinaryConfig | ResidualConfig | ProductConfig

# The keys are words of the file format: never renamed.
QUANTIZER_CONFIGS: dict[str, type[QuantizerConfig]] = {
    "vector": VectorConfig,
    "simvq": SimConfig,
    "scalar": ScalarConfig,
    "binary": BinaryConfig,
    "residual": ResidualConfig,
    "product": ProductConfig,
}
