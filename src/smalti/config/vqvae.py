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
    """Perceptual loss: the distance between feature maps of a frozen network: losses/perceptual.py."""

    weight: float = number(0.0, 0.0, 1e6)
    network: str = choice("smalti-vit", "efficientnet-lite0")
    start: int = number(0, 0, 10**13)  # images after which it is used
    every: int = number(1, 1, 10**6)  # applied to one in n images of a batch, since it is the most expensive part


@dataclass(frozen=True)
class AdversaryConfig(ValidatedConfig):
    """Patch discriminators for an adversarial loss on the reconstructions: recipes/adversary.py."""

    # Their inputs: the images, or the perceptual network's feature maps except the finest.
    inputs: str = choice("pixels", "features")
    weight: float = number(0.0, 0.0, 1e6)  # multiplied by the ratio of gradient norms if `adaptive`
    adaptive: bool = True
    start: int = number(0, 0, 10**13)  # images after which they are trained
    ramp: int = number(20_000, 0, 10**13)  # images over which the weight then rises from 0
    loss: str = choice("hinge", "bce", "least-squares")
    width: int = number(64, 4, 8192)  # channels after the first convolution
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4, beta1=0.5, beta2=0.99)


@dataclass(frozen=True)
class VQVAEConfig(ValidatedConfig):
    """Recipe `vqvae`: autoencoder, quantizer, reconstruction, perceptual and adversarial losses, optimizer."""

    autoencoder: AutoencoderConfig = ClassicConfig()
    quantizer: QuantizerConfig = VectorConfig()
    loss: str = choice("mse", "l1", "huber", "charbonnier")
    # 1 / variance of natural pixels in [-1, 1], so that the error is relative to the spread of the data.
    loss_weight: float = number(4.0, 0.0, 1e6)
    perceptual: PerceptualConfig = PerceptualConfig()
    adversary: AdversaryConfig = AdversaryConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    # Images after which encoder and codebook are frozen and only the decoder is trained.
    freeze_encoder_at: int | None = number(None, 0, 10**12)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adversary.weight and self.adversary.inputs == "features":
            if not self.perceptual.weight:
                raise ConfigError(
                    "adversary.inputs is 'features', maps of the perceptual network, but perceptual.weight is 0; "
                    "give it a weight, or let the adversary see 'pixels'"
                )
            if self.adversary.start < self.perceptual.start:
                raise ConfigError(
                    f"adversary.start is {self.adversary.start}, but with adversary.inputs='features' must be at least "
                    f"perceptual.start, {self.perceptual.start}: no features are computed before"
                )
