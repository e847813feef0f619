"""Adversarial loss of a VQGAN: patch discriminators and the weight of their loss.

    L = L_reconstruction + r(t) w a L_G,     a = |grad_l L_reconstruction| / (|grad_l L_G| + 1e-4), or 1
    L_G = mean over discriminators j of L_G(D_j(v_j(x^)))

Each discriminator D_j has one input v_j: the pixels of an image, or one feature map of the perceptual network. l is the
decoder's last layer; the adaptive weight a, at most 1e4, gives both losses gradients of equal norm there. The
discriminators minimise their own loss on x and x^. Nothing of this runs before `start` images. From then on the
discriminators, whose logits are 0 initially, are trained at full rate, while r(t) rises from 0 to 1 over `ramp` images,
so that untrained discriminators do not spoil what the decoder has learned.
Sources: Esser et al. 2021, arXiv:2012.09841, equations 4 to 7 (without a ramp); feature discriminators after Sauer et
al. 2021, arXiv:2111.01007, equation 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smalti.config.vqvae import AdversaryConfig
from smalti.losses.adversarial import ADVERSARIAL_LOSSES
from smalti.runtime.distributed import all_reduce_sum, world

LARGEST_RATIO = 1e4


class Adversary:
    """The adversarial losses of decoder and discriminators.

    Args:
        judges: the discriminators, one for each input.
    """

    def __init__(self, config: AdversaryConfig, judges: nn.ModuleList) -> None:
        self.config, self.judges = config, judges
        self.loss = ADVERSARIAL_LOSSES[config.loss]

    def playing(self, images_seen: int) -> bool:
        """Whether the adversarial training has started."""
        return images_seen >= self.config.start

    def decoder_loss(self, views: Sequence[Tensor], rest: Tensor, last_weight: Tensor, images_seen: int) -> Tensor:
        """The weighted adversarial loss of the decoder, ().

        Args:
            views: the discriminators' inputs for the reconstruction, (B, C_j, H_j, W_j) each, with gradients.
            rest: () the other losses of the decoder, with gradients.
            last_weight: weight of the decoder's last layer.
        """
        self.judges.requires_grad_(False)
        loss = torch.stack([self.loss.generator(logits, logits) for logits in self._logits(views)]).mean()
        since = images_seen - self.config.start
        weight = self.config.weight * (min(1.0, since / self.config.ramp) if self.config.ramp else 1.0)
        return weight * self._ratio(rest, loss, last_weight) * loss

    def discriminator_loss(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        """The discriminators' loss, (); `real` and `fake` as `views`. No gradient reaches the autoencoder."""
        self.judges.requires_grad_(True)
        logits = zip(self._logits(real), self._logits([view.detach() for view in fake]), strict=True)
        return torch.stack([self.loss.discriminator(a, b) for a, b in logits]).mean()

    def _logits(self, views: Sequence[Tensor]) -> list[Tensor]:
        return [judge(view).float() for judge, view in zip(self.judges, views, strict=True)]

    def _ratio(self, rest: Tensor, loss: Tensor, last_weight: Tensor) -> Tensor | float:
        if not self.config.adaptive:
            return 1.0
        sizes = []
        for term in (rest, loss):
            (gradient,) = torch.autograd.grad(term, last_weight, retain_graph=True)
            sizes.append((all_reduce_sum(gradient.float()) / world()).norm())
        return (sizes[0] / (sizes[1] + 1e-4)).clamp(0, LARGEST_RATIO).detach()
