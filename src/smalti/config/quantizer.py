"""Settings of the quantizers, one dataclass per quantizer. Imports no torch.

`name` selects the dataclass; `dimension` is the number of latent channels, `codebook_sizes` the number of codes in each
code plane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, choice, number, numbers
from smalti.errors import ConfigError

LARGEST_CODEBOOK = 2**20


@dataclass(frozen=True)
class VectorConfig(ValidatedConfig):
    """Vector quantization with a codebook learned by EMA or by gradient: quantize/vector.py."""

    name: str = choice("vector")
    codes: int = number(512, 2, LARGEST_CODEBOOK)
    dimension: int = number(64, 1, 4096)
    update: str = choice("ema", "gradient")
    commitment: float = number(0.25, 0.0, 1000.0)  # weight of the commitment loss, beta in the paper
    decay: float = number(0.99, 0.0, 0.999999)  # of the EMA statistics, per step
    dead_code_threshold: float = number(0.25, 0.0, 1.0)  # codes used less than this fraction of the mean are dead
    projection: int | None = number(None, 1, 4096)  # dimension of the codes, if latents are projected first
    normalize: bool = False  # L2-normalise codes and latents
    start: str = choice("latents", "kmeans")  # how the codebook is initialised from the first batch
    gradient: str = choice("straight-through", "rotation", "diveq")  # gradient estimator of the quantization

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
    """SimVQ: a frozen codebook with a learned linear transform: quantize/simvq.py."""

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
    """Finite scalar quantization (FSQ): each channel is rounded to a few fixed levels: quantize/scalar.py."""

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
    """Binary quantization to the signs of the channels, on the unit sphere (BSQ) or not (LFQ): quantize/binary.py."""

    name: str = choice("binary")
    bits: int = number(9, 1, 20)
    spherical: bool = True
    commitment: float = number(0.25, 0.0, 1000.0)
    entropy: float = number(0.1, 0.0, 1000.0)  # weight of the entropy loss: confident bits, uniform codebook usage
    inverse_temperature: float = number(1.0, 0.001, 1000.0)  # of the soft assignment in the entropy loss

    @property
    def dimension(self) -> int:
        return self.bits

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (2**self.bits,)


LayerConfig = VectorConfig | SimConfig | ScalarConfig | BinaryConfig


@dataclass(frozen=True)
class ResidualConfig(ValidatedConfig):
    """Residual quantization: each stage quantizes the residual of the stages before it: quantize/residual.py."""

    name: str = choice("residual")
    layer: LayerConfig = VectorConfig()
    depth: int = number(4, 1, 64)
    shared: bool = False  # one codebook shared by all stages
    dropout: float = number(0.0, 0.0, 1.0)  # fraction of the images trained with only the first few stages

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
    """Product quantization: equal groups of channels, each with its own quantizer: quantize/product.py."""

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

# The keys are part of the file format and are never renamed.
QUANTIZER_CONFIGS: dict[str, type[QuantizerConfig]] = {
    "vector": VectorConfig,
    "simvq": SimConfig,
    "scalar": ScalarConfig,
    "binary": BinaryConfig,
    "residual": ResidualConfig,
    "product": ProductConfig,
}
