"""Settings of the recipe `contrastive`: encoder, views, optimizer. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, number
from smalti.config.optimizer import OptimizerConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class VisionTransformerConfig(ValidatedConfig):
    """Image encoder: a convolutional stem with one token per `stride` x `stride` pixels, then a transformer."""

    stem_width: int = number(32, 4, 4096)  # channels of the first convolution, doubled at each downsampling
    stride: int = number(8, 2, 32)
    width: int = number(256, 8, 8192)
    depth: int = number(4, 1, 64)
    heads: int = number(4, 1, 256)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride & (self.stride - 1):
            raise ConfigError(f"stride is {self.stride}, but must be a power of two: 2, 4, 8, 16 or 32")
        if self.width % self.heads:
            raise ConfigError(f"width is {self.width}, which {self.heads} heads cannot share evenly")


@dataclass(frozen=True)
class ContrastiveConfig(ValidatedConfig):
    """Recipe `contrastive`: self-supervised training of an image encoder (SimCLR)."""

    encoder: VisionTransformerConfig = VisionTransformerConfig()
    projection: int = number(128, 1, 65536)  # dimension of the embedding that the loss compares
    temperature: float = number(0.2, 0.001, 100.0)
    crop: float = number(0.2, 0.001, 1.0)  # smallest fraction of an image's area in a view
    jitter: float = number(0.5, 0.0, 1.0)  # strength of the colour jitter
    blur: float = number(0.0, 0.0, 1.0)  # fraction of the views that are blurred
    warm_up: int = number(20_000, 0, 10**10)  # images over which the learning rate rises linearly from 0
    optimizer: OptimizerConfig = OptimizerConfig("adamw", learning_rate=1e-3, beta2=0.98, weight_decay=0.05)
