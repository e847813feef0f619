"""Settings of the recipe `vqvae`: autoencoder, quantizer, losses, discriminators. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.autoencoder import AutoencoderConfig, ClassicConfig
from smalti.config.fields import ValidatedConfig, choice, number
from smalti.config.optimizer import OptimizerConfig
from smalti.config.quantizer import QuantizerConfig, VectorConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class PerceptualConfig(ValidatedConfig):
    """The distance between the feature maps of a network, beside that of the pixels: losses/perceptual.py."""

    weight: float = number(0.0, 0.0, 1e6)
    network: str = choice("smalti-vit", "efficientnet-lite0")
    start: int = number(0, 0, 10**13)  # images after which it counts
    every: int = number(1, 1, 10**6)  # it looks at one of so many images of a batch: it costs more than all the rest


@dataclass(frozen=True)
class AdversaryConfig(ValidatedConfig):
    """Discriminators that tell reconstructions from images, patch by patch: recipes/adversary.py."""

    # What they look at: the images, or the perceptual network's feature maps of them (all but the finest).
    inputs: str = choice("pixels", "features")
    weight: float = number(0.0, 0.0, 1e6)  # times the ratio of the gradients' sizes, where `adaptive`
    adaptive: bool = True
    start: int = number(0, 0, 10**13)  # images after which they train
    ramp: int = number(20_000, 0, 10**13)  # images over which its weight then rises
    loss: str = choice("hinge", "bce", "least-squares")
    width: int = number(64, 4, 8192)  # channels after the first convolution
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4, beta1=0.5, beta2=0.99)


@dataclass(frozen=True)
class VQVAEConfig(ValidatedConfig):
    """Recipe `vqvae`: autoencoder, quantizer, losses, optimizer."""

    autoencoder: AutoencoderConfig = ClassicConfig()
    quantizer: QuantizerConfig = VectorConfig()
    loss: str = choice("mse", "l1", "huber", "charbonnier")
    # 1 / variance of natural pixels in [-1, 1], so that the error counts in units of the data's own spread.
    loss_weight: float = number(4.0, 0.0, 1e6)
    perceptual: PerceptualConfig = PerceptualConfig()
    adversary: AdversaryConfig = AdversaryConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    freeze_encoder_at: int | None = number(
        None, 0, 10**12
    )  # images from which encoder and codes stay; the decoder learns on

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adversary.weight and self.adversary.inputs == "features":
            if not self.perceptual.weight:
                raise ConfigError(
                    "adversary.inputs is 'features', those of the perceptual network, but perceptual.weight is 0; "
                    "give it a weight, or let the adversary see 'pixels'"
                )
            if self.adversary.start < self.perceptual.start:
                raise ConfigError(
                    f"adversary.start is {self.adversary.start}, but with adversary.inputs='features' must be at least "
                    f"perceptual.start, {self.perceptual.start}: there are no features before"
                )
