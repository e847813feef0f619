"""Differentiable augmentation of the discriminator's inputs (DiffAugment), with an adaptive probability (ADA).

    flip       mirrored left to right, half of the time
    brightness x + b, b uniform in [-a, a] for strength a of `colour`
    saturation m + s (x - m), s uniform in [1 - 2a, 1 + 2a], m the channel mean of each pixel
    contrast   m + c (x - m), c uniform in [1 - a, 1 + a], m the mean of the image
    translate  shifted by up to a fraction of each side, in whole pixels, padded with grey
    cutout     a box covering a fraction of each side is set to grey; its centre is anywhere in the image, so part of
               the box may lie outside

The operations are applied in this order. Each is applied to an image with probability p, independently of the others,
to real and fake images alike, so that a discriminator cannot memorise a small data set. For p < 1 the augmentations do
not leak into the generated images. All are affine in the image, so gradient penalties pass through them.

    adaptive   p rises while the mean sign of D's logits of real images is above a target, and falls while it is below

For a relativistic loss the sign is that of D(real) - D(fake). Sources: Zhao et al. 2020, arXiv:2006.10738 (operations
and strengths); Karras et al. 2020, arXiv:2006.06676, sections 2.2 and 3.1 (p, r_t).  Layout: (B, C, H, W) in [-1, 1],
channels last in memory, grey is 0; a fourth channel (alpha) is mirrored, shifted and cut out, but not recoloured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.config.gan import AugmentationConfig
from smalti.runtime.distributed import all_reduce_sum, world
from smalti.runtime.rng import Draws
from smalti.runtime.state import TrainingState

ADAPTATION = 100_000  # images over which p can rise from 0 to 1


class Augmentation(TrainingState):
    """The augmentation and its probability, which is saved with the training because it may be adaptive.

    Args:
        config: operations, strengths and probability.
    """

    probability: Tensor

    def __init__(self, config: AugmentationConfig) -> None:
        super().__init__(probability=torch.tensor(config.probability))
        self.config = config

    @property
    def used(self) -> bool:
        """Whether any image is ever augmented."""
        return self.config.probability > 0 or self.config.mode == "adaptive"

    def __call__(self, images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        """Augment a batch.

        Args:
            images: (B, C, H, W) in [-1, 1].
            draws: the random numbers of this step.
            images_seen: number of images before this step, for the ramp of the probability.

        Returns:
            The same shape.
        """
        if not self.used:
            return images
        config, probability = self.config, self.probability
        if config.ramp:
            probability = probability * min(1.0, images_seen / config.ramp)
        applied = (draws.uniform(len(images), 6) < probability).to(images.dtype)
        amount = 2 * draws.uniform(len(images), 8) - 1  # from -1 to 1
        if config.flip:
            mirror = applied[:, 0] * (amount[:, 0] < 0).to(images.dtype)
            images = torch.lerp(images, images.flip(3), mirror[:, None, None, None])
        if config.colour:
            images = _recoloured(images, config.colour * amount[:, 1:4] * applied[:, 1:4])
        if config.translate:
            images = _moved(images, config.translate * amount[:, 4:6] * applied[:, 4:5])
        if config.cutout:
            images = images * (1 - applied[:, 5, None, None, None] * _box(images, amount[:, 6:], config.cutout))
        return images

    @torch.no_grad()
    def adapt(self, real: Tensor, against: Tensor | float, batch: int) -> None:
        """Adjust the probability after a step, if it is adaptive.

        Args:
            real: (B,) logits of real images.
            against: what they are compared with: logits of fake images for a relativistic loss, otherwise 0.
            batch: batch size over all ranks.
        """
        if self.config.mode != "adaptive":
            return
        sign = (real - against).float().sign().mean()
        mean = all_reduce_sum(sign) / world()
        self.probability += torch.sign(mean - self.config.target) * batch / ADAPTATION
        self.probability.clamp_(0.0, 1.0)


def _recoloured(images: Tensor, change: Tensor) -> Tensor:
    """Recolour images; `change` is (B, 3): brightness, half of the saturation, contrast."""
    brightness, saturation, contrast = change[:, :, None, None, None].unbind(dim=1)
    pixels = images[:, :3] + brightness
    pixels = pixels + 2 * saturation * (pixels - pixels.mean(dim=1, keepdim=True))
    pixels = pixels + contrast * (pixels - pixels.mean(dim=(1, 2, 3), keepdim=True))
    return pixels if images.shape[1] <= 3 else torch.cat([pixels, images[:, 3:]], dim=1)


def _moved(images: Tensor, shares: Tensor) -> Tensor:
    """Translate images; `shares` is (B, 2): fractions of height and width in [-1, 1]."""
    batch, channels, height, width = images.shape
    rows, columns = (
        torch.arange(side, device=images.device) + (shares[:, axis, None] * side).round().long()
        for axis, side in enumerate((height, width))
    )
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    first = height * torch.arange(batch, device=images.device)[:, None]  # index of its first row in the batch
    positions = width * (first + rows.clamp(0, height - 1))[:, :, None] + columns.clamp(0, width - 1)[:, None, :]
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, positions.flatten())
    return (pixels.view(batch, height, width, channels) * inside[..., None].to(images.dtype)).permute(0, 3, 1, 2)


def _box(images: Tensor, centre: Tensor, share: float) -> Tensor:
    """Mask (B, 1, H, W): 1 inside a box around the centres (B, 2) in [-1, 1], 0 elsewhere."""
    inside = []
    for axis, side in enumerate(images.shape[2:]):
        positions = (2 * torch.arange(side, device=images.device) + 1) / side - 1  # pixel centres in [-1, 1]
        inside.append((positions - centre[:, axis, None]).abs() < share)
    return (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images.dtype)
