"""Settings of the encoder and decoder, one dataclass per architecture. Imports no torch.

`architecture` selects the dataclass; `stride` is the downsampling factor, in image pixels per code along one side.
"""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, choice, number
from smalti.errors import ConfigError


def _check_grid(stride: int, patch: int = 1) -> None:
    if stride & (stride - 1):
        raise ConfigError(f"stride is {stride}, but must be a power of two: 2, 4, 8, 16 or 32")
    if patch & (patch - 1):
        raise ConfigError(f"patch is {patch}, but must be a power of two: 1, 2, 4, 8 or 16")
    if patch > stride:
        raise ConfigError(f"patch is {patch}, but cannot be larger than the stride, {stride}")


@dataclass(frozen=True)
class ClassicConfig(ValidatedConfig):
    """The networks of the VQ-VAE paper (`residual`), or 3x3 convolutions with BN and LeakyReLU (`plain`).

    models/autoencoder/classic.py.
    """

    architecture: str = choice("residual", "plain")
    width: int = number(128, 2, 8192)
    residual_width: int = number(32, 1, 8192)
    residual_blocks: int = number(2, 0, 64)
    stride: int = number(4, 2, 32)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_grid(self.stride)


@dataclass(frozen=True)
class ModernConfig(ValidatedConfig):
    """Pre-activation residual blocks with group normalisation at every resolution: models/autoencoder/vqgan.py."""

    architecture: str = choice("modern")
    width: int = number(128, 8, 8192)  # channels at the resolution of the codes; halved at each finer one, at least 32
    blocks: int = number(2, 0, 64)  # residual blocks at each resolution
    stride: int = number(4, 2, 32)
    patch: int = number(2, 1, 16)  # side of the pixel blocks that are folded into channels before the first convolution
    attention: bool = False  # self-attention between all positions of the code grid

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_grid(self.stride, self.patch)


@dataclass(frozen=True)
class TransformConfig(ValidatedConfig):
    """A linear transform of image tiles, learned from the data, refined by convolutions: models/autoencoder/klt.py.

    Each code corresponds to a tile of `stride` x `stride` pixels.
    """

    architecture: str = choice("transform")
    stride: int = number(32, 2, 32)
    width: int = number(48, 8, 8192)  # channels of the refining convolutions
    encoder_blocks: int = number(1, 0, 64)
    decoder_blocks: int = number(3, 0, 64)
    patch: int = number(2, 1, 16)  # the refining convolutions run at 1 / patch of the image resolution

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_grid(self.stride, self.patch)


AutoencoderConfig = ClassicConfig | ModernConfig | TransformConfig
