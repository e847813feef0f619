"""The adversarial part of a VQGAN: a discriminator of patches, and how much it counts.

    L = L_reconstruction + r(t) w a L_G(D(x^)),     a = |grad_l L_reconstruction| / (|grad_l L_G| + 1e-4)

with l the decoder's last layer, so that neither loss drowns the other there; a is at most 1e4. D descends its own loss
on x and x^. Before `start` images nothing of this runs. Then D, whose logits are zero at first, learns at once, while
r(t) rises from 0 to 1 over `ramp` images: the decoder listens to it only as it comes to know something, and what was
learned before is not ruined.
Source: Esser et al. 2021, arXiv:2012.09841, equations 4 to 7 (their start is a step).
"""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.config import AdversaryConfig
from smalti.layers.ranks import sum_over_ranks, world
from smalti.losses.adversarial import ADVERSARIAL_LOSSES
from smalti.models.patch_discriminator import PatchDiscriminator

LARGEST_RATIO = 1e4


class Adversary:
    """Both sides of the game around one discriminator."""

    def __init__(self, config: AdversaryConfig, discriminator: PatchDiscriminator) -> None:
        self.config, self.discriminator = config, discriminator
        self.loss = ADVERSARIAL_LOSSES[config.loss]

    def playing(self, images_seen: int) -> bool:
        """Whether the discriminator trains by now."""
        return images_seen >= self.config.start

    def decoder_loss(self, reconstruction: Tensor, rest: Tensor, last_weight: Tensor, images_seen: int) -> Tensor:
        """The weighted term of the decoder.

        Args:
            reconstruction: (B, C, H, W), with gradients.
            rest: () the loss so far, with gradients.
            last_weight: the weight of the decoder's last layer.
        """
        self.discriminator.requires_grad_(False)
        loss = self.loss.generator(self.discriminator(reconstruction).float())
        since = images_seen - self.config.start
        weight = self.config.weight * (min(1.0, since / self.config.ramp) if self.config.ramp else 1.0)
        return weight * self._ratio(rest, loss, last_weight) * loss

    def discriminator_loss(self, real: Tensor, reconstruction: Tensor) -> Tensor:
        """What the discriminator descends; no gradient reaches the autoencoder."""
        self.discriminator.requires_grad_(True)
        return self.loss.discriminator(
            self.discriminator(real).float(), self.discriminator(reconstruction.detach()).float()
        )

    def _ratio(self, rest: Tensor, loss: Tensor, last_weight: Tensor) -> Tensor | float:
        if not self.config.adaptive:
            return 1.0
        sizes = []
        for term in (rest, loss):
            (gradient,) = torch.autograd.grad(term, last_weight, retain_graph=True)
            sizes.append((sum_over_ranks(gradient.float()) / world()).norm())
        return (sizes[0] / (sizes[1] + 1e-4)).clamp(0, LARGEST_RATIO).detach()
