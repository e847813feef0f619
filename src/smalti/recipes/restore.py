"""Training of a restorer: undo a degradation that is applied to clean images as they come, or that of pairs.

    L = w * distance(f(y), x) + perceptual and adversarial terms          recipes/picture_losses.py

y is the degraded x, or its partner: recipes/restoration.py. The terms are off for restorers that should have the
smallest error.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor

from smalti.config.restorer import RestorerConfig
from smalti.config.run import RunConfig
from smalti.models.restorer.restorer import Restorer
from smalti.recipes.base import TrainingContext, initial_weights
from smalti.recipes.images import Images
from smalti.recipes.restoration import RestorationRecipe, psnr_and_gain


class RestoreRecipe(RestorationRecipe):
    """Modules: `restorer`, and `discriminator` if there is an adversarial loss.

    Logs: loss, psnr (mean over images, dB), gain (psnr above that of the degraded images, enlarged if smaller); with
    their terms also perceptual, adversarial, discriminator.
    """

    kind = "restore"
    can_start_from = True
    headline = ("loss", "psnr", "gain")

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(RestorerConfig, config.model)
        with initial_weights(config.train.seed):
            restorer = Restorer(self.model, context.image[0])
        self.restorer = cast(Restorer, self.add_module("restorer", restorer))
        self.add_optimizer("restorer", self.restorer, self.model.optimizer)
        self.add_average("restorer")
        self.losses = self.add_picture_losses()

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        degraded, clean = self.degraded(batch, images_seen)
        with self.context.autocast():
            restored = self.restorer(degraded.images, degraded.hole)
        loss, terms = self.losses.add(
            self.model.loss_weight * self.distance(restored, clean),
            restored, clean, self.restorer.head.weight, images_seen,
        )  # fmt: skip
        self.descend("restorer", loss, images_seen)
        self.update_averages(images_seen)
        terms |= self.train_discriminator(self.losses, restored, clean, images_seen)
        return {"loss": loss.detach(), **terms, **psnr_and_gain(restored, degraded, clean)}

    def export(self) -> Restorer:
        return cast(Restorer, self.averages["restorer"].module)
