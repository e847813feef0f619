"""Generators and discriminators, of any architecture.

The architectures are in r3gan.py, sngan.py and dcgan.py.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from smalti.config.gan import GANConfig
from smalti.data.spec import ImageSpec
from smalti.models.gan.dcgan import DCGANDiscriminator, DCGANGenerator
from smalti.models.gan.r3gan import R3GANDiscriminator, r3gan_generator
from smalti.models.gan.sngan import SNGANDiscriminator, SNGANGenerator
from smalti.runtime.rng import Draws

# Generator, called with (config, latent, image, classes), and discriminator, called with (config, image, classes), by
# architecture. The keys are words of the file format: never renamed.
ARCHITECTURES: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "r3gan": (r3gan_generator, R3GANDiscriminator),
    "sngan": (SNGANGenerator, SNGANDiscriminator),
    "dcgan": (DCGANGenerator, DCGANDiscriminator),
}


class Generator(nn.Module):
    """Latent vectors to images.

    Args:
        image: (channels, height, width) of what it makes.
        classes: number of labels, 0 without labels.

    Raises:
        ConfigError: the architecture makes no images of this size.
    """

    def __init__(self, config: GANConfig, image: tuple[int, int, int], classes: int = 0) -> None:
        super().__init__()
        self.latent, self.classes = config.latent, classes
        build, _ = ARCHITECTURES[config.network.architecture]
        self.network = build(config.network, config.latent, image, classes)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, latent) and (B,) int64 labels -> (B, C, H, W) float32 images, meant to lie in [-1, 1]."""
        assert (labels is not None) == bool(self.classes)
        images: Tensor = self.network(z, labels)
        return images.float()


class Discriminator(nn.Module):
    """Images to one logit each: large for real, small for fake."""

    def __init__(self, config: GANConfig, image: tuple[int, int, int], classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        _, build = ARCHITECTURES[config.network.architecture]
        self.network = build(config.network, image, classes)

    def forward(self, images: Tensor, labels: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """(B, C, H, W) -> (B,) float32 logits; without `draws` nothing is random."""
        assert (labels is not None) == bool(self.classes)
        logits: Tensor = self.network(images, labels, draws)
        return logits.float()


def build_generator(config: GANConfig, spec: ImageSpec, classes: int, tokenizer: nn.Module | None) -> Generator:
    """The network of the kind `gan`, without its weights: the generator."""
    return Generator(config, spec.shape, classes if config.conditional else 0)
