"""Losses of a codec's second decoder, whose pictures should look right rather than have the smallest error.

    L = w |x - x^|^2 + p * perceptual distance + adversarial term

The bits are the same as for the first decoder, so a file can be decoded both ways. A decoder that minimises the squared
error alone blurs what the bits do not determine; the discriminator, which sees patches of pixels, makes up for that
(Blau and Michaeli 2019, arXiv:1901.07821: for a given rate, realism costs distortion). Pictures with alpha are judged
over white.
"""

from __future__ import annotations

from torch import Tensor, nn

from smalti.config.codec import PleasingConfig
from smalti.features.extractor import extractor
from smalti.losses.perceptual import PerceptualLoss
from smalti.models.autoencoder.patch_discriminator import PatchDiscriminator
from smalti.models.codec.codec import ImageCodec, Refiner
from smalti.recipes.adversary import Adversary
from smalti.recipes.base import TrainingContext, initial_weights


class PleasingDecoder:
    """The losses of the second decoder, and its discriminator.

    Attributes:
        discriminators: one, of pixels.
    """

    def __init__(self, config: PleasingConfig, context: TrainingContext) -> None:
        self.config, self.context = config, context
        self.perceptual: PerceptualLoss | None = None
        if config.perceptual.weight:
            self.perceptual = extractor(config.perceptual.network, device=context.device).perceptual_loss()
        with initial_weights(0):
            self.discriminators = nn.ModuleList([PatchDiscriminator(min(context.image[0], 3), config.adversary.width)])
        self.adversary = Adversary(config.adversary, self.discriminators)

    def loss(
        self, decoded: Tensor, pixels: Tensor, decoder: Refiner, images_seen: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The decoder's loss, (), and its terms to log.

        Args:
            decoded, pixels: (B, C, H, W) in [-1, 1], premultiplied.
            decoder: whose last layer the adaptive weight of the adversarial loss looks at.
        """
        found, wanted = over_white(decoded), over_white(pixels)
        loss, terms = self.config.loss_weight * (decoded - pixels).square().mean(), {}
        with self.context.autocast():
            if self.perceptual is not None:
                distance = self.perceptual(
                    found[:: self.config.perceptual.every], wanted[:: self.config.perceptual.every]
                )
                loss = loss + self.config.perceptual.weight * distance
                terms["perceptual"] = distance.detach()
            if self.config.adversary.weight:
                since = images_seen - (self.config.start or 0)
                term = self.adversary.decoder_loss([found], loss, decoder.correct.weight, since)
                loss = loss + term
                terms["adversarial"] = term.detach()
        return loss, terms

    def discriminator_loss(self, decoded: Tensor, pixels: Tensor) -> Tensor:
        """The discriminator's loss, (); no gradient reaches the decoder."""
        with self.context.autocast():
            return self.adversary.discriminator_loss([over_white(pixels)], [over_white(decoded)])


def over_white(images: Tensor) -> Tensor:
    """Premultiplied RGBA (B, 4, H, W) in [-1, 1] over white, (B, 3, H, W); others are returned as they are."""
    return images if images.shape[1] != 4 else images[:, :3] + 1 - images[:, 3:]


def pleasing_state(codec: ImageCodec) -> dict[str, Tensor]:
    """The weights of the second decoder, by their names in the codec."""
    return {name: value for name, value in codec.state_dict().items() if name.startswith("pleasing.")}
