"""What the discriminator sees of an image, changed at random and differentiably.

    flip       mirrored, half of the time
    brightness x + b, b within +-a at strength a of `colour`
    saturation m + s (x - m), s within 1 +- 2a, m the mean of the channels at each place
    contrast   m + c (x - m), c within 1 +- a, m the mean of the image
    translate  moved by up to a share of each side, whole pixels; grey comes in
    cutout     a box over a share of each side becomes grey; its centre is anywhere, so it may leave the image

They come in this order. Each is done to an image with probability p, independently of the others, to real and fake
images alike, so that a discriminator that has seen few images cannot know them by heart. As long as p < 1, what it
tells the generator is about images that are not changed. All are linear in the image, brightness but for its constant:
penalties on gradients go through them.

    adaptive   p rises while the mean sign of D's logits of real images is above a target, and falls below it

For a loss that compares pairs the sign is that of D(real) - D(fake). Sources: Zhao et al. 2020, arXiv:2006.10738 (the
changes and strengths); Karras et al. 2020, arXiv:2006.06676, sections 2.2 and 3.1 (p, r_t).  Layout: (B, C, H, W) in
[-1, 1], channels last in memory, grey is 0; a fourth channel (alpha) is mirrored, moved and boxed, but has no colour.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.config.gan import AugmentationConfig
from smalti.runtime.distributed import all_reduce_sum, world
from smalti.runtime.rng import Draws
from smalti.runtime.state import TrainingState

ADAPTATION = 100_000  # images in which p may go from 0 to 1


class Augmentation(TrainingState):
    """The changes and their probability, which moves where it is adaptive."""

    probability: Tensor

    def __init__(self, config: AugmentationConfig) -> None:
        super().__init__(probability=torch.tensor(config.probability))
        self.config = config

    @property
    def used(self) -> bool:
        """Whether anything is ever changed."""
        return self.config.probability > 0 or self.config.mode == "adaptive"

    def __call__(self, images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        """(B, C, H, W) -> the same shape; `images_seen` is the count before this step."""
        if not self.used:
            return images
        config, probability = self.config, self.probability
        if config.ramp:
            probability = probability * min(1.0, images_seen / config.ramp)
        done = (draws.uniform(len(images), 6) < probability).to(images.dtype)
        amount = 2 * draws.uniform(len(images), 8) - 1  # from -1 to 1
        if config.flip:
            mirror = done[:, 0] * (amount[:, 0] < 0).to(images.dtype)
            images = torch.lerp(images, images.flip(3), mirror[:, None, None, None])
        if config.colour:
            images = _recoloured(images, config.colour * amount[:, 1:4] * done[:, 1:4])
        if config.translate:
            images = _moved(images, config.translate * amount[:, 4:6] * done[:, 4:5])
        if config.cutout:
            images = images * (1 - done[:, 5, None, None, None] * _box(images, amount[:, 6:], config.cutout))
        return images

    @torch.no_grad()
    def adapt(self, real: Tensor, against: Tensor | float, batch: int) -> None:
        """Move the probability after a step.

        Args:
            real: (B,) logits of real images; against: what is less where a real image is known as one.
            batch: images of the step over all ranks.
        """
        if self.config.mode != "adaptive":
            return
        sign = (real - against).float().sign().mean()
        learned = all_reduce_sum(sign) / world()
        self.probability += torch.sign(learned - self.config.target) * batch / ADAPTATION
        self.probability.clamp_(0.0, 1.0)


def _recoloured(images: Tensor, change: Tensor) -> Tensor:
    """`change` is (B, 3): of brightness, of saturation by half, of contrast."""
    brightness, saturation, contrast = change[:, :, None, None, None].unbind(dim=1)
    pixels = images[:, :3] + brightness
    pixels = pixels + 2 * saturation * (pixels - pixels.mean(dim=1, keepdim=True))
    pixels = pixels + contrast * (pixels - pixels.mean(dim=(1, 2, 3), keepdim=True))
    return pixels if images.shape[1] <= 3 else torch.cat([pixels, images[:, 3:]], dim=1)


def _moved(images: Tensor, shares: Tensor) -> Tensor:
    """`shares` is (B, 2): of the height and of the width, from -1 to 1."""
    batch, channels, height, width = images.shape
    rows, columns = (
        torch.arange(side, device=images.device) + (shares[:, axis, None] * side).round().long()
        for axis, side in enumerate((height, width))
    )
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    first = height * torch.arange(batch, device=images.device)[:, None]  # row of each image, where all lie end to end
    places = width * (first + rows.clamp(0, height - 1))[:, :, None] + columns.clamp(0, width - 1)[:, None, :]
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, places.flatten())
    return (pixels.view(batch, height, width, channels) * inside[..., None].to(images.dtype)).permute(0, 3, 1, 2)


def _box(images: Tensor, centre: Tensor, share: float) -> Tensor:
    """(B, 1, H, W), 1 inside a box around centres (B, 2) in [-1, 1], 0 elsewhere."""
    inside = []
    for axis, side in enumerate(images.shape[2:]):
        places = (2 * torch.arange(side, device=images.device) + 1) / side - 1  # centres of pixels, from -1 to 1
        inside.append((places - centre[:, axis, None]).abs() < share)
    return (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images.dtype)
