"""Training of a restorer: undo a degradation that is applied to clean images as they come.

    y = degrade(x)                  every image with random numbers of its own (augment/degrade.py)
    L = w * distance(f(y), x) + perceptual and adversarial terms          recipes/picture_losses.py

The terms are off for restorers that should have the smallest error. The held-out images are degraded in the same way
every time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.augment.degrade import Degraded, degrade
from smalti.config.degradation import parse_degradation
from smalti.config.restorer import RestorerConfig
from smalti.config.run import RunConfig
from smalti.data.dataset import Dataset
from smalti.errors import ConfigError, arg
from smalti.losses.reconstruction import RECONSTRUCTION_LOSSES
from smalti.models.restorer.restorer import Restorer
from smalti.recipes.base import Score, TrainingContext, initial_weights
from smalti.recipes.images import ImageRecipe, Images
from smalti.recipes.picture_losses import PictureLosses
from smalti.runtime.rng import Draws

HELD_OUT_SEED = 1  # of the degradations of held-out images


class RestoreRecipe(ImageRecipe):
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
        self.degradation = parse_degradation(self.model.degradation)
        self.distance = RECONSTRUCTION_LOSSES[self.model.loss]
        with initial_weights(config.train.seed):
            restorer = Restorer(self.model, context.image[0])
        self.restorer = cast(Restorer, self.add_module("restorer", restorer))
        self.add_optimizer("restorer", self.restorer, self.model.optimizer)
        self.add_average("restorer")
        self.losses = PictureLosses(self.model.perceptual, self.model.adversary, context, seed=config.train.seed)
        if self.losses.discriminators is not None:
            self.add_module("discriminator", self.losses.discriminators)
            self.add_optimizer("discriminator", self.losses.discriminators, self.model.adversary.optimizer)

    @classmethod
    def check_data(cls, config: RunConfig, data: Dataset, held_out: Dataset | None) -> None:
        super().check_data(config, data, held_out)
        scale = parse_degradation(cast(RestorerConfig, config.model).degradation).scale
        height, width = data.spec.shape[-2:]
        if data.spec.shape[0] == 4:
            raise ConfigError(
                f"the images have transparency, which restorers carry over and do not learn; give {arg('channels', 3)}"
            )
        if height % scale or width % scale:
            raise ConfigError(
                f"the images have {height}x{width} pixels, but sides must be multiples of {scale}, by which the "
                f"degradation makes them smaller; give {arg('data.crop')} or {arg('size')} such a number"
            )

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        draws = Draws(self.draw_seed, images_seen, device=self.context.device)
        with torch.no_grad():
            degraded = degrade(batch.pixels, self.degradation, draws)
        with self.context.autocast():
            restored = self.restorer(degraded.images, degraded.hole)
        loss, terms = self.losses.add(
            self.model.loss_weight * self.distance(restored, batch.pixels),
            restored, batch.pixels, self.restorer.head.weight, images_seen,
        )  # fmt: skip
        self.descend("restorer", loss, images_seen)
        self.update_averages(images_seen)
        discriminator_loss = self.losses.discriminator_loss(restored, batch.pixels, images_seen)
        if discriminator_loss is not None:
            self.descend("discriminator", discriminator_loss, images_seen)
            terms["discriminator"] = discriminator_loss.detach()
        with torch.no_grad():
            psnr = psnr_of(restored, batch.pixels).mean()
            before = psnr_of(shown(degraded, batch.pixels), batch.pixels).mean()
            return {"loss": loss.detach(), **terms, "psnr": psnr, "gain": psnr - before}

    @torch.no_grad()
    def preview(self, batch: Images) -> dict[str, Tensor]:
        degraded, restored = self._restored(batch.pixels, 0)
        return {"original": batch.pixels, "degraded": shown(degraded, batch.pixels), "restored": restored}

    @torch.no_grad()
    def score(self, batches: Iterable[Images]) -> Score:
        """Mean PSNR of the held-out images."""
        total, count = 0.0, 0
        for batch in batches:
            _, restored = self._restored(batch.pixels, count)
            total += float(psnr_of(restored, batch.pixels).sum())
            count += len(restored)
        return Score("psnr_db", total / count, larger_is_better=True)

    def _restored(self, pixels: Tensor, number: int) -> tuple[Degraded, Tensor]:
        """Degraded and restored images, by the EMA weights; the same for the same `number`."""
        draws = Draws(HELD_OUT_SEED, number, device=self.context.device)
        degraded = degrade(pixels, self.degradation, draws)
        with self.context.autocast():
            restored = self.export()(degraded.images, degraded.hole)
        return degraded, restored.clamp(-1, 1)

    def export(self) -> Restorer:
        return cast(Restorer, self.averages["restorer"].module)


def psnr_of(found: Tensor, wanted: Tensor) -> Tensor:
    """PSNR of each image in dB, (B,), after clipping."""
    error = (found.float().clamp(-1, 1) - wanted).square().flatten(1).mean(dim=1) / 4
    return -10 * torch.log10(error.clamp_min(1e-12))


def shown(degraded: Degraded, wanted: Tensor) -> Tensor:
    """Degraded images in the size of the clean ones."""
    if degraded.images.shape[2:] == wanted.shape[2:]:
        return degraded.images
    return F.interpolate(degraded.images, wanted.shape[2:], mode="bicubic", align_corners=False).clamp(-1, 1)
