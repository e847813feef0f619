"""The adversarial part of a VQGAN: discriminators of patches, and how much they count.

    L = L_reconstruction + r(t) w a L_G,     a = |grad_l L_reconstruction| / (|grad_l L_G| + 1e-4), or 1
    L_G = mean over judges j of L_G(D_j(v_j(x^)))

A judge D_j is a discriminator of one view v_j of an image: of its pixels, or of one feature map of the perceptual
network. l is the decoder's last layer, so that neither loss drowns the other there; a is at most 1e4. The judges
descend their own loss on x and x^. Before `start` images nothing of this runs. Then they, whose logits are zero at
first, learn at once, while r(t) rises from 0 to 1 over `ramp` images: the decoder listens to them only as they come to
know something, and what was learned before is not ruined.
Sources: Esser et al. 2021, arXiv:2012.09841, equations 4 to 7 (their start is a step); judges of feature maps after
Sauer et al. 2021, arXiv:2111.01007, equation 4.
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
    """Both sides of the game around the judges: one module for each view."""

    def __init__(self, config: AdversaryConfig, judges: nn.ModuleList) -> None:
        self.config, self.judges = config, judges
        self.loss = ADVERSARIAL_LOSSES[config.loss]

    def playing(self, images_seen: int) -> bool:
        """Whether the judges learn by now."""
        return images_seen >= self.config.start

    def decoder_loss(self, views: Sequence[Tensor], rest: Tensor, last_weight: Tensor, images_seen: int) -> Tensor:
        """The weighted term of the decoder.

        Args:
            views: (B, C_j, H_j, W_j) of the reconstruction, with gradients, one for each judge.
            rest: () the loss so far, with gradients.
            last_weight: the weight of the decoder's last layer.
        """
        self.judges.requires_grad_(False)
        loss = torch.stack([self.loss.generator(logits, logits) for logits in self._logits(views)]).mean()
        since = images_seen - self.config.start
        weight = self.config.weight * (min(1.0, since / self.config.ramp) if self.config.ramp else 1.0)
        return weight * self._ratio(rest, loss, last_weight) * loss

    def discriminator_loss(self, real: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
        """What the judges descend, from the same views of both; no gradient reaches the autoencoder."""
        self.judges.requires_grad_(True)
        logits = zip(self._logits(real), self._logits([view.detach() for view in found]), strict=True)
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
