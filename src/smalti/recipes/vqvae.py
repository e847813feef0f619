"""VQ-VAE and VQGAN training: an autoencoder with a grid of discrete codes as its latents.

    L = w * distance(decoder(q), x) + quantizer loss          (quantizer loss: see quantize/vector.py)
        + p * perceptual distance                             (losses/perceptual.py; VQGAN)
        + adversarial term                                    (recipes/adversary.py; VQGAN)

w is 1 / variance of the data, as in the paper's reference implementation, so that reconstruction and commitment losses
are balanced; p and the adversarial weight are 0 for a VQ-VAE. At `freeze_encoder_at` images, encoder and codebook are
fixed at their EMA weights and only the decoder is trained further: the perceptual and adversarial losses then improve
the reconstructions without changing the codes.
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
from smalti.recipes.base import Score, TrainingContext, initial_weights
from smalti.recipes.images import ImageRecipe, Images
from smalti.runtime.distributed import all_reduce_sum, world

USAGE_HALF_LIFE = 20_000  # images; half-life of the code usage statistics
FIRST_ADVICE = 10_000  # images before which code usage is not conclusive


class VQVAERecipe(ImageRecipe):
    """Modules: `autoencoder`, and `discriminator` if there is an adversarial loss. State: `usage`.

    Logs: loss, reconstruction, quantizer, psnr (of the batch, in dB), perplexity, used and dead codes, norm_ratio;
    with a VQGAN's terms also perceptual, adversarial, discriminator.
    """

    kind = "vqvae"
    can_start_from = True
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
            discriminators = self._discriminators() if self.model.adversary.weight else None
        self.autoencoder = cast(Autoencoder, self.add_module("autoencoder", autoencoder))
        self.codebook_sizes = self.autoencoder.quantizer.codebook_sizes
        self.add_optimizer("autoencoder", self.autoencoder, self.model.optimizer)
        self.add_average("autoencoder")
        self.usage = self.add_state("usage", UsageMonitor(self.codebook_sizes, half_life=USAGE_HALF_LIFE))
        self.frozen = False
        self.adversary: Adversary | None = None
        if discriminators is not None:
            self.add_module("discriminator", discriminators)
            self.add_optimizer("discriminator", discriminators, self.model.adversary.optimizer)
            self.adversary = Adversary(self.model.adversary, discriminators)

    def start(self, batches: Callable[[], Iterable[Images]]) -> None:
        self.autoencoder.fit(lambda: (batch.pixels for batch in batches()), batch=self.config.train.batch)
        self.add_average("autoencoder")  # restart the EMA from the initialised weights

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        pixels = batch.pixels
        self._freeze_encoder(self.model.freeze_encoder_at is not None and images_seen >= self.model.freeze_encoder_at)
        with self.context.autocast():
            latents, reconstruction, quantized = self.autoencoder(pixels)
        distance = self.distance(reconstruction, pixels)
        loss = self.model.loss_weight * distance + quantized.loss
        terms = {"reconstruction": distance.detach(), "quantizer": quantized.loss.detach()}
        views: Sequence[Tensor] = [reconstruction]  # inputs of the discriminators
        real_views: Sequence[Tensor] = [pixels]
        if self.perceptual is not None and images_seen >= self.model.perceptual.start:
            every = self.model.perceptual.every
            with self.context.autocast():
                maps, real_maps = self.perceptual.compare(reconstruction[::every].float(), pixels[::every])
                perceptual_loss = self.perceptual.distance(maps, real_maps)
            loss = loss + self.model.perceptual.weight * perceptual_loss
            terms["perceptual"] = perceptual_loss.detach()
            if self.model.adversary.inputs == "features":
                views, real_views = maps[1:], real_maps[1:]
        adversary = self.adversary
        if adversary is not None and not adversary.playing(images_seen):
            adversary = None
        if adversary is not None:
            with self.context.autocast():
                adversarial_loss = adversary.decoder_loss(views, loss, self.autoencoder.last_weight, images_seen)
            loss = loss + adversarial_loss
            terms["adversarial"] = adversarial_loss.detach()
        self.descend("autoencoder", loss, images_seen)
        self.update_averages(images_seen)
        if adversary is not None:
            with self.context.autocast():
                discriminator_loss = adversary.discriminator_loss(real_views, views)
            self.descend("discriminator", discriminator_loss, images_seen)
            terms["discriminator"] = discriminator_loss.detach()
        self.usage.update(quantized.codes, batch=self.config.train.batch)
        with torch.no_grad():
            # Pixels span [-1, 1], so the peak of the PSNR is 2.
            mean_squared = all_reduce_sum((reconstruction.float() - pixels).square().mean() / 4) / world()
            return {
                "loss": loss.detach(),
                **terms,
                **self.usage.figures(),
                "norm_ratio": norm_ratio(latents, quantized),
                "psnr": -10 * torch.log10(mean_squared.clamp_min(1e-12)),
            }

    def _freeze_encoder(self, frozen: bool) -> None:
        """Freeze encoder and codebook at their EMA weights, or unfreeze them after a rollback to before the freeze."""
        if frozen == self.frozen:
            return
        self.frozen, average = frozen, cast(Autoencoder, self.averages["autoencoder"].module)
        for module, averaged in (
            (self.autoencoder.encoder, average.encoder),
            (self.autoencoder.quantizer, average.quantizer),
        ):
            if frozen:  # no effect in a resumed training, where they are already equal
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
        # The quantizer runs in float32 and has little to fuse.
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

    def _discriminators(self) -> nn.ModuleList:
        """One patch discriminator for each input: the pixels, or each feature map except the finest."""
        adversary, (channels, *size) = self.model.adversary, self.context.image
        if adversary.inputs == "pixels":
            return nn.ModuleList([PatchDiscriminator(channels, adversary.width)])
        assert self.perceptual is not None  # ensured by VQVAEConfig
        blank = torch.zeros(1, channels, *size, device=self.context.device)
        maps, _ = self.perceptual.compare(blank, blank)
        # The finest map adds little to the pixels and costs as much as all the others together.
        return nn.ModuleList(MapDiscriminator(part.shape[1], adversary.width) for part in maps[1:])

    def _reconstruct(self, pixels: Tensor) -> Tensor:
        with self.context.autocast():
            return self.export().reconstruct(pixels)
