"""Base of the recipes of restorers: images that are degraded as they come, scores and previews of what is restored.

    y = degrade(x)                  every image with random numbers of its own (augment/degrade.py)
    y = the partner of x            with pairs (data/pairs.py)

The held-out images are degraded in the same way every time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.augment.degrade import Degraded, degrade
from smalti.config.code_restorer import CodeRestorerConfig
from smalti.config.degradation import Degradation, parse_degradation
from smalti.config.restorer import RestorerConfig
from smalti.config.run import RunConfig
from smalti.data.dataset import Dataset
from smalti.data.pairs import PairedImages
from smalti.errors import ConfigError, arg
from smalti.losses.reconstruction import RECONSTRUCTION_LOSSES
from smalti.recipes.base import Score, TrainingContext
from smalti.recipes.images import ImageRecipe, Images
from smalti.recipes.picture_losses import PictureLosses
from smalti.runtime.rng import Draws

HELD_OUT_SEED = 1  # of the degradations of held-out images


class RestorationRecipe(ImageRecipe):
    """Base class. Subclasses export a module that is called with degraded images and holes, (B, 1, H, W) or None."""

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        model = cast(RestorerConfig | CodeRestorerConfig, config.model)
        self.degradation = parse_degradation(model.degradation)
        self.distance = RECONSTRUCTION_LOSSES[model.loss]

    @classmethod
    def check_data(cls, config: RunConfig, data: Dataset, held_out: Dataset | None) -> None:
        super().check_data(config, data, held_out)
        model = cast(RestorerConfig | CodeRestorerConfig, config.model)
        degradation = parse_degradation(model.degradation)
        scale = degradation.scale
        if isinstance(data, PairedImages):
            _check_pairs(degradation, data)
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

    def add_picture_losses(self) -> PictureLosses:
        """The perceptual and adversarial losses of the settings; registers the discriminator if there is one."""
        model = cast(RestorerConfig | CodeRestorerConfig, self.config.model)
        losses = PictureLosses(model.perceptual, model.adversary, self.context, seed=self.config.train.seed)
        if losses.discriminators is not None:
            self.add_module("discriminator", losses.discriminators)
            self.add_optimizer("discriminator", losses.discriminators, model.adversary.optimizer)
        return losses

    def train_discriminator(
        self, losses: PictureLosses, restored: Tensor, wanted: Tensor, images_seen: int
    ) -> dict[str, Tensor]:
        """A step of the discriminator if it is trained by now; returns what to log."""
        loss = losses.discriminator_loss(restored, wanted, images_seen)
        if loss is None:
            return {}
        self.descend("discriminator", loss, images_seen)
        return {"discriminator": loss.detach()}

    @torch.no_grad()
    def degraded(self, batch: Images, images_seen: int) -> tuple[Degraded, Tensor]:
        """Degraded training images, and what they should become."""
        return self._pairs(batch, Draws(self.draw_seed, images_seen, device=self.context.device))

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
        if batch.targets is not None:
            return Degraded(batch.pixels, None, ()), batch.targets
        return degrade(batch.pixels, self.degradation, draws), batch.pixels

    def _restored(self, batch: Images, number: int) -> tuple[Degraded, Tensor, Tensor]:
        """Degraded, restored and clean images, by the EMA weights; the same for the same `number`."""
        degraded, clean = self._pairs(batch, Draws(HELD_OUT_SEED, number, device=self.context.device))
        with self.context.autocast():
            restored = self.export()(degraded.images, degraded.hole)
        return degraded, restored.clamp(-1, 1), clean

    @abstractmethod
    def export(self) -> nn.Module:
        """The restorer, with EMA weights."""


def _check_pairs(degradation: Degradation, pairs: PairedImages) -> None:
    """Raise ConfigError if a restorer cannot learn from these pairs."""
    if degradation.has_hole:
        raise ConfigError(
            "a model that fills holes makes them in clean pictures itself; leave the degraded ones out and give "
            f"{arg('data')} the clean ones alone"
        )
    if not pairs.matched or pairs.scale != degradation.scale:
        what = f"{pairs.scale} times as large as the images" if pairs.matched else "no partners of the images"
        raise ConfigError(
            f"the targets of {pairs.source} are {what}, but this restorer learns from partners {degradation.scale} "
            "times as large; take another preset, or other pairs"
        )


def psnr_of(found: Tensor, wanted: Tensor) -> Tensor:
    """PSNR of each image in dB, (B,), after clipping."""
    error = (found.float().clamp(-1, 1) - wanted).square().flatten(1).mean(dim=1) / 4
    return -10 * torch.log10(error.clamp_min(1e-12))


def psnr_and_gain(restored: Tensor, degraded: Degraded, wanted: Tensor) -> dict[str, Tensor]:
    """What is logged: mean PSNR of a batch, and how far it is above that of the degraded images, in dB."""
    with torch.no_grad():
        psnr = psnr_of(restored, wanted).mean()
        return {"psnr": psnr, "gain": psnr - psnr_of(shown(degraded, wanted), wanted).mean()}


def shown(degraded: Degraded, wanted: Tensor) -> Tensor:
    """Degraded images in the size of the clean ones."""
    if degraded.images.shape[2:] == wanted.shape[2:]:
        return degraded.images
    return F.interpolate(degraded.images, wanted.shape[2:], mode="bicubic", align_corners=False).clamp(-1, 1)
