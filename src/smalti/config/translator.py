"""Settings of the recipe `translate`: network, and what it learns from. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, choice, number, numbers
from smalti.config.optimizer import OptimizerConfig
from smalti.config.restorer import RestorerNetworkConfig, UNetConfig
from smalti.config.vqvae import AdversaryConfig, PerceptualConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class PairsConfig(ValidatedConfig):
    """Learning from pairs: a distance to the target of each image, perceptual and adversarial losses beside it."""

    method: str = choice("pairs")
    loss: str = choice("l1", "charbonnier", "huber", "mse")
    loss_weight: float = number(1.0, 0.0, 1e6)
    perceptual: PerceptualConfig = PerceptualConfig()


@dataclass(frozen=True)
class PatchesConfig(ValidatedConfig):
    """Learning without pairs, by contrastive patches (CUT): losses/patches.py."""

    method: str = choice("contrastive")
    weight: float = number(1.0, 0.0, 1e6)  # of the contrastive loss beside the adversarial one
    identity_weight: float = number(1.0, 0.0, 1e6)  # of the same for pictures that have the wanted style already
    temperature: float = number(0.07, 1e-3, 100.0)
    patches: int = number(256, 2, 65536)  # positions of each feature map that are compared
    embedding: int = number(256, 4, 8192)  # channels that they are compared in
    # Feature maps of the network that are compared: 0 is the picture itself, 1 the first layer, then one a resolution.
    maps: tuple[int, ...] = numbers((0, 1, 2, 3), 0, 16, longest=17)


ObjectiveConfig = PairsConfig | PatchesConfig


@dataclass(frozen=True)
class TranslatorConfig(ValidatedConfig):
    """Recipe `translate`: a network that gives pictures another style."""

    network: RestorerNetworkConfig = UNetConfig()
    objective: ObjectiveConfig = PairsConfig()
    adversary: AdversaryConfig = AdversaryConfig(weight=1.0, adaptive=False, loss="least-squares")
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4, beta1=0.5, beta2=0.99)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adversary.weight and self.adversary.inputs == "features":
            raise ConfigError("adversary.inputs is 'features', but translators have discriminators of pixels alone")
        if isinstance(self.objective, PatchesConfig):
            if not self.adversary.weight:
                raise ConfigError(
                    "adversary.weight is 0, but without pairs the discriminator alone knows what the pictures should "
                    "look like; give it a weight"
                )
            last = 1 + (self.network.levels if isinstance(self.network, UNetConfig) else 1)
            if max(self.objective.maps) > last:
                raise ConfigError(
                    f"objective.maps has {max(self.objective.maps)}, but this network has the maps 0 to {last}"
                )

    @property
    def scale(self) -> int:
        """Size of a result in sizes of what is given."""
        return 1

    @property
    def holes(self) -> bool:
        """Whether the network takes a mask of what is missing."""
        return False

    @property
    def matched(self) -> bool:
        """Whether it learns from pairs, and not from two unrelated sources."""
        return isinstance(self.objective, PairsConfig)
