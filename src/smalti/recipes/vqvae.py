"""Train a VQ-VAE, or a VQGAN: reconstruct images through a grid of codes.

    L = w * distance(decoder(q), x) + quantizer loss          (quantizer loss: see quantize/vector.py)
        + p * perceptual distance                             (losses/perceptual.py; VQGAN)
        + adversarial term                                    (recipes/adversary.py; VQGAN)

w is one over the variance of the data, as in the reference implementation of the paper, so that reconstruction and
commitment are in balance; p and the adversarial weight are 0 for a VQ-VAE. From `freeze_encoder_at` images on,
encoder and codebook stay as their averages are then, and the decoder alone goes on: what looks right is learned without
moving the codes.
Sources: van den Oord et al. 2017, arXiv:1711.00937, equation 3; Esser et al. 2021, arXiv:2012.09841, equation 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from smalti.config.run import RunConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.features.extractor import extractor
from smalti.losses.perceptual import PerceptualLoss
from smalti.losses.reconstruction import RECONSTRUCTION_LOSSES
from smalti.metrics.distortion import psnr_db, squared_error
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.autoencoder.patch_discriminator import MapDiscriminator, PatchDiscriminator
from smalti.quantize.health import UsageMonitor, diagnose, norm_ratio
from smalti.recipes.adversary import Adversary
from smalti.recipes.base import Images, Recipe, Score, TrainingContext, initial_weights
from smalti.runtime.distributed import all_reduce_sum, world

USAGE_HALF_LIFE = 20_000  # images over which the use of the codes is counted
FIRST_ADVICE = 10_000  # images before which a codebook cannot be judged


class VQVAERecipe(Recipe[Images]):
    """Modules: `autoencoder`, and with an adversary `discriminator`. State: `usage`.

    Logs: loss, reconstruction, quantizer, psnr (of the batch, in dB), perplexity, used and dead codes, norm_ratio;
    with a VQGAN's terms also perceptual, adversarial, discriminator.
    """

    kind = "vqvae"
    headline = ("loss", "psnr", "perplexity")

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(VQVAEConfig, config.model)
        self.distance = RECONSTRUCTION_LOSSES[self.model.loss]
        self.perceptual: PerceptualLoss | None = None
        if self.model.perceptual.weight:
            self.perceptual = extractor(self.model.perceptual.network, device=context.device).perceptual_loss()
        with initial_weights(config.train.seed):
            autoencoder = Autoencoder(self.model, context.image[0])
            judges = self._judges() if self.model.adversary.weight else None
        self.autoencoder = cast(Autoencoder, self.add_module("autoencoder", autoencoder))
        self.codebook_sizes = self.autoencoder.quantizer.codebook_sizes
        self.add_optimizer("autoencoder", self.autoencoder, self.model.optimizer)
        self.add_average("autoencoder")
        self.usage = self.add_state("usage", UsageMonitor(self.codebook_sizes, half_life=USAGE_HALF_LIFE))
        self.frozen = False
        self.adversary: Adversary | None = None
        if judges is not None:
            self.add_module("discriminator", judges)
            self.add_optimizer("discriminator", judges, self.model.adversary.optimizer)
            self.adversary = Adversary(self.model.adversary, judges)

    def start(self, batches: Callable[[], Iterable[Images]]) -> None:
        self.autoencoder.fit(lambda: (batch.pixels for batch in batches()), batch=self.config.train.batch)
        self.add_average("autoencoder")  # which begins where the autoencoder does

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        pixels = batch.pixels
        self._freeze_encoder(self.model.freeze_encoder_at is not None and images_seen >= self.model.freeze_encoder_at)
        with self.context.autocast():
            latents, reconstruction, quantized = self.autoencoder(pixels)
        distance = self.distance(reconstruction, pixels)
        loss = self.model.loss_weight * distance + quantized.loss
        terms = {"reconstruction": distance.detach(), "quantizer": quantized.loss.detach()}
        views: Sequence[Tensor] = [reconstruction]  # what an adversary sees
        real_views: Sequence[Tensor] = [pixels]
        if self.perceptual is not None and images_seen >= self.model.perceptual.start:
            every = self.model.perceptual.every
            with self.context.autocast():
                found, wanted = self.perceptual.compare(reconstruction[::every].float(), pixels[::every])
                seen_apart = self.perceptual.distance(found, wanted)
            loss = loss + self.model.perceptual.weight * seen_apart
            terms["perceptual"] = seen_apart.detach()
            if self.model.adversary.inputs == "features":
                views, real_views = found[1:], wanted[1:]
        playing = self.adversary is not None and self.adversary.playing(images_seen)
        if self.adversary is not None and playing:
            with self.context.autocast():
                game = self.adversary.decoder_loss(views, loss, self.autoencoder.last_weight, images_seen)
            loss = loss + game
            terms["adversarial"] = game.detach()
        self.descend("autoencoder", loss, images_seen)
        self.update_averages(images_seen)
        if self.adversary is not None and playing:
            with self.context.autocast():
                discriminator_loss = self.adversary.discriminator_loss(real_views, views)
            self.descend("discriminator", discriminator_loss, images_seen)
            terms["discriminator"] = discriminator_loss.detach()
        self.usage.update(quantized.codes, batch=self.config.train.batch)
        with torch.no_grad():
            # Pixels span [-1, 1], so an error of 2 is the full range.
            mean_squared = all_reduce_sum((reconstruction.float() - pixels).square().mean() / 4) / world()
            return {
                "loss": loss.detach(),
                **terms,
                **self.usage.figures(),
                "norm_ratio": norm_ratio(latents, quantized),
                "psnr": -10 * torch.log10(mean_squared.clamp_min(1e-12)),
            }

    def _freeze_encoder(self, frozen: bool) -> None:
        """Fix encoder and codebook where their averages are, or let them go where a training was taken back."""
        if frozen == self.frozen:
            return
        self.frozen, average = frozen, cast(Autoencoder, self.averages["autoencoder"].module)
        for module, averaged in (
            (self.autoencoder.encoder, average.encoder),
            (self.autoencoder.quantizer, average.quantizer),
        ):
            if frozen:  # in a resumed training they are equal already
                module.load_state_dict(averaged.state_dict())
            module.requires_grad_(not frozen).train(not frozen)

    def advice(self, terms: Mapping[str, float], images_seen: int) -> str | None:
        if images_seen < FIRST_ADVICE or not self.usage.mature():
            return None
        return diagnose(
            round(sum(self.codebook_sizes) / len(self.codebook_sizes)),
            perplexity=terms["perplexity"],
            used=terms["used"],
            ratio=terms["norm_ratio"] if self.autoencoder.quantizer.codes_in_latent_space else None,
            config=self.model.quantizer,
        )

    def compile(self) -> None:
        # The quantizer between them is float32 by design and waits for nothing: there is little to fuse in it.
        self.autoencoder.encoder.compile()
        self.autoencoder.decoder.compile()

    @torch.no_grad()
    def preview(self, batch: Images) -> dict[str, Tensor]:
        return {"original": batch.pixels, "reconstruction": self._reconstruct(batch.pixels)}

    @torch.no_grad()
    def score(self, batches: Iterable[Images]) -> Score:
        total, count = 0.0, 0
        for batch in batches:
            error, values = squared_error(self._reconstruct(batch.pixels), batch.pixels)
            total, count = total + error, count + values
        return Score("psnr_db", psnr_db(total, count), larger_is_better=True)

    def export(self) -> Autoencoder:
        return cast(Autoencoder, self.averages["autoencoder"].module)

    def _judges(self) -> nn.ModuleList:
        """A discriminator for every view that the adversary has of an image."""
        adversary, (channels, *size) = self.model.adversary, self.context.image
        if adversary.inputs == "pixels":
            return nn.ModuleList([PatchDiscriminator(channels, adversary.width)])
        assert self.perceptual is not None  # the configuration says so
        blank = torch.zeros(1, channels, *size, device=self.context.device)
        maps, _ = self.perceptual.compare(blank, blank)
        # The finest map shows what the pixels do, at the price of all the others together.
        return nn.ModuleList(MapDiscriminator(found.shape[1], adversary.width) for found in maps[1:])

    def _reconstruct(self, pixels: Tensor) -> Tensor:
        with self.context.autocast():
            return self.export().reconstruct(pixels)
