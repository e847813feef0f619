"""Training of a translator: give pictures another style.

With pairs (x, y), the distance to the target, and losses of pictures that should look right:

    L = w * distance(G(x), y) + perceptual and adversarial terms                  recipes/picture_losses.py

Without pairs (Park et al. 2020, arXiv:2007.15651), x of one style and y of the other: a discriminator says what the
other style is, and patches of the result have to stay recognisable as those of the input at the same places.

    L = adversarial(G(x)) + w_X * NCE(G(x), x) + w_Y * NCE(G(y), y)               losses/patches.py

The NCE is the mean over the compared feature maps of the network itself; the second one keeps pictures as they are that
have the style already. The heads that compare patches are trained with the network's loss and are not kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from smalti.config.run import RunConfig
from smalti.config.translator import PairsConfig, PatchesConfig, TranslatorConfig
from smalti.config.vqvae import PerceptualConfig
from smalti.data.dataset import Dataset
from smalti.data.pairs import PairedImages
from smalti.errors import ConfigError, DataError, arg
from smalti.features.extractor import extractor
from smalti.losses.patches import patch_nce
from smalti.losses.reconstruction import RECONSTRUCTION_LOSSES
from smalti.metrics.pairs import KernelDistance
from smalti.models.restorer.restorer import Restorer
from smalti.models.restorer.translator import PatchHeads
from smalti.recipes.base import Score, TrainingContext, initial_weights
from smalti.recipes.images import ImageRecipe, Images
from smalti.recipes.picture_losses import PictureLosses
from smalti.runtime.pixels import to_pixels
from smalti.runtime.rng import Draws

JUDGE = "smalti-vit"  # of the score without pairs; it comes with smalti


class TranslateRecipe(ImageRecipe):
    """Modules: `translator`; `discriminator` if there is an adversarial loss; without pairs `heads`.

    Logs: loss, change (mean of |G(x) - x|, of the range of pixels); with pairs l1 (mean of |G(x) - y|, likewise) and
    gain (by how much that of x is larger); without them contrastive and identity; with their terms also perceptual,
    adversarial, discriminator.
    """

    kind = "translate"
    can_start_from = True
    headline = ("loss", "change")

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(TranslatorConfig, config.model)
        seed = config.train.seed
        with initial_weights(seed):
            translator = Restorer(self.model, context.image[0])
        self.translator = cast(Restorer, self.add_module("translator", translator))
        self.add_average("translator")
        trained: list[nn.Module] = [self.translator]
        objective = self.model.objective
        perceptual = objective.perceptual if isinstance(objective, PairsConfig) else PerceptualConfig()
        self.losses = PictureLosses(perceptual, self.model.adversary, context, seed=seed)
        if self.losses.discriminators is not None:
            self.add_module("discriminator", self.losses.discriminators)
            self.add_optimizer("discriminator", self.losses.discriminators, self.model.adversary.optimizer)
        if isinstance(objective, PatchesConfig):
            with initial_weights(seed):
                heads = PatchHeads(self._map_channels(objective), objective.embedding)
            self.heads = cast(PatchHeads, self.add_module("heads", heads))
            trained.append(self.heads)
        self.add_optimizer("translator", nn.ModuleList(trained), self.model.optimizer)

    def _map_channels(self, objective: PatchesConfig) -> list[int]:
        with torch.no_grad():
            maps = self.translator.maps(torch.zeros(1, *self.context.image, device=self.context.device))
        return [maps[index].shape[1] for index in objective.maps]

    @classmethod
    def check_data(cls, config: RunConfig, data: Dataset, held_out: Dataset | None) -> None:
        super().check_data(config, data, held_out)
        model = cast(TranslatorConfig, config.model)
        if not isinstance(data, PairedImages):
            raise ConfigError(
                f"{data.source} holds images, but a translator learns from two sources; give {arg('targets', 'SOURCE')}"
            )
        if data.matched != model.matched or data.scale != 1:
            wanted = "pairs of one size" if model.matched else "two sources without pairs"
            found = f"pairs whose targets are {data.scale} times as large" if data.matched else "no pairs"
            raise ConfigError(
                f"model.objective.method is {model.objective.method!r}, which learns from {wanted}, but the data are "
                f"{found}"
            )
        if data.spec.shape[0] == 4:
            raise ConfigError(
                "the images have transparency, which translators carry over and do not learn; give "
                f"{arg('channels', 3)}"
            )
        if not model.matched and held_out is not None and len(held_out) < 2:
            raise DataError("the held-out images are too few for a score; give at least 2, or none")

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        targets = _targets(batch)
        objective = self.model.objective
        with self.context.autocast():
            result = self.translator(batch.pixels)
        if isinstance(objective, PairsConfig):
            distance = RECONSTRUCTION_LOSSES[objective.loss](result, targets)
            own, terms = objective.loss_weight * distance, _errors(result, batch.pixels, targets)
        else:
            own, terms = self._contrastive_loss(objective, result, batch.pixels, targets, images_seen)
        loss, more = self.losses.add(own, result, targets, self.translator.head.weight, images_seen)
        self.descend("translator", loss, images_seen)
        self.update_averages(images_seen)
        discriminator_loss = self.losses.discriminator_loss(result, targets, images_seen)
        if discriminator_loss is not None:
            self.descend("discriminator", discriminator_loss, images_seen)
            more["discriminator"] = discriminator_loss.detach()
        return {"loss": loss.detach(), "change": _distance(result.detach(), batch.pixels), **terms, **more}

    def _contrastive_loss(
        self, objective: PatchesConfig, result: Tensor, given: Tensor, targets: Tensor, images_seen: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        draws = Draws(self.draw_seed, images_seen, device=self.context.device)
        contrastive = self._nce(objective, result, given, draws)
        loss, terms = objective.weight * contrastive, {"contrastive": contrastive.detach()}
        if objective.identity_weight:
            with self.context.autocast():
                same = self.translator(targets)
            identity = self._nce(objective, same, targets, draws)
            loss, terms["identity"] = loss + objective.identity_weight * identity, identity.detach()
        return loss, terms

    def _nce(self, objective: PatchesConfig, result: Tensor, given: Tensor, draws: Draws) -> Tensor:
        """The mean of PatchNCE over the compared maps, each at random places of its own."""
        with self.context.autocast():
            found, wanted = (self._chosen(objective, images) for images in (result, given))
            places = [_places(draws, values, objective.patches) for values in wanted]
            vectors = zip(self.heads(found, places), self.heads(wanted, places), strict=True)
            return torch.stack([patch_nce(a, b, temperature=objective.temperature) for a, b in vectors]).mean()

    def _chosen(self, objective: PatchesConfig, images: Tensor) -> list[Tensor]:
        maps = self.translator.maps(images)
        return [maps[index] for index in objective.maps]

    @torch.no_grad()
    def preview(self, batch: Images) -> dict[str, Tensor]:
        shown = {"input": batch.pixels, "result": self._translated(batch.pixels)}
        return shown | {"target": _targets(batch)} if self.model.matched else shown

    @torch.no_grad()
    def score(self, batches: Iterable[Images]) -> Score:
        """With pairs, the mean of |G(x) - y| as a fraction of the range of pixels.

        Without them, KID between results and pictures of the other style. It says whether the style is right, and not
        whether a result still shows what its input did.
        """
        if not self.model.matched:
            return Score(f"kid_{JUDGE}", self._kernel_distance(batches), larger_is_better=False)
        total, count = 0.0, 0
        for batch in batches:
            total += float(_distance(self._translated(batch.pixels), _targets(batch))) * len(batch.pixels)
            count += len(batch.pixels)
        return Score("l1", total / count, larger_is_better=False)

    def _kernel_distance(self, batches: Iterable[Images]) -> float:
        judge, distance = extractor(JUDGE, device=self.context.device), KernelDistance()
        for batch in batches:
            for images, real in ((self._translated(batch.pixels), False), (_targets(batch), True)):
                distance.update(judge.features(to_pixels(images)), real=real)
        return distance.compute()[0].value

    def _translated(self, pixels: Tensor) -> Tensor:
        """Results of the EMA weights."""
        with self.context.autocast():
            return cast(Tensor, self.export()(pixels)).float().clamp(-1, 1)

    def export(self) -> Restorer:
        return cast(Restorer, self.averages["translator"].module)


def _targets(batch: Images) -> Tensor:
    assert batch.targets is not None, "check_data refuses images without targets"
    return batch.targets


def _places(draws: Draws, values: Tensor, count: int) -> Tensor:
    """(B, S) different positions of each image's map, all of them if there are no more than `count`."""
    batch, _, height, width = values.shape
    return draws.uniform(batch, height * width).topk(min(count, height * width), dim=1).indices


def _distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference after clipping, (), as a fraction of the range of pixels."""
    return (found.float().clamp(-1, 1) - wanted).abs().mean() / 2


def _errors(result: Tensor, given: Tensor, targets: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        after, before = _distance(result, targets), _distance(given, targets)
        return {"l1": after, "gain": before - after}
