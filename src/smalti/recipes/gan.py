"""Train a GAN: discriminator and generator in turn, each from its own loss with its own optimizer.

    1  D descends  L_D(D(S A real), D(S A G(z))) + gamma/2 (R1 + R2) [+ other penalties]
    2  G descends  L_G(D(S A real'), D(S A G(z'))), D's weights frozen

If `resample_for_generator`, z' and real' are other latents and images than those of step 1; else they are the same
ones, and D(S A real) is that of step 1, from before D moved: one pass of each network less.

A are random changes of images (augment/diffaugment.py), other ones each time, and S is what D sees of an image: its
pixels, feature maps of it, or both (recipes/discriminator_inputs.py). R1 and R2 take gradients with respect to the
images before A, or to the feature maps where D sees nothing else; penalty.gradient takes them at images between real
and fake ones, before A too. The losses and penalties are in losses/adversarial.py, the automatic gamma in
recipes/gamma.py, and the monitor that notices a collapse in recipes/collapse.py.
Sources: Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1; Huang et al. 2025, arXiv:2501.05441.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from smalti.augment.diffaugment import Augmentation
from smalti.config.gan import GANConfig
from smalti.config.run import RunConfig
from smalti.errors import ConfigError
from smalti.losses.adversarial import ADVERSARIAL_LOSSES, LeCam, gradient_penalty, squared_gradients
from smalti.metrics.frechet import Moments, frechet_distance
from smalti.models.gan.base import Discriminator, Generator
from smalti.models.gan.feature_discriminator import DoubleDiscriminator, FeatureDiscriminator
from smalti.recipes.base import Images, Recipe, Score, TrainingContext, initial_weights
from smalti.recipes.collapse import CollapseMonitor
from smalti.recipes.discriminator_inputs import build_discriminator_inputs
from smalti.recipes.gamma import automatic_gamma
from smalti.runtime.pixels import to_pixels
from smalti.runtime.rng import Draws, seeded_generator
from smalti.runtime.state import TrainingState

DEFAULT_WASSERSTEIN_PENALTY = 10.0  # arXiv:1704.00028
WATCHED = 64  # latents that are always the same
GAMMA_IMAGES = 2_000  # or as many as there are in the first batches


class GANRecipe(Recipe[Images]):
    """Modules: `generator`, `discriminator`. States: `augmentation`, `lecam`, `monitor`, `regularization`.

    Logs: generator, discriminator, penalty, real and fake logits, the norms of both gradients, diversity.
    """

    kind = "gan"
    headline = ("generator", "discriminator", "real_logit", "fake_logit", "diversity")
    score_images = 2_000  # a Frechet distance of fewer says little

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(GANConfig, config.model)
        self.loss = ADVERSARIAL_LOSSES[self.model.loss]
        penalty = self.model.penalty
        self.inputs = self.model.discriminator.inputs
        self.gradient_weight = penalty.gradient
        if self.gradient_weight is None:
            wanted = self.model.loss == "wasserstein" and self.inputs == "pixels"
            self.gradient_weight = DEFAULT_WASSERSTEIN_PENALTY if wanted else 0.0
        if penalty.smooth:
            self.rollback_effect = "half the learning rate, twice the gamma"
        classes = context.classes if self.model.conditional else 0
        if self.model.conditional and classes < 2:
            raise ConfigError(
                f"model.conditional is true, but the data has {'one class' if classes else 'no labels'}; "
                "put each class's images in a folder of its own, or set model.conditional=false"
            )
        self.discriminator_inputs, channels = build_discriminator_inputs(self.model.discriminator, context)
        points = len(channels) if self.inputs == "features" else 1  # that R1 and R2 are about
        with initial_weights(config.train.seed):
            generator = Generator(self.model, context.image, classes)
            discriminator = _discriminator(self.model, context.image, classes, channels)
        self.generator = cast(Generator, self.add_module("generator", generator))
        self.discriminator = self.add_module("discriminator", discriminator)
        self.augmentation = self.add_state("augmentation", Augmentation(self.model.augmentation))
        self.lecam = self.add_state("lecam", LeCam(_logits_per_image(self.inputs, channels)))
        self.monitor = self.add_state("monitor", CollapseMonitor(context.device))
        # The data decides gamma where it is automatic, and a rollback doubles it.
        gamma = math.nan if isinstance(penalty.gamma, str) else float(penalty.gamma)
        self.regularization = self.add_state("regularization", _Regularization(gamma=torch.full((points,), gamma)))
        self.add_optimizer("generator", self.generator, self.model.generator_optimizer)
        self.add_optimizer("discriminator", self.discriminator, self.model.discriminator_optimizer)
        self.add_average("generator")
        self._real: Moments | None = None

    @torch.no_grad()
    def start(self, batches: Callable[[], Iterable[Images]]) -> None:
        if self.model.penalty.gamma == "auto":
            draws = Draws(self.draw_seed, 0, device=self.context.device)
            images = _first(batches(), GAMMA_IMAGES)
            looks = (self.discriminator_inputs(part, draws) if self.inputs == "features" else [part] for part in images)
            self.regularization.gamma.copy_(automatic_gamma(looks, self.context.count))
        self.monitor.observe_data(to_pixels(torch.cat(list(_first(batches(), WATCHED)))))

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        draws = Draws(self.draw_seed, images_seen, device=self.context.device)
        labels = batch.labels if self.model.conditional else None
        generating = (images_seen // self.config.train.batch + 1) % self.model.generator_every == 0
        shared = generating and not self.model.resample_for_generator
        self._anneal(images_seen)

        self.discriminator.requires_grad_(True)
        with torch.set_grad_enabled(shared):
            fake = self._generate(len(batch.pixels), labels, draws)
            seen = self._look(fake, draws, images_seen) if shared else None
        points, both = self._points(batch.pixels, fake, seen, draws, images_seen)
        logits = self._logits(both, _twice(labels), draws, twice=self._smooths(images_seen))
        real_logits, fake_logits = logits[0::2], logits[1::2]
        penalty = self._penalty(logits, points, labels, draws, images_seen)
        loss = self.loss.discriminator(real_logits, fake_logits)
        self.descend("discriminator", loss + penalty, images_seen)

        game, norm = self.loss.generator(real_logits, fake_logits), torch.zeros_like(loss)
        if generating:
            self.discriminator.requires_grad_(False)
            against = real_logits.detach()
            if seen is None:
                # Others are of use to pairs alone: without them no real image is looked at again.
                other = self.extra_batch() if self.extra_batch is not None and self.loss.paired else batch
                labels = other.labels if self.model.conditional else None
                seen = self._look(self._generate(len(other.pixels), labels, draws), draws, images_seen)
                against = self._real_logits(other.pixels, labels, draws, images_seen)
            game = self.loss.generator(against, self._logits(seen, labels, draws))
            self.descend("generator", game, images_seen)
            norm = _norm(self.generator)
        self.update_averages(images_seen)
        real_logits, fake_logits = _of_judges(real_logits.detach()), _of_judges(fake_logits.detach())
        unknown = fake_logits if self.loss.middle is None else self.loss.middle
        self.augmentation.adapt(real_logits, unknown, self.config.train.batch)
        return {
            "generator": game.detach(),
            "discriminator": loss.detach(),
            "penalty": penalty.detach(),
            "real_logit": real_logits.mean(),
            "fake_logit": fake_logits.mean(),
            "gap": self.monitor.observe_logits(real_logits, fake_logits, self.config.train.batch),
            "discriminator_gradient": _norm(self.discriminator),
            "generator_gradient": norm,
        }

    @torch.no_grad()
    def _real_logits(self, real: Tensor, labels: Tensor | None, draws: Draws, images_seen: int) -> Tensor:
        """What fresh fake images are compared with: real ones, seen anew."""
        if not self.loss.paired:
            return torch.zeros(len(real), device=self.context.device)  # does not matter
        return self._logits(self._look(real, draws, images_seen), labels, draws)

    def _smooths(self, images_seen: int) -> bool:
        """Whether R1 and R2 are taken in the step that begins here."""
        return self.model.penalty.smooth and images_seen // self.config.train.batch % self.model.penalty.every == 0

    def _penalty(
        self, logits: Tensor, points: Sequence[Tensor], labels: Tensor | None, draws: Draws, images_seen: int
    ) -> Tensor:
        """What is added to the discriminator's loss, weighted; real and fake alternate in `logits` and `points`."""
        config, total = self.model.penalty, torch.zeros((), device=self.context.device)
        if self._smooths(images_seen):
            whole = _of_judges(logits)
            squares = squared_gradients(whole[:, 0] if self.inputs == "both" else whole, points)
            gamma = config.every * self.regularization.gamma * self._annealed(images_seen, self.model.anneal.gamma)
            for wanted, part in ((config.r1, squares[0::2]), (config.r2, squares[1::2])):
                total = total + wanted * (gamma / 2 * part).mean()
        if self.gradient_weight:
            network, (images,) = self.discriminator.forward, points

            def critic(between: Tensor) -> Tensor:
                # Float32, because the norm of a gradient loses too much in bf16.
                logits: Tensor = network(self.augmentation(between, draws, images_seen), labels, draws)
                return logits

            total = total + self.gradient_weight * gradient_penalty(critic, images[0::2], images[1::2], draws)
        if config.lecam:
            whole = _of_judges(logits)
            total = total + config.lecam * self.lecam(whole[0::2], whole[1::2])
        return total

    def _generate(self, count: int, labels: Tensor | None, draws: Draws) -> Tensor:
        with self.context.autocast():
            images: Tensor = self.generator(draws.normal(count, self.model.latent), labels)
        return images

    def _look(self, images: Tensor, draws: Draws, images_seen: int) -> list[Tensor]:
        """What the discriminator sees of images, changed at random."""
        with self.context.autocast():
            return self.discriminator_inputs(self.augmentation(images, draws, images_seen), draws)

    def _points(
        self, real: Tensor, fake: Tensor, seen: Sequence[Tensor] | None, draws: Draws, images_seen: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What penalties are about, images before they are changed or feature maps; and what D sees of that.

        D sees each image alone, so real and fake share one pass. They alternate, so that a rank's rows are the same
        part of the whole batch's rows with any number of ranks, and get the same noise.

        Args:
            seen: what was seen of the fake images already, if it was; what D sees is taken from it, except for pixels.
        """
        smooths = self._smooths(images_seen)
        images = [] if self.inputs == "features" else [_alternate(real, fake.detach()).requires_grad_(smooths)]
        if self.inputs == "pixels":
            return images, self._look(images[0], draws, images_seen)
        with torch.no_grad():
            real_seen = self._look(real, draws, images_seen)
            fake_seen = self._look(fake, draws, images_seen) if seen is None else seen
        if self.inputs == "both":
            changed = self.augmentation(images[0], draws, images_seen)
            return images, [changed, *_alternate_each(real_seen[1:], fake_seen[1:])]
        maps = [part.requires_grad_(smooths) for part in _alternate_each(real_seen, fake_seen)]
        return maps, maps

    def _logits(self, seen: Sequence[Tensor], labels: Tensor | None, draws: Draws, *, twice: bool = False) -> Tensor:
        """(B,) or (B, J, n); `twice`: they will be differentiated twice, which what torch.compile makes cannot be."""
        network = self.discriminator.forward if twice else self.discriminator
        with self.context.autocast():
            logits: Tensor = network(seen[0] if self.inputs == "pixels" else seen, labels, draws)
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

    def on_rollback(self) -> None:
        super().on_rollback()
        self.regularization.gamma *= 2.0

    @torch.no_grad()
    def diagnostics(self, *, remember: bool = True) -> tuple[dict[str, float], str | None]:
        z = self._latents(WATCHED, 0)
        labels = self._labels_in_turn(WATCHED)
        self.generator.eval()  # to look changes nothing: batch normalisation would move its running statistics
        try:
            with self.context.autocast():
                images = self.generator.forward(z, labels)
        finally:
            self.generator.train()
        return self.monitor.diagnostics(images, to_pixels(images), remember=remember)

    @torch.no_grad()
    def preview(self, batch: Images) -> dict[str, Tensor]:
        count = len(batch.pixels)
        return {"samples": self._sample(count, self._labels_in_turn(count))}

    @torch.no_grad()
    def score(self, batches: Iterable[Images]) -> Score:
        real = None if self._real is not None else Moments(self.monitor.dimension)
        fake = Moments(self.monitor.dimension)
        for index, batch in enumerate(batches):
            labels = batch.labels if self.model.conditional else None
            if real is not None:
                real.update(self.monitor.features(to_pixels(batch.pixels)))
            fake.update(self.monitor.features(to_pixels(self._sample(len(batch.pixels), labels, index))))
        self._real = self._real or real
        assert self._real is not None
        distance = frechet_distance(self._real.mean, self._real.covariance(), fake.mean, fake.covariance())
        return Score("frechet_distance", distance, larger_is_better=False)

    def check_score(self, score: Score) -> str | None:
        return self.monitor.check_score(score.value)

    def discard_scores(self) -> None:
        self.monitor.discard_scores()

    def export(self) -> Generator:
        return cast(Generator, self.averages["generator"].module)

    def _sample(self, count: int, labels: Tensor | None, number: int = 0) -> Tensor:
        with self.context.autocast():
            images: Tensor = self.export()(self._latents(count, number), labels)
        return images

    def _latents(self, count: int, number: int) -> Tensor:
        """The same ones for the same number at any time, so that previews can be compared."""
        generator = seeded_generator(self.config.train.seed, 2, number, device=self.context.device)
        return torch.randn(count, self.model.latent, generator=generator, device=self.context.device)

    def _labels_in_turn(self, count: int) -> Tensor | None:
        if not self.model.conditional:
            return None
        return torch.arange(count, device=self.context.device) % self.context.classes


class _Regularization(TrainingState):
    """Weights of R1 and R2, one for each thing that they are about."""

    gamma: Tensor


def _first(batches: Iterable[Images], count: int) -> Iterator[Tensor]:
    """The pixels of so many images, or of all that there are, in parts."""
    for batch in batches:
        if count <= 0:
            return
        yield batch.pixels[:count]
        count -= len(batch.pixels)


def _norm(module: nn.Module) -> Tensor:
    """Of the gradients that were just descended."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def _discriminator(config: GANConfig, image: tuple[int, int, int], classes: int, channels: list[int]) -> nn.Module:
    """Of what `build_discriminator_inputs` shows."""
    sees = config.discriminator.inputs
    if sees == "pixels":
        return Discriminator(config, image, classes)
    judges = FeatureDiscriminator(channels, config.discriminator.width, classes)
    return judges if sees == "features" else DoubleDiscriminator(Discriminator(config, image, classes), judges)


def _of_judges(logits: Tensor) -> Tensor:
    """(B, J, n) logits of places -> (B, J) of the judges; (B,) stays."""
    return logits.mean(dim=2) if logits.ndim == 3 else logits


def _logits_per_image(sees: str, channels: list[int]) -> int | None:
    """As LeCam takes it: None where it is one, without a dimension of its own."""
    return {"pixels": None, "features": len(channels), "both": 2 * len(channels)}[sees]


def _alternate(a: Tensor, b: Tensor) -> Tensor:
    """a0, b0, a1, b1, ..., channels last in memory."""
    return torch.stack([a, b], dim=1).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _alternate_each(real: Sequence[Tensor], fake: Sequence[Tensor]) -> list[Tensor]:
    """Feature maps of both, in float32 and without gradients."""
    return [_alternate(a.float(), b.detach().float()) for a, b in zip(real, fake, strict=True)]


def _twice(labels: Tensor | None) -> Tensor | None:
    return None if labels is None else labels.repeat_interleave(2)
