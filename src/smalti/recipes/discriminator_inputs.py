"""Inputs of a GAN's discriminator: the pixels, feature maps of a frozen pretrained network, or both.

The network takes images of one size, s x s. A larger image is passed as a whole, and as random square crops with sides
s, 2s, 4s, ..., all resized to s x s: this covers structure at every scale at a cost that grows with the logarithm of
the size. A transparent image is composited over white, and its alpha channel is passed as a grey image.
Layout: images (B, C, H, W) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from smalti.config.gan import DiscriminatorConfig
from smalti.features.extractor import Extractor, extractor
from smalti.recipes.base import TrainingContext
from smalti.runtime.rng import Draws

DiscriminatorInputs = Callable[[Tensor, Draws], list[Tensor]]


def build_discriminator_inputs(
    config: DiscriminatorConfig, context: TrainingContext
) -> tuple[DiscriminatorInputs, list[int]]:
    """A function from images to discriminator inputs (pixels first), and the channels of its feature maps."""
    if config.inputs == "pixels":
        return pixels, []
    network = extractor(config.features, device=context.device)
    # The finest map has as many values as all the others together, and adds little to the pixels. With `both`, the
    # second finest can be left out as well.
    skip = 2 if config.inputs == "both" else 1
    features = FeatureInputs(network, context.image, skip=skip, precision=context.precision)
    if config.inputs == "features":
        return features, features.channels
    return lambda images, draws: [images, *features(images, draws)], features.channels


def pixels(images: Tensor, draws: Draws) -> list[Tensor]:
    """The images themselves."""
    return [images]


class FeatureInputs:
    """Feature maps of all views of images: the whole image, its crops, its alpha channel.

    Args:
        network: the frozen feature extractor.
        image: (channels, height, width) of the images.
        skip: number of layers to leave out, starting with the finest.
        precision: "float32" or "bfloat16", that the network computes in.

    Attributes:
        channels: of each of the layers x views maps.
    """

    def __init__(
        self, network: Extractor, image: tuple[int, int, int], *, skip: int = 1, precision: str = "float32"
    ) -> None:
        loss = network.perceptual_loss(precision=precision)
        self._maps, self._prepare, (side, _) = loss.maps, loss.prepare, loss.size
        self._skip = skip
        shortest = min(image[1:])
        self._crops = [side * 2**k for k in range(16) if side * 2**k < shortest]
        blank = torch.zeros(1, *image, device=network.device)
        with torch.no_grad():
            self.channels = [found.shape[1] for found in self(blank, Draws(0, 0, device=network.device))]

    def __call__(self, images: Tensor, draws: Draws) -> list[Tensor]:
        views = [self._prepare(images)]
        views += [self._prepare(_squares(images, side, draws)) for side in self._crops]
        if images.shape[1] == 4:
            views += [self._prepare(images[:, 3:])]
        found: Sequence[Tensor] = self._maps(torch.cat(views))
        return [part for layer in found[self._skip :] for part in layer.chunk(len(views))]


def _squares(images: Tensor, side: int, draws: Draws) -> Tensor:
    """A random square crop of each image, with the given side in pixels."""
    offsets = draws.uniform(len(images), 2)
    index = []
    for axis, size in enumerate(images.shape[2:]):
        first = (offsets[:, axis] * (size - side + 1)).long()
        index.append(first[:, None] + torch.arange(side, device=images.device))
    rows, columns = index
    numbers = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[numbers, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
