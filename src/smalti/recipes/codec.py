"""Training of a transform codec, with the encoder's search in the loop.

    1  q = argmin_q |x - x^(q)|^2 + lambda R(q)      by a few rounds of search (models/codec/search.py)
    2  one step of transform, decoder and context net on J = |x - x^(q)|^2 / lambda + R(q), in bits, with q fixed

Both minimise the same J, one over codes and one over weights. The decoder learns on codes as the encoder will make
them; on codes that were only rounded it keeps half of its gain. Every image of a batch has its own random quality.

At `pleasing.start` images all of this is frozen at its EMA weights. From then on the second decoder, which begins as a
copy of the first, is trained on the same codes: w |x - x^|^2 and the losses of recipes/picture_losses.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from smalti.config.codec import CodecConfig
from smalti.config.run import RunConfig
from smalti.data.packed import Batch
from smalti.models.codec.codec import ImageCodec, Refiner, step_size
from smalti.models.codec.search import search
from smalti.recipes.base import Score, TrainingContext, initial_weights
from smalti.recipes.images import ImageRecipe, Images, ResidentBatch
from smalti.recipes.picture_losses import PictureLosses
from smalti.runtime.pixels import premultiplied
from smalti.runtime.rng import Draws


class CodecRecipe(ImageRecipe):
    """Modules: `codec`, and `discriminator` if there is a second decoder.

    Logs: loss (bits a pixel, error included), bpp (bits a pixel), psnr (mean over images of all qualities, dB); for the
    second decoder loss, psnr, perceptual, adversarial, discriminator.
    """

    kind = "codec"
    can_start_from = True
    headline = ("loss", "bpp", "psnr")

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(CodecConfig, config.model)
        with initial_weights(config.train.seed):
            codec = ImageCodec(self.model, context.image[0])
        self.codec = cast(ImageCodec, self.add_module("codec", codec))
        self.add_optimizer("codec", self.codec, self.model.optimizer)
        self.add_average("codec")
        self.second: PictureLosses | None = None
        pleasing = self.model.pleasing
        if pleasing.start is not None:
            self.second = PictureLosses(pleasing.perceptual, pleasing.adversary, context, seed=0)
            self.add_optimizer("pleasing", cast(Refiner, self.codec.pleasing), pleasing.optimizer)
            if self.second.discriminators is not None:
                self.add_module("discriminator", self.second.discriminators)
                self.add_optimizer("discriminator", self.second.discriminators, pleasing.adversary.optimizer)
        self.frozen = False

    def to_device(self, batch: Batch | ResidentBatch) -> Images:
        images = super().to_device(batch)
        return Images(premultiplied(images.pixels), images.labels)

    def start(self, batches: Callable[[], Iterable[Images]]) -> None:
        self.codec.fit(lambda: (batch.pixels for batch in batches()))
        self.add_average("codec")  # restart the EMA from the initialised weights

    def start_from(self, model: nn.Module) -> None:
        weights = model.state_dict()
        if self.second is not None:  # a model without a second decoder can get one
            first = cast(ImageCodec, model).refiner.state_dict()
            weights = {f"pleasing.{name}": value for name, value in first.items()} | weights
        cast(ImageCodec, self.averages["codec"].module).load_state_dict(weights)
        self.codec.load_state_dict(weights)

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        pixels = self.codec.padded(batch.pixels)
        start = self.model.pleasing.start
        self._freeze(start is not None and images_seen >= start, images_seen)
        draws = Draws(self.draw_seed, images_seen, device=self.context.device)
        low, high = self.model.quality_low, self.model.quality_high
        quality = (low + draws.uniform(len(pixels)) * (high + 1 - low)).floor()
        with self.context.autocast():
            codes = search(self.codec, pixels, quality, rounds=self.model.rounds, rate_weight=self.model.rate_weight)
            if self.frozen:
                return self._pleasing_step(pixels, codes, quality, images_seen)
            errors, bits = self._errors_and_bits(self.codec, pixels, codes, quality)
        cost = errors / (self.model.rate_weight * step_size(quality).square()) + bits
        area = pixels.shape[2] * pixels.shape[3]
        loss = cost.mean() / area
        self.descend("codec", loss, images_seen)
        self.update_averages(images_seen)
        with torch.no_grad():
            psnr = -10 * torch.log10((errors / pixels[0].numel() / 4).clamp_min(1e-12))
            return {"loss": loss.detach(), "bpp": bits.mean() / area, "psnr": psnr.mean()}

    def _freeze(self, frozen: bool, images_seen: int) -> None:
        """Freeze all but the second decoder at the EMA weights, or unfreeze after a rollback to before the freeze."""
        if frozen == self.frozen:
            return
        self.frozen, average = frozen, self.export()
        if frozen:  # no effect in a resumed training, where they are already equal
            if images_seen - self.config.train.batch < cast(int, self.model.pleasing.start):
                for codec in (average, self.codec):
                    cast(Refiner, codec.pleasing).load_state_dict(average.refiner.state_dict())
            own = {name: value for name, value in self.codec.state_dict().items() if name.startswith("pleasing.")}
            self.codec.load_state_dict(average.state_dict() | own)
        self.codec.requires_grad_(not frozen)
        if self.codec.pleasing is not None:
            self.codec.pleasing.requires_grad_(True)

    def _pleasing_step(self, pixels: Tensor, codes: Tensor, quality: Tensor, images_seen: int) -> dict[str, Tensor]:
        """One step of the second decoder and its discriminator, on codes that no longer change."""
        second, decoder = cast(PictureLosses, self.second), cast(Refiner, self.codec.pleasing)
        since = images_seen - cast(int, self.model.pleasing.start)
        decoded = self.codec.decode(codes, quality, decoder="pleasing")
        error = (decoded - pixels).square().mean(dim=(1, 2, 3))
        loss, terms = second.add(
            self.model.pleasing.loss_weight * error.mean(), decoded, pixels, decoder.correct.weight, since
        )
        self.descend("pleasing", loss, images_seen)
        self.update_averages(images_seen)
        discriminator_loss = second.discriminator_loss(decoded, pixels, since)
        if discriminator_loss is not None:
            self.descend("discriminator", discriminator_loss, images_seen)
            terms["discriminator"] = discriminator_loss.detach()
        psnr = -10 * torch.log10((error.detach() / 4).clamp_min(1e-12))
        return {"loss": loss.detach(), "psnr": psnr.mean(), **terms}

    def _errors_and_bits(
        self, codec: ImageCodec, pixels: Tensor, codes: Tensor, quality: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Squared error and rate in bits of each image, (B,) each."""
        errors = (codec.decode(codes, quality) - pixels).square().flatten(1).sum(dim=1)
        return errors, codec.distribution(codes, quality).bits(codes).flatten(1).sum(dim=1)

    @torch.no_grad()
    def preview(self, batch: Images) -> dict[str, Tensor]:
        codec = self.export()
        pixels = codec.padded(batch.pixels)
        shown = {"original": batch.pixels}
        for name, quality in (("low", self.model.quality_low), ("high", self.model.quality_high)):
            levels = torch.full((len(pixels),), float(quality), device=pixels.device)
            with self.context.autocast():
                codes = search(codec, pixels, levels, rounds=self.model.rounds, rate_weight=self.model.rate_weight)
                decoded = codec.decode(codes, levels)
            shown[name] = decoded[..., : batch.pixels.shape[2], : batch.pixels.shape[3]].clamp(-1, 1)
        return shown

    @torch.no_grad()
    def score(self, batches: Iterable[Images]) -> Score:
        """Mean J in bits a pixel over five qualities."""
        codec, total, count = self.export(), 0.0, 0
        qualities = torch.linspace(self.model.quality_low, self.model.quality_high, 5).round()
        for batch in batches:
            pixels = codec.padded(batch.pixels)
            for quality in qualities:
                levels = quality.to(pixels.device).expand(len(pixels))
                with self.context.autocast():
                    codes = search(codec, pixels, levels, rounds=self.model.rounds, rate_weight=self.model.rate_weight)
                    errors, bits = self._errors_and_bits(codec, pixels, codes, levels)
                cost = errors / (self.model.rate_weight * step_size(levels).square()) + bits
                total += float(cost.sum())
                count += len(pixels) * pixels.shape[2] * pixels.shape[3]
        return Score("cost_bpp", total / count, larger_is_better=False)

    def export(self) -> ImageCodec:
        return cast(ImageCodec, self.averages["codec"].module)
