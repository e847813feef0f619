"""Train a GAN: discriminator and generator in turn, each from its own loss with its own optimizer.

    1  fakes = G(z)
    2  D descends  L_D(D(real), D(fakes, detached)) [+ gradient penalty]
    3  G descends  L_G(D(fakes)), D's weights frozen

The losses are in losses/adversarial.py.  Sources: Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1;
Radford et al. 2016, arXiv:1511.06434.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from smalti.config import GANConfig, RunConfig
from smalti.errors import ConfigError
from smalti.evaluate.sliced import sliced_wasserstein
from smalti.layers.randomness import Draws, seeded_generator
from smalti.losses.adversarial import ADVERSARIAL_LOSSES, gradient_penalty
from smalti.models.gan import Discriminator, Generator
from smalti.recipes.base import Images, Recipe, Score, Setting, initial_weights

DEFAULT_WASSERSTEIN_PENALTY = 10.0  # arXiv:1704.00028


class GANRecipe(Recipe):
    """Modules: `generator`, `discriminator`. Logs: generator, discriminator, penalty, real and fake logits."""

    kind = "gan"
    headline = ("generator", "discriminator", "real_logit", "fake_logit")

    def __init__(self, config: RunConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        self.model = cast(GANConfig, config.model)
        self.loss = ADVERSARIAL_LOSSES[self.model.loss]
        weight = self.model.gradient_penalty
        if weight is None:
            weight = DEFAULT_WASSERSTEIN_PENALTY if self.model.loss == "wasserstein" else 0.0
        self.penalty_weight = weight
        classes = setting.classes if self.model.conditional else 0
        if self.model.conditional and not classes:
            raise ConfigError(
                "model.conditional is true, but the data has no labels; "
                "put each class's images in a folder of its own, or set model.conditional=false"
            )
        with initial_weights(config.train.seed):
            generator = Generator(self.model, setting.image, classes)
            discriminator = Discriminator(self.model, setting.image, classes)
        self.generator = cast(Generator, self.add_module("generator", generator))
        self.discriminator = cast(Discriminator, self.add_module("discriminator", discriminator))
        self.add_optimizer("generator", self.generator, self.model.generator_optimizer)
        self.add_optimizer("discriminator", self.discriminator, self.model.discriminator_optimizer)
        self.add_average("generator")

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        real, count = batch.pixels, len(batch.pixels)
        labels = batch.labels if self.model.conditional else None
        draws = Draws(self.draw_seed, images_seen, device=self.setting.device)
        z = draws.normal(count, self.model.latent)

        with self.setting.autocast():
            fake = self.generator(z, labels)

        self.discriminator.requires_grad_(True)
        with self.setting.autocast():
            # D has no batch statistics, so real and fake may share one pass. They alternate, so that a rank's rows are
            # the same part of the whole batch's rows with any number of ranks, and get the same dropout.
            both = self.discriminator(_alternate(real, fake.detach()), _twice(labels), draws)
        real_logits, fake_logits = both[0::2], both[1::2]
        discriminator_loss = self.loss.discriminator(real_logits, fake_logits)
        penalty = torch.zeros((), device=self.setting.device)
        if self.penalty_weight:
            # Float32, because the norm of a gradient loses too much in bf16; and `forward` itself rather than the
            # module, because what torch.compile makes of it cannot be differentiated twice.
            penalty = self.penalty_weight * gradient_penalty(
                lambda points: self.discriminator.forward(points, labels, draws), real, fake, draws
            )
        self.descend("discriminator", discriminator_loss + penalty, images_seen)

        self.discriminator.requires_grad_(False)
        with self.setting.autocast():
            logits = self.discriminator(fake, labels, draws)
        generator_loss = self.loss.generator(logits)
        self.descend("generator", generator_loss, images_seen)
        self.update_averages(images_seen)
        return {
            "generator": generator_loss.detach(),
            "discriminator": discriminator_loss.detach(),
            "penalty": penalty.detach(),
            "real_logit": real_logits.detach().mean(),
            "fake_logit": fake_logits.detach().mean(),
        }

    @torch.no_grad()
    def preview(self, batch: Images) -> dict[str, Tensor]:
        labels = None
        if self.model.conditional:
            labels = torch.arange(len(batch.pixels), device=self.setting.device) % self.setting.classes
        return {"samples": self._sample(len(batch.pixels), labels)}

    @torch.no_grad()
    def score(self, batches: Iterable[Images]) -> Score:
        real = list(batches)
        fake = []
        for index, batch in enumerate(real):
            labels = batch.labels if self.model.conditional else None
            fake.append(self._sample(len(batch.pixels), labels, index).cpu())
        pixels = torch.cat([batch.pixels.cpu() for batch in real])
        generator = seeded_generator(self.config.train.seed, 3)
        distance = sliced_wasserstein(pixels, torch.cat(fake), generator=generator)
        return Score("sliced_wasserstein", distance, larger_is_better=False)

    def export(self) -> Generator:
        return cast(Generator, self.averages["generator"].module)

    def _sample(self, count: int, labels: Tensor | None, number: int = 0) -> Tensor:
        """The same latents for the same number at any time, so that previews can be compared."""
        generator = seeded_generator(self.config.train.seed, 2, number, device=self.setting.device)
        z = torch.randn(count, self.model.latent, generator=generator, device=self.setting.device)
        with self.setting.autocast():
            return self.export()(z, labels).float()


def _alternate(a: Tensor, b: Tensor) -> Tensor:
    """a0, b0, a1, b1, ..., channels last in memory."""
    return torch.stack([a, b], dim=1).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _twice(labels: Tensor | None) -> Tensor | None:
    return None if labels is None else labels.repeat_interleave(2)
