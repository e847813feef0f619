"""Settings of the recipe `gan`: networks, penalties, what the discriminator sees, schedules. Imports no torch.

Of the networks there is one dataclass for each kind; the word `architecture` says which one a table of settings is.
"""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, choice, number, number_or
from smalti.config.optimizer import OptimizerConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class R3GANConfig(ValidatedConfig):
    """Residual networks without normalisation in the discriminator, or in both: models/gan/r3gan.py.

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
    # The discriminator's mirror; or one with batch normalisation, models/gan/upsampling.py, which has these widths:
    generator: str = choice("mirror", "upsampling")
    generator_width: int = number(48, 8, 8192)  # channels at the coarsest grid
    generator_taper: float = number(0.85, 0.1, 1.0)  # times as many at each finer one, in multiples of 8, at least 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch & (self.patch - 1):
            raise ConfigError(f"patch is {self.patch}, but must be a power of two: 1, 2, 4, 8 or 16")
        if self.block == "grouped" and self.width % 8:
            raise ConfigError(f"width is {self.width}, but grouped blocks need a multiple of 8")


@dataclass(frozen=True)
class SNGANConfig(ValidatedConfig):
    """Residual networks, batch normalisation in the generator, spectral in the discriminator: models/gan/sngan.py."""

    architecture: str = choice("sngan")
    generator_width: int = number(256, 4, 8192)
    discriminator_width: int = number(128, 4, 8192)


@dataclass(frozen=True)
class DCGANConfig(ValidatedConfig):
    """Few convolutions of 5x5: models/gan/dcgan.py."""

    architecture: str = choice("dcgan")
    generator_width: int = number(256, 4, 8192)  # channels at the coarsest grid
    discriminator_width: int = number(64, 4, 8192)  # channels after the first convolution
    dropout: float = number(0.3, 0.0, 0.99)


GANNetworkConfig = R3GANConfig | SNGANConfig | DCGANConfig


@dataclass(frozen=True)
class PenaltyConfig(ValidatedConfig):
    """What keeps the discriminator smooth: losses/adversarial.py. 0 leaves one out."""

    r1: bool = True  # gradients at real images, and
    r2: bool = True  # at fake ones,
    gamma: float | str = number_or("auto", 0.0, 1e9)  # both times gamma / 2; auto: recipes/gamma.py
    every: int = number(1, 1, 1000)  # R1 and R2 in one of so many steps, at so many times the weight
    gradient: float | None = number(None, 0.0, 1e6)  # between them, to 1; None: 10 with `wasserstein`, else 0
    lecam: float = number(0.0, 0.0, 1e6)

    @property
    def smooth(self) -> bool:
        """Whether R1 or R2 is taken."""
        return (self.r1 or self.r2) and self.gamma != 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.r1 or self.r2) and not isinstance(self.gamma, str) and self.gamma > 0:
            raise ConfigError(
                f"gamma is {self.gamma:g}, but is the weight of R1 and R2, and both are off; set r1 or r2 to true"
            )


@dataclass(frozen=True)
class AugmentationConfig(ValidatedConfig):
    """What the discriminator sees changed, real and fake alike: augment/diffaugment.py.

    Each change is made to an image with a probability, at 0 none is; its number says how strong it is, and 0 leaves
    it out.
    """

    mode: str = choice("fixed", "adaptive")  # adaptive: the probability follows how much D has learned by heart
    probability: float = number(0.0, 0.0, 1.0)  # of each change; where adaptive, at first
    ramp: int = number(0, 0, 10**13)  # images over which it rises from 0
    target: float = number(0.6, 0.0, 1.0)  # where adaptive: the mean sign of real logits that it aims for
    flip: bool = False  # mirror
    translate: float = number(0.125, 0.0, 1.0)  # by up to this share of the sides; grey comes in
    colour: float = number(0.5, 0.0, 1.0)  # brightness, saturation, contrast
    cutout: float = number(0.5, 0.0, 1.0)  # share of the sides that a grey box covers


@dataclass(frozen=True)
class DiscriminatorConfig(ValidatedConfig):
    """What the discriminator looks at: recipes/discriminator_inputs.py.

    Of `pixels`, it is the other half of `network`; of `features`, a judge for each map of a network that is not
    trained: models/gan/feature_discriminator.py; of `both`, these two, each of which counts for half. R1 and R2 are
    then about the pixels.
    """

    inputs: str = choice("pixels", "features", "both")
    features: str = choice("smalti-vit", "efficientnet-lite0")
    width: int = number(64, 4, 8192)  # of the judges


@dataclass(frozen=True)
class AnnealConfig(ValidatedConfig):
    """What changes from its value to another over the first images of a training, on half a cosine."""

    images: int = number(0, 0, 10**13)  # 0: the whole training
    learning_rate: float = number(1.0, 0.0, 1.0)  # times, at the end; beside the optimizers' own schedules
    gamma: float = number(1.0, 0.0, 1e6)  # times, at the end
    beta2: float | None = number(None, 0.0, 0.999999)  # of both optimizers, at the end


@dataclass(frozen=True)
class GANConfig(ValidatedConfig):
    """Recipe `gan`: generator, discriminator, their loss, one optimizer for each."""

    latent: int = number(64, 1, 65536)
    network: GANNetworkConfig = R3GANConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    conditional: bool = False  # generator and discriminator see the label
    loss: str = choice("relativistic", "bce", "hinge", "least-squares", "wasserstein")
    penalty: PenaltyConfig = PenaltyConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    generator_every: int = number(1, 1, 1000)  # steps of the discriminator for one of the generator
    resample_for_generator: bool = (
        True  # the generator learns from images of its own; false: from those that the discriminator has seen
    )
    generator_optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4, beta1=0.0, beta2=0.99)
    discriminator_optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4, beta1=0.0, beta2=0.99)
    anneal: AnnealConfig = AnnealConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty.gradient and self.discriminator.inputs != "pixels":
            raise ConfigError(
                f"penalty.gradient is {self.penalty.gradient:g}, but lies between images, and discriminator.inputs is "
                f"{self.discriminator.inputs!r}; let it see 'pixels', or keep R1 and R2"
            )
        if self.loss == "wasserstein" and self.discriminator.inputs == "both":
            raise ConfigError(
                "loss is 'wasserstein', which needs a smooth discriminator, and discriminator.inputs is 'both', where "
                "no penalty is about the feature maps; let it see 'pixels' or 'features'"
            )
        if self.loss == "wasserstein" and self.discriminator.inputs == "features" and not self.penalty.smooth:
            raise ConfigError(
                "loss is 'wasserstein', which needs a smooth discriminator, and no penalty is about the feature maps "
                "that it sees; set penalty.r1=true and penalty.r2=true, or let it see 'pixels'"
            )
        for role, optimizer in (
            ("generator", self.generator_optimizer),
            ("discriminator", self.discriminator_optimizer),
        ):
            if self.anneal.beta2 is not None and optimizer.name not in ("adam", "adamw", "muon"):
                raise ConfigError(
                    f"anneal.beta2 is {self.anneal.beta2:g}, but {role}_optimizer is {optimizer.name}, which has no "
                    "beta2; leave it out, or take adam, adamw or muon"
                )
