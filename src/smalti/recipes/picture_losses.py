"""Losses of pictures that should look right rather than have the smallest error.

    L + p * perceptual distance + adversarial term          L: the recipe's own loss

A network that minimises an error alone blurs what it cannot know. The discriminator, which sees patches of pixels,
makes up for that, at the cost of a larger error (Blau and Michaeli 2018, arXiv:1711.06077; of codecs 2019,
arXiv:1901.07821). Pictures with alpha are compared over white.
"""

from __future__ import annotations

from torch import Tensor, nn

from smalti.config.vqvae import AdversaryConfig, PerceptualConfig
from smalti.features.extractor import extractor
from smalti.losses.perceptual import PerceptualLoss
from smalti.models.autoencoder.patch_discriminator import PatchDiscriminator
from smalti.recipes.adversary import Adversary
from smalti.recipes.base import TrainingContext, initial_weights


class PictureLosses:
    """The perceptual and the adversarial loss of a recipe; each may be off.

    Args:
        perceptual, adversary: settings; a weight of 0 turns a loss off. The adversary's inputs are pixels.
        seed: of the discriminator's weights.

    Attributes:
        discriminators: one, of pixels; None without an adversarial loss.
    """

    def __init__(
        self, perceptual: PerceptualConfig, adversary: AdversaryConfig, context: TrainingContext, *, seed: int
    ) -> None:
        self.config, self.context = perceptual, context
        self.perceptual: PerceptualLoss | None = None
        if perceptual.weight:
            self.perceptual = extractor(perceptual.network, device=context.device).perceptual_loss()
        self.discriminators: nn.ModuleList | None = None
        self.adversary: Adversary | None = None
        if adversary.weight:
            with initial_weights(seed):
                discriminator = PatchDiscriminator(min(context.image[0], 3), adversary.width)
            self.discriminators = nn.ModuleList([discriminator])
            self.adversary = Adversary(adversary, self.discriminators)

    def add(
        self, loss: Tensor, found: Tensor, wanted: Tensor, last_weight: Tensor, images_seen: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The whole loss, (), and the terms that were added to it.

        Args:
            loss: () the recipe's own.
            found, wanted: (B, C, H, W) in [-1, 1], premultiplied.
            last_weight: of the network's last layer, for the adaptive weight of the adversarial loss.
        """
        found, wanted = over_white(found), over_white(wanted)
        terms: dict[str, Tensor] = {}
        with self.context.autocast():
            if self.perceptual is not None and images_seen >= self.config.start:
                distance = self.perceptual(found[:: self.config.every], wanted[:: self.config.every])
                loss = loss + self.config.weight * distance
                terms["perceptual"] = distance.detach()
            if self.adversary is not None and self.adversary.playing(images_seen):
                term = self.adversary.decoder_loss([found], loss, last_weight, images_seen)
                loss = loss + term
                terms["adversarial"] = term.detach()
        return loss, terms

    def discriminator_loss(self, found: Tensor, wanted: Tensor, images_seen: int) -> Tensor | None:
        """The discriminator's loss, (), if it is trained by now; no gradient reaches the network."""
        if self.adversary is None or not self.adversary.playing(images_seen):
            return None
        with self.context.autocast():
            return self.adversary.discriminator_loss([over_white(wanted)], [over_white(found)])


def over_white(images: Tensor) -> Tensor:
    """Premultiplied RGBA (B, 4, H, W) in [-1, 1] over white, (B, 3, H, W); others are returned as they are."""
    return images if images.shape[1] != 4 else images[:, :3] + 1 - images[:, 3:]
