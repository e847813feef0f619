"""GAN training: alternating steps of discriminator and generator, each with its own loss and optimizer.

    1  D minimises  L_D(D(S A real), D(S A G(z))) + gamma/2 (R1 + R2) [+ other penalties]
    2  G minimises  L_G(D(S A real'), D(S A G(z'))), with D's weights frozen

If `resample_for_generator`, z' and real' are new latents and images. Otherwise those of step 1 are reused, including
the logits of the real images from before the update of D, which saves one pass of each network.

A is a random augmentation (augment/diffaugment.py), sampled anew for each evaluation, and S maps an image to the inputs
of D: its pixels, feature maps of it, or both (recipes/discriminator_inputs.py). The gradients of R1 and R2 are with
respect to the images before A, or to the feature maps if those are the only inputs; those of `penalty.gradient` are at
interpolated images, also before A. The losses and penalties are in losses/adversarial.py, the automatic gamma in
recipes/gamma.py, and the collapse detection in recipes/collapse.py.
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
from smalti.data.dataset import Dataset
from smalti.errors import ConfigError, DataError
from smalti.losses.adversarial import ADVERSARIAL_LOSSES, LeCam, gradient_penalty, squared_gradients
from smalti.metrics.frechet import Moments, frechet_distance
from smalti.models.gan.base import Discriminator, Generator
from smalti.models.gan.feature_discriminator import DoubleDiscriminator, FeatureDiscriminator
from smalti.recipes.base import Score, TrainingContext, check_same_classes, initial_weights
from smalti.recipes.collapse import CollapseMonitor
from smalti.recipes.discriminator_inputs import build_discriminator_inputs
from smalti.recipes.gamma import automatic_gamma
from smalti.recipes.images import ImageRecipe, Images
from smalti.runtime.pixels import to_pixels
from smalti.runtime.rng import Draws, seeded_generator
from smalti.runtime.state import TrainingState

DEFAULT_WASSERSTEIN_PENALTY = 10.0  # arXiv:1704.00028
MONITORED = 64  # images that collapse detection compares, generated from fixed latents
GAMMA_IMAGES = 2_000  # images that the automatic gamma is estimated from


class GANRecipe(ImageRecipe):
    """Modules: `generator`, `discriminator`. States: `augmentation`, `lecam`, `monitor`, `regularization`.

    Logs: generator, discriminator, penalty, real and fake logits, the norms of both gradients, diversity.
    """

    kind = "gan"
    headline = ("generator", "discriminator", "real_logit", "fake_logit", "diversity")
    monitors_collapse = True
    score_images = 2_000  # the Frechet distance is unreliable for fewer

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(GANConfig, config.model)
        self.loss = ADVERSARIAL_LOSSES[self.model.loss]
        penalty = self.model.penalty
        self.inputs = self.model.discriminator.inputs
        self.gradient_weight = penalty.gradient
        if self.gradient_weight is None:
            needed = self.model.loss == "wasserstein" and self.inputs == "pixels"
            self.gradient_weight = DEFAULT_WASSERSTEIN_PENALTY if needed else 0.0
        if penalty.smooth:
            self.rollback_effect = "half the learning rate, twice the gamma"
        classes = context.classes if self.model.conditional else 0
        if self.model.conditional and classes < 2:
            raise ConfigError(
                f"model.conditional is true, but the data has {'one class' if classes else 'no labels'}; "
                "put each class's images in a folder of its own, or set model.conditional=false"
            )
        self.discriminator_inputs, channels = build_discriminator_inputs(self.model.discriminator, context)
        penalized = len(channels) if self.inputs == "features" else 1  # inputs with an R1 and R2 of their own
        with initial_weights(config.train.seed):
            generator = Generator(self.model, context.image, classes)
            discriminator = _discriminator(self.model, context.image, classes, channels)
        self.generator = cast(Generator, self.add_module("generator", generator))
        self.discriminator = self.add_module("discriminator", discriminator)
        self.augmentation = self.add_state("augmentation", Augmentation(self.model.augmentation))
        self.lecam = self.add_state("lecam", LeCam(_logits_per_image(self.inputs, channels)))
        self.monitor = self.add_state("monitor", CollapseMonitor(context.device))
        # `start` estimates gamma from the data if it is "auto"; each rollback doubles it.
        gamma = math.nan if isinstance(penalty.gamma, str) else float(penalty.gamma)
        self.regularization = self.add_state("regularization", _Regularization(gamma=torch.full((penalized,), gamma)))
        self.add_optimizer("generator", self.generator, self.model.generator_optimizer)
        self.add_optimizer("discriminator", self.discriminator, self.model.discriminator_optimizer)
        self.add_average("generator")
        self._real: Moments | None = None

    @classmethod
    def check_data(cls, config: RunConfig, data: Dataset, held_out: Dataset | None) -> None:
        super().check_data(config, data, held_out)
        if held_out is None:
            return
        if len(held_out) < 2:
            raise DataError(
                f"{held_out.source} holds {len(held_out)} image to compare with; the score of a GAN, a Frechet "
                "distance, needs at least 2"
            )
        if cast(GANConfig, config.model).conditional:
            check_same_classes(data, held_out)

    @torch.no_grad()
    def start(self, batches: Callable[[], Iterable[Images]]) -> None:
        if self.model.penalty.gamma == "auto":
            draws = Draws(self.draw_seed, 0, device=self.context.device)
            images = _first(batches(), GAMMA_IMAGES)
            maps = self.inputs == "features"
            inputs = (self.discriminator_inputs(part, draws) if maps else [part] for part in images)
            self.regularization.gamma.copy_(automatic_gamma(inputs, self.context.count))
        self.monitor.observe_data(to_pixels(torch.cat(list(_first(batches(), MONITORED)))))

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        draws = Draws(self.draw_seed, images_seen, device=self.context.device)
        labels = batch.labels if self.model.conditional else None
        train_generator = (images_seen // self.config.train.batch + 1) % self.model.generator_every == 0
        reuse = train_generator and not self.model.resample_for_generator
        self._anneal(images_seen)

        self.discriminator.requires_grad_(True)
        with torch.set_grad_enabled(reuse):
            fake = self._generate(len(batch.pixels), labels, draws)
            fake_inputs = self._augmented_inputs(fake, draws, images_seen) if reuse else None
        penalty_inputs, inputs = self._interleaved_inputs(batch.pixels, fake, fake_inputs, draws, images_seen)
        logits = self._logits(inputs, _repeated(labels), draws, differentiable_twice=self._regularizes(images_seen))
        real_logits, fake_logits = logits[0::2], logits[1::2]
        penalty = self._penalty(logits, penalty_inputs, labels, draws, images_seen)
        loss = self.loss.discriminator(real_logits, fake_logits)
        self.descend("discriminator", loss + penalty, images_seen)

        generator_loss, norm = self.loss.generator(real_logits, fake_logits), torch.zeros_like(loss)
        if train_generator:
            self.discriminator.requires_grad_(False)
            reference = real_logits.detach()
            if fake_inputs is None:
                # Only a relativistic loss needs other real images here; the other losses ignore real logits.
                other = self.extra_batch() if self.extra_batch is not None and self.loss.paired else batch
                labels = other.labels if self.model.conditional else None
                fake = self._generate(len(other.pixels), labels, draws)
                fake_inputs = self._augmented_inputs(fake, draws, images_seen)
                reference = self._real_logits(other.pixels, labels, draws, images_seen)
            generator_loss = self.loss.generator(reference, self._logits(fake_inputs, labels, draws))
            self.descend("generator", generator_loss, images_seen)
            norm = _gradient_norm(self.generator)
        self.update_averages(images_seen)
        real_logits, fake_logits = _position_means(real_logits.detach()), _position_means(fake_logits.detach())
        boundary = fake_logits if self.loss.middle is None else self.loss.middle
        self.augmentation.adapt(real_logits, boundary, self.config.train.batch)
        return {
            "generator": generator_loss.detach(),
            "discriminator": loss.detach(),
            "penalty": penalty.detach(),
            "real_logit": real_logits.mean(),
            "fake_logit": fake_logits.mean(),
            "gap": self.monitor.observe_logits(real_logits, fake_logits, self.config.train.batch),
            "discriminator_gradient": _gradient_norm(self.discriminator),
            "generator_gradient": norm,
        }

    @torch.no_grad()
    def _real_logits(self, real: Tensor, labels: Tensor | None, draws: Draws, images_seen: int) -> Tensor:
        """Logits of real images for the generator's loss, newly augmented; zeros if the loss ignores them."""
        if not self.loss.paired:
            return torch.zeros(len(real), device=self.context.device)
        return self._logits(self._augmented_inputs(real, draws, images_seen), labels, draws)

    def _regularizes(self, images_seen: int) -> bool:
        """Whether the step applies R1 and R2."""
        return self.model.penalty.smooth and images_seen // self.config.train.batch % self.model.penalty.every == 0

    def _penalty(
        self, logits: Tensor, penalty_inputs: Sequence[Tensor], labels: Tensor | None, draws: Draws, images_seen: int
    ) -> Tensor:
        """The weighted penalties of the discriminator, (); real and fake are interleaved in logits and inputs."""
        config, total = self.model.penalty, torch.zeros((), device=self.context.device)
        if self._regularizes(images_seen):
            means = _position_means(logits)
            squares = squared_gradients(means[:, 0] if self.inputs == "both" else means, penalty_inputs)
            gamma = config.every * self.regularization.gamma * self._annealed(images_seen, self.model.anneal.gamma)
            for enabled, part in ((config.r1, squares[0::2]), (config.r2, squares[1::2])):
                total = total + enabled * (gamma / 2 * part).mean()
        if self.gradient_weight:
            network, (images,) = self.discriminator.forward, penalty_inputs

            def critic(interpolated: Tensor) -> Tensor:
                # In float32, because gradient norms are too inaccurate in bf16.
                logits: Tensor = network(self.augmentation(interpolated, draws, images_seen), labels, draws)
                return logits

            total = total + self.gradient_weight * gradient_penalty(critic, images[0::2], images[1::2], draws)
        if config.lecam:
            means = _position_means(logits)
            total = total + config.lecam * self.lecam(means[0::2], means[1::2])
        return total

    def _generate(self, count: int, labels: Tensor | None, draws: Draws) -> Tensor:
        with self.context.autocast():
            images: Tensor = self.generator(draws.normal(count, self.model.latent), labels)
        return images

    def _augmented_inputs(self, images: Tensor, draws: Draws, images_seen: int) -> list[Tensor]:
        """The discriminator's inputs for images, newly augmented."""
        with self.context.autocast():
            return self.discriminator_inputs(self.augmentation(images, draws, images_seen), draws)

    def _interleaved_inputs(
        self, real: Tensor, fake: Tensor, fake_inputs: Sequence[Tensor] | None, draws: Draws, images_seen: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The inputs of R1 and R2 (images before augmentation, or feature maps), and the discriminator's inputs.

        The discriminator treats images independently, so real and fake images share one pass. They are interleaved, so
        that each rank's rows are a contiguous part of the whole batch and get the same noise for any number of ranks.

        Args:
            fake_inputs: discriminator inputs of the fake images if already computed; their feature maps are reused.
        """
        regularizes = self._regularizes(images_seen)
        images = [] if self.inputs == "features" else [_interleave(real, fake.detach()).requires_grad_(regularizes)]
        if self.inputs == "pixels":
            return images, self._augmented_inputs(images[0], draws, images_seen)
        with torch.no_grad():
            real_inputs = self._augmented_inputs(real, draws, images_seen)
            fake_inputs = self._augmented_inputs(fake, draws, images_seen) if fake_inputs is None else fake_inputs
        if self.inputs == "both":
            augmented = self.augmentation(images[0], draws, images_seen)
            return images, [augmented, *_interleave_maps(real_inputs[1:], fake_inputs[1:])]
        maps = [part.requires_grad_(regularizes) for part in _interleave_maps(real_inputs, fake_inputs)]
        return maps, maps

    def _logits(
        self, inputs: Sequence[Tensor], labels: Tensor | None, draws: Draws, *, differentiable_twice: bool = False
    ) -> Tensor:
        """The discriminator's logits, (B,) or (B, J, n)."""
        # torch.compile does not support double backward, and `forward` bypasses it.
        network = self.discriminator.forward if differentiable_twice else self.discriminator
        with self.context.autocast():
            logits: Tensor = network(inputs[0] if self.inputs == "pixels" else inputs, labels, draws)
        return logits

    def _annealed(self, images_seen: int, end: float, start: float = 1.0) -> float:
        """The current value of a quantity annealed from `start` to `end` along half a cosine."""
        images = self.model.anneal.images or self.horizon
        rest = (1 + math.cos(math.pi * min(1.0, images_seen / images))) / 2
        return end + (start - end) * rest

    def _anneal(self, images_seen: int) -> None:
        """Set beta2 of both optimizers if it is annealed."""
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
        z = self._latents(MONITORED, 0)
        labels = self._labels_in_turn(MONITORED)
        self.generator.eval()  # in train mode this would update the running statistics of batch normalisation
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
        """(count, D) fixed latents, a function of the seed and `number`, so that previews are comparable."""
        generator = seeded_generator(self.config.train.seed, 2, number, device=self.context.device)
        return torch.randn(count, self.model.latent, generator=generator, device=self.context.device)

    def _labels_in_turn(self, count: int) -> Tensor | None:
        """(count,) labels 0, 1, 2, ..., 0, 1, ...; None for an unconditional model."""
        if not self.model.conditional:
            return None
        return torch.arange(count, device=self.context.device) % self.context.classes


class _Regularization(TrainingState):
    """Weights of R1 and R2, (J,): one for each input that they apply to."""

    gamma: Tensor


def _first(batches: Iterable[Images], count: int) -> Iterator[Tensor]:
    """The pixels of the first `count` images, or of all if there are fewer, batch by batch."""
    for batch in batches:
        if count <= 0:
            return
        yield batch.pixels[:count]
        count -= len(batch.pixels)


def _gradient_norm(module: nn.Module) -> Tensor:
    """() norm of all parameter gradients."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def _discriminator(config: GANConfig, image: tuple[int, int, int], classes: int, channels: list[int]) -> nn.Module:
    """The discriminator for the inputs of `build_discriminator_inputs`."""
    inputs = config.discriminator.inputs
    if inputs == "pixels":
        return Discriminator(config, image, classes)
    heads = FeatureDiscriminator(channels, config.discriminator.width, classes)
    return heads if inputs == "features" else DoubleDiscriminator(Discriminator(config, image, classes), heads)


def _position_means(logits: Tensor) -> Tensor:
    """(B, J, n) logits of J heads at n positions -> (B, J), the mean of each head; (B,) is returned unchanged."""
    return logits.mean(dim=2) if logits.ndim == 3 else logits


def _logits_per_image(inputs: str, channels: list[int]) -> int | None:
    """The argument of LeCam: J for logits of shape (B, J), None for (B,)."""
    return {"pixels": None, "features": len(channels), "both": 2 * len(channels)}[inputs]


def _interleave(a: Tensor, b: Tensor) -> Tensor:
    """The batch a0, b0, a1, b1, ..., channels last in memory."""
    return torch.stack([a, b], dim=1).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _interleave_maps(real: Sequence[Tensor], fake: Sequence[Tensor]) -> list[Tensor]:
    """Interleaved feature maps, in float32 and detached from the generator."""
    return [_interleave(a.float(), b.detach().float()) for a, b in zip(real, fake, strict=True)]


def _repeated(labels: Tensor | None) -> Tensor | None:
    """Labels of interleaved real and fake images: a0, a0, a1, a1, ...; None stays None."""
    return None if labels is None else labels.repeat_interleave(2)
