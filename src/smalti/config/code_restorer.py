"""Settings of the recipe `restore-codes`: degradation, predictor of codes, losses, fidelity. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.degradation import parse_degradation
from smalti.config.fields import ValidatedConfig, choice, number
from smalti.config.optimizer import OptimizerConfig
from smalti.config.restorer import check_restoration
from smalti.config.vqvae import AdversaryConfig, PerceptualConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class CodeRestorerConfig(ValidatedConfig):
    """Recipe `restore-codes`: predicts the codes of the clean image: models/restorer/code_restorer.py."""

    degradation: str = "second-order"  # what is done to the images: config/degradation.py
    tokenizer: str = ""  # digest of the VQ-VAE whose codes are predicted; the training fills it in
    width: int = number(256, 8, 4096)  # channels on the grid of codes
    blocks: int = number(6, 0, 64)  # residual blocks there
    code_weight: float = number(0.5, 0.0, 1e6)  # of the cross-entropy of the codes
    feature_weight: float = number(1.0, 0.0, 1e6)  # of the distance of the latents from the clean image's values
    fidelity_start: int = number(100_000, 0, 10**13)  # images after which the fidelity connections are trained
    loss: str = choice("l1", "charbonnier", "mse", "huber")  # of the image at fidelity 1
    loss_weight: float = number(1.0, 0.0, 1e6)
    perceptual: PerceptualConfig = PerceptualConfig()
    adversary: AdversaryConfig = AdversaryConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-4, beta2=0.99, schedule="cosine")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_restoration(self.degradation, self.adversary)
        if parse_degradation(self.degradation).has_hole:
            raise ConfigError(
                "degradation has a mask, but the encoder of a VQ-VAE takes no mask, so it cannot tell a hole from a "
                "grey area; leave the mask out, or fill holes with the recipe restore"
            )
