"""Train a GAN: discriminator and generator in turn, each from its own loss with its own optimizer.

    1  D descends  L_D(D(A real), D(A G(z))) + gamma/2 (R1 + R2) [+ other penalties]
    2  G descends  L_G(D(A real), D(A G(z'))), D's weights frozen, z' other latents than z

A are random changes of images (layers/augmentation.py), other ones each time; the gradients in R1 and R2 are with
respect to the images before A. In step 2 each fake image is compared with another real one than in step 1. The losses
and penalties are in losses/adversarial.py, gamma's own value in recipes/gamma.py, and what watches over a training in
recipes/gan_watch.py.
Sources: Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1; Huang et al. 2025, arXiv:2501.05441.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from smalti.config import GANConfig, RunConfig
from smalti.errors import ConfigError
from smalti.evaluate.frechet import Moments, frechet_distance
from smalti.layers.augmentation import Augmentation
from smalti.layers.randomness import Draws, seeded_generator
from smalti.losses.adversarial import ADVERSARIAL_LOSSES, LeCam, gradient_penalty, squared_gradients
from smalti.models.gan import Discriminator, Generator
from smalti.pixels import to_pixels
from smalti.recipes.base import Images, Recipe, Score, Setting, initial_weights
from smalti.recipes.gamma import automatic_gamma
from smalti.recipes.gan_watch import Watch

DEFAULT_WASSERSTEIN_PENALTY = 10.0  # arXiv:1704.00028
WATCHED = 64  # latents that are always the same


class GANRecipe(Recipe):
    """Modules: `generator`, `discriminator`, and what they have beside weights: `augmentation`, `lecam`, `watch`.

    Logs: generator, discriminator, penalty, real and fake logits, the norms of both gradients, diversity.
    """

    kind = "gan"
    headline = ("generator", "discriminator", "real_logit", "fake_logit", "diversity")
    care = "half the learning rate, twice the gamma"
    score_images = 2_000  # a Frechet distance of fewer says little

    def __init__(self, config: RunConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        self.model = cast(GANConfig, config.model)
        self.loss = ADVERSARIAL_LOSSES[self.model.loss]
        penalty = self.model.penalty
        self.gradient_weight = penalty.gradient
        if self.gradient_weight is None:
            self.gradient_weight = DEFAULT_WASSERSTEIN_PENALTY if self.model.loss == "wasserstein" else 0.0
        self.smooth = (penalty.r1 or penalty.r2) and penalty.gamma != 0
        classes = setting.classes if self.model.conditional else 0
        if self.model.conditional and classes < 2:
            raise ConfigError(
                f"model.conditional is true, but the data has {'one class' if classes else 'no labels'}; "
                "put each class's images in a folder of its own, or set model.conditional=false"
            )
        with initial_weights(config.train.seed):
            generator = Generator(self.model, setting.image, classes)
            discriminator = Discriminator(self.model, setting.image, classes)
        self.generator = cast(Generator, self.add_module("generator", generator))
        self.discriminator = cast(Discriminator, self.add_module("discriminator", discriminator))
        self.augmentation = cast(Augmentation, self.add_module("augmentation", Augmentation(self.model.augmentation)))
        self.lecam = cast(LeCam, self.add_module("lecam", LeCam()))
        self.watch = cast(Watch, self.add_module("watch", Watch(setting.device)))
        self.strength = cast(_Strength, self.add_module("strength", _Strength(penalty.gamma)))
        self.add_optimizer("generator", self.generator, self.model.generator_optimizer)
        self.add_optimizer("discriminator", self.discriminator, self.model.discriminator_optimizer)
        self.add_average("generator")
        self._real: Moments | None = None

    def start(self, batches: Callable[[], Iterable[Images]]) -> None:
        if self.model.penalty.gamma == "auto":
            self.strength.gamma.fill_(automatic_gamma(batch.pixels for batch in batches()))
        first = next(iter(batches())).pixels[: max(WATCHED, 2)]
        self.watch.see_data(to_pixels(first))

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        draws = Draws(self.draw_seed, images_seen, device=self.setting.device)
        labels = batch.labels if self.model.conditional else None
        self._anneal(images_seen)
        terms = self._discriminator_step(batch.pixels, labels, draws, images_seen)
        if (images_seen // self.config.train.batch + 1) % self.model.generator_every == 0:
            terms |= self._generator_step(batch.pixels, labels, draws, images_seen)
        self.update_averages(images_seen)
        return terms

    def _discriminator_step(
        self, real: Tensor, labels: Tensor | None, draws: Draws, images_seen: int
    ) -> dict[str, Tensor]:
        penalty, device = self.model.penalty, self.setting.device
        self.discriminator.requires_grad_(True)
        with torch.no_grad(), self.setting.autocast():
            fake = self.generator(draws.normal(len(real), self.model.latent), labels)
        # D sees each image alone, so real and fake may share one pass. They alternate, so that a rank's rows are
        # the same part of the whole batch's rows with any number of ranks, and get the same noise.
        both, both_labels = _alternate(real, fake), _twice(labels)
        both.requires_grad_(self.smooth)
        with self.setting.autocast():
            logits = self._logits(both, both_labels, draws, images_seen, differentiated_twice=self.smooth)
        real_logits, fake_logits = logits[0::2], logits[1::2]
        loss = self.loss.discriminator(real_logits, fake_logits)

        extra = torch.zeros((), device=device)
        if self.smooth:
            squares = squared_gradients(logits, both)
            gamma = self.strength.gamma * self._annealed(images_seen, self.model.anneal.gamma)
            extra = gamma / 2 * (penalty.r1 * squares[0::2].mean() + penalty.r2 * squares[1::2].mean())
        if self.gradient_weight:
            # Float32, because the norm of a gradient loses too much in bf16.
            extra = extra + self.gradient_weight * gradient_penalty(
                lambda points: self.discriminator.forward(points, labels, draws), real, fake, draws
            )
        if penalty.lecam:
            extra = extra + penalty.lecam * self.lecam(real_logits, fake_logits)
        self.descend("discriminator", loss + extra, images_seen)

        self.augmentation.adapt(
            real_logits.detach(), fake_logits.detach() if self.loss.paired else None, self.config.train.batch
        )
        return {
            "generator": self.loss.generator(real_logits, fake_logits).detach(),
            "discriminator": loss.detach(),
            "penalty": extra.detach(),
            "real_logit": real_logits.detach().mean(),
            "fake_logit": fake_logits.detach().mean(),
            "gap": self.watch.see_logits(real_logits.detach(), fake_logits.detach(), self.config.train.batch),
            "discriminator_gradient": _norm(self.discriminator),
            "generator_gradient": torch.zeros((), device=device),
        }

    def _generator_step(self, real: Tensor, labels: Tensor | None, draws: Draws, images_seen: int) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(False)
        with self.setting.autocast():
            fake = self.generator(draws.normal(len(real), self.model.latent), labels)
            fake_logits = self._logits(fake, labels, draws, images_seen)
            real_logits = fake_logits
            if self.loss.paired:
                with torch.no_grad():
                    real_logits = self._logits(real, labels, draws, images_seen)
                if labels is None:  # pairs are of one class
                    real_logits = real_logits.roll(1)
        loss = self.loss.generator(real_logits, fake_logits)
        self.descend("generator", loss, images_seen)
        return {"generator": loss.detach(), "generator_gradient": _norm(self.generator)}

    def _logits(
        self,
        images: Tensor,
        labels: Tensor | None,
        draws: Draws,
        images_seen: int,
        *,
        differentiated_twice: bool = False,
    ) -> Tensor:
        changed = self.augmentation(images, draws, images_seen)
        # `forward` itself, because what torch.compile makes of a module cannot be differentiated twice.
        network = self.discriminator.forward if differentiated_twice else self.discriminator
        logits: Tensor = network(changed, labels, draws)
        return logits

    def _annealed(self, images_seen: int, end: float, start: float = 1.0) -> float:
        """What goes from `start` to `end` on half a cosine, by now."""
        images = self.model.anneal.images or self.horizon
        rest = (1 + math.cos(math.pi * min(1.0, images_seen / images))) / 2
        return end + (start - end) * rest

    def _anneal(self, images_seen: int) -> None:
        end = self.model.anneal.beta2
        if end is None:
            return
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                if "betas" in group:
                    start = self.schedules[name].beta2
                    group["betas"] = (group["betas"][0], self._annealed(images_seen, end, start))

    def descend(self, name: str, loss: Tensor, images_seen: int) -> None:
        with self.learning_rates_times(self._annealed(images_seen, self.model.anneal.learning_rate)):
            super().descend(name, loss, images_seen)

    def compile(self) -> None:
        self.generator.compile()
        self.discriminator.compile()

    def calm(self, times: int) -> None:
        super().calm(times)
        self.strength.gamma *= 2.0**times

    @torch.no_grad()
    def examine(self) -> tuple[dict[str, float], str | None]:
        z = self._latents(WATCHED, 0)
        labels = self._labels_in_turn(WATCHED)
        with self.setting.autocast():
            images = self.generator.forward(z, labels)
        return self.watch.examine(images, to_pixels(images))

    @torch.no_grad()
    def preview(self, batch: Images) -> dict[str, Tensor]:
        count = len(batch.pixels)
        return {"samples": self._sample(count, self._labels_in_turn(count))}

    @torch.no_grad()
    def score(self, batches: Iterable[Images]) -> Score:
        real = None if self._real is not None else Moments(self.watch.dimension)
        fake = Moments(self.watch.dimension)
        for index, batch in enumerate(batches):
            labels = batch.labels if self.model.conditional else None
            if real is not None:
                real.update(self.watch.features(to_pixels(batch.pixels)))
            fake.update(self.watch.features(to_pixels(self._sample(len(batch.pixels), labels, index))))
        self._real = self._real or real
        assert self._real is not None
        distance = frechet_distance(self._real.mean, self._real.covariance(), fake.mean, fake.covariance())
        return Score("frechet_distance", distance, larger_is_better=False)

    def judge(self, score: Score) -> str | None:
        return self.watch.judge(score.value)

    def export(self) -> Generator:
        return cast(Generator, self.averages["generator"].module)

    def _sample(self, count: int, labels: Tensor | None, number: int = 0) -> Tensor:
        with self.setting.autocast():
            images: Tensor = self.export()(self._latents(count, number), labels)
        return images

    def _latents(self, count: int, number: int) -> Tensor:
        """The same ones for the same number at any time, so that previews can be compared."""
        generator = seeded_generator(self.config.train.seed, 2, number, device=self.setting.device)
        return torch.randn(count, self.model.latent, generator=generator, device=self.setting.device)

    def _labels_in_turn(self, count: int) -> Tensor | None:
        if not self.model.conditional:
            return None
        return torch.arange(count, device=self.setting.device) % self.setting.classes


class _Strength(nn.Module):
    """gamma, which the data decides and a rollback changes: a buffer, so that a resumed run has it."""

    gamma: Tensor

    def __init__(self, gamma: float | str) -> None:
        super().__init__()
        self.register_buffer("gamma", torch.tensor(math.nan if isinstance(gamma, str) else float(gamma)))


def _norm(module: nn.Module) -> Tensor:
    """Of the gradients that were just descended."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def _alternate(a: Tensor, b: Tensor) -> Tensor:
    """a0, b0, a1, b1, ..., channels last in memory."""
    return torch.stack([a, b], dim=1).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _twice(labels: Tensor | None) -> Tensor | None:
    return None if labels is None else labels.repeat_interleave(2)
