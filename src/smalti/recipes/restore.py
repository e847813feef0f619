"""Training of a restorer: undo a degradation that is applied to clean images as they come, or that of pairs.

    y = degrade(x)                  every image with random numbers of its own (augment/degrade.py)
    y = the partner of x            with pairs (data/pairs.py)
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
from smalti.data.pairs import PairedImages
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
        model = cast(RestorerConfig, config.model)
        scale = model.scale
        if isinstance(data, PairedImages):
            _check_pairs(model, data)
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
            degraded, clean = self._pairs(batch, draws)
        with self.context.autocast():
            restored = self.restorer(degraded.images, degraded.hole)
        loss, terms = self.losses.add(
            self.model.loss_weight * self.distance(restored, clean),
            restored, clean, self.restorer.head.weight, images_seen,
        )  # fmt: skip
        self.descend("restorer", loss, images_seen)
        self.update_averages(images_seen)
        discriminator_loss = self.losses.discriminator_loss(restored, clean, images_seen)
        if discriminator_loss is not None:
            self.descend("discriminator", discriminator_loss, images_seen)
            terms["discriminator"] = discriminator_loss.detach()
        with torch.no_grad():
            psnr = psnr_of(restored, clean).mean()
            before = psnr_of(shown(degraded, clean), clean).mean()
            return {"loss": loss.detach(), **terms, "psnr": psnr, "gain": psnr - before}

    @torch.no_grad()
    def preview(self, batch: Images) -> dict[str, Tensor]:
        degraded, restored, clean = self._restored(batch, 0)
        return {"degraded": shown(degraded, clean), "restored": restored, "original": clean}

    @torch.no_grad()
    def score(self, batches: Iterable[Images]) -> Score:
        """Mean PSNR of the held-out images."""
        total, count = 0.0, 0
        for batch in batches:
            _, restored, clean = self._restored(batch, count)
            total += float(psnr_of(restored, clean).sum())
            count += len(restored)
        return Score("psnr_db", total / count, larger_is_better=True)

    def _pairs(self, batch: Images, draws: Draws) -> tuple[Degraded, Tensor]:
        """Degraded images, and what they should become."""
        if batch.targets is not None:
            return Degraded(batch.pixels, None, ()), batch.targets
        return degrade(batch.pixels, self.degradation, draws), batch.pixels

    def _restored(self, batch: Images, number: int) -> tuple[Degraded, Tensor, Tensor]:
        """Degraded, restored and clean images, by the EMA weights; the same for the same `number`."""
        draws = Draws(HELD_OUT_SEED, number, device=self.context.device)
        degraded, clean = self._pairs(batch, draws)
        with self.context.autocast():
            restored = self.export()(degraded.images, degraded.hole)
        return degraded, restored.clamp(-1, 1), clean

    def export(self) -> Restorer:
        return cast(Restorer, self.averages["restorer"].module)


def _check_pairs(model: RestorerConfig, pairs: PairedImages) -> None:
    """Raise ConfigError if a restorer cannot learn from these pairs."""
    if model.holes:
        raise ConfigError(
            "a model that fills holes makes them in clean pictures itself; leave the degraded ones out and give "
            f"{arg('data')} the clean ones alone"
        )
    if not pairs.matched or pairs.scale != model.scale:
        what = f"{pairs.scale} times as large as the images" if pairs.matched else "no partners of the images"
        raise ConfigError(
            f"the targets of {pairs.source} are {what}, but this restorer learns from partners {model.scale} times as "
            "large; take another preset, or other pairs"
        )


def psnr_of(found: Tensor, wanted: Tensor) -> Tensor:
    """PSNR of each image in dB, (B,), after clipping."""
    error = (found.float().clamp(-1, 1) - wanted).square().flatten(1).mean(dim=1) / 4
    return -10 * torch.log10(error.clamp_min(1e-12))


def shown(degraded: Degraded, wanted: Tensor) -> Tensor:
    """Degraded images in the size of the clean ones."""
    if degraded.images.shape[2:] == wanted.shape[2:]:
        return degraded.images
    return F.interpolate(degraded.images, wanted.shape[2:], mode="bicubic", align_corners=False).clamp(-1, 1)
