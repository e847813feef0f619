"""Settings of the recipe `gan`: networks, penalties, discriminator inputs, annealing. Imports no torch.

There is one dataclass per network architecture; `architecture` selects it.
"""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, choice, number, number_or
from smalti.config.optimizer import OptimizerConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class R3GANConfig(ValidatedConfig):
    """Residual networks without normalisation, optionally with another generator: models/gan/r3gan.py.

    The paper's network for CIFAR-10 has width 768, taper 1, 2 blocks, `grouped`, patch 1, `smooth`.
    """

    architecture: str = choice("r3gan")
    width: int = number(192, 8, 8192)  # channels at the coarsest resolution
    taper: float = number(0.7, 0.1, 1.0)  # factor per finer resolution, rounded to multiples of 16, at least 16
    blocks: int = number(1, 1, 64)  # per resolution
    # Convolutions inside a block: grouped 3x3 at twice the width, or dense at half the width, which is faster on a CPU.
    block: str = choice("bottleneck", "grouped")
    patch: int = number(2, 1, 16)  # side of the pixel blocks that are folded into channels before the first convolution
    resample: str = choice("box", "smooth")  # nearest and mean, or the [1, 3, 3, 1] filter
    # The mirror image of the discriminator; or models/gan/upsampling.py with batch normalisation and the widths below.
    generator: str = choice("mirror", "upsampling")
    generator_width: int = number(48, 8, 8192)  # channels at the coarsest resolution
    generator_taper: float = number(0.85, 0.1, 1.0)  # factor per finer resolution, in multiples of 8, at least 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch & (self.patch - 1):
            raise ConfigError(f"patch is {self.patch}, but must be a power of two: 1, 2, 4, 8 or 16")
        if self.block == "grouped" and self.width % 8:
            raise ConfigError(f"width is {self.width}, but grouped blocks need a multiple of 8")


@dataclass(frozen=True)
class SNGANConfig(ValidatedConfig):
    """Residual networks with batch normalisation in the generator and spectral normalisation in the discriminator.

    models/gan/sngan.py.
    """

    architecture: str = choice("sngan")
    generator_width: int = number(256, 4, 8192)
    discriminator_width: int = number(128, 4, 8192)


@dataclass(frozen=True)
class DCGANConfig(ValidatedConfig):
    """A few 5x5 convolutions: models/gan/dcgan.py."""

    architecture: str = choice("dcgan")
    generator_width: int = number(256, 4, 8192)  # channels at the coarsest resolution
    discriminator_width: int = number(64, 4, 8192)  # channels after the first convolution
    dropout: float = number(0.3, 0.0, 0.99)


GANNetworkConfig = R3GANConfig | SNGANConfig | DCGANConfig


@dataclass(frozen=True)
class PenaltyConfig(ValidatedConfig):
    """Regularisation of the discriminator: losses/adversarial.py. A weight of 0 turns a term off."""

    r1: bool = True  # penalty on the squared gradient norm at real images
    r2: bool = True  # the same at fake images
    gamma: float | str = number_or("auto", 0.0, 1e9)  # R1 and R2 have weight gamma / 2; auto: recipes/gamma.py
    every: int = number(1, 1, 1000)  # lazy regularisation: R1 and R2 only every n-th step, with n times the weight
    gradient: float | None = number(None, 0.0, 1e6)  # weight of WGAN-GP's penalty; None: 10 for `wasserstein`, else 0
    lecam: float = number(0.0, 0.0, 1e6)  # weight of the LeCam regulariser

    @property
    def smooth(self) -> bool:
        """Whether R1 or R2 is on."""
        return (self.r1 or self.r2) and self.gamma != 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.r1 or self.r2) and not isinstance(self.gamma, str) and self.gamma > 0:
            raise ConfigError(
                f"gamma is {self.gamma:g}, but is the weight of R1 and R2, and both are off; set r1 or r2 to true"
            )


@dataclass(frozen=True)
class AugmentationConfig(ValidatedConfig):
    """Augmentation of the discriminator's inputs, real and fake alike: augment/diffaugment.py.

    Each operation is applied with the given probability; its own setting is its strength, and 0 turns it off.
    """

    mode: str = choice("fixed", "adaptive")  # adaptive: the probability is raised while the discriminator overfits
    probability: float = number(0.0, 0.0, 1.0)  # of each operation; the initial value if adaptive
    ramp: int = number(0, 0, 10**13)  # images over which the probability rises from 0
    target: float = number(0.6, 0.0, 1.0)  # if adaptive: target of the mean sign of the real logits
    flip: bool = False  # mirror left to right
    translate: float = number(0.125, 0.0, 1.0)  # largest shift as a fraction of the sides, padded with grey
    colour: float = number(0.5, 0.0, 1.0)  # strength of brightness, saturation and contrast
    cutout: float = number(0.5, 0.0, 1.0)  # sides of the grey box as a fraction of the image's


@dataclass(frozen=True)
class DiscriminatorConfig(ValidatedConfig):
    """Inputs of the discriminator: recipes/discriminator_inputs.py.

    With `pixels` it is the discriminator of `network`. With `features` it is a set of discriminator heads on the
    feature maps of a frozen network (models/gan/feature_discriminator.py). With `both` the two have equal weight, and
    R1 and R2 are taken with respect to the pixels only.
    """

    inputs: str = choice("pixels", "features", "both")
    features: str = choice("smalti-vit", "efficientnet-lite0")
    width: int = number(64, 4, 8192)  # channels of the discriminator heads


@dataclass(frozen=True)
class AnnealConfig(ValidatedConfig):
    """Hyperparameters that are annealed along half a cosine over the first images of a training."""

    images: int = number(0, 0, 10**13)  # duration; 0: the whole training
    learning_rate: float = number(1.0, 0.0, 1.0)  # final factor, on top of the optimizers' own schedules
    gamma: float = number(1.0, 0.0, 1e6)  # final factor
    beta2: float | None = number(None, 0.0, 0.999999)  # final value, for both optimizers


@dataclass(frozen=True)
class GANConfig(ValidatedConfig):
    """Recipe `gan`: generator, discriminator, adversarial loss, and one optimizer for each network."""

    latent: int = number(64, 1, 65536)  # dimension of the latent vector
    network: GANNetworkConfig = R3GANConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    conditional: bool = False  # condition generator and discriminator on the class label
    loss: str = choice("relativistic", "bce", "hinge", "least-squares", "wasserstein")
    penalty: PenaltyConfig = PenaltyConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    generator_every: int = number(1, 1, 1000)  # discriminator steps per generator step
    # Whether the generator step samples new latents and real images, or reuses those of the discriminator step.
    resample_for_generator: bool = True
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
                "the discriminator heads have no gradient penalty; set it to 'pixels' or 'features'"
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
