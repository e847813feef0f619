"""Train a VQ-VAE: reconstruct images through a grid of codes.

    L = w * distance(decoder(q), x) + quantizer loss          (quantizer loss: see quantize/vector.py)

w is one over the variance of the data, as in the reference implementation of the paper, so that reconstruction and
commitment are in balance.  Source: van den Oord et al. 2017, arXiv:1711.00937, equation 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from smalti.config import RunConfig, VQVAEConfig
from smalti.evaluate.distortion import psnr_db, squared_error
from smalti.layers.optimizers import descend
from smalti.layers.ranks import sum_over_ranks, world
from smalti.losses.reconstruction import RECONSTRUCTION_LOSSES
from smalti.models.autoencoder import Autoencoder
from smalti.quantize import count_codes, perplexity
from smalti.recipes.base import Images, Recipe, Score, Setting, initial_weights


class VQVAERecipe(Recipe):
    """Modules: `autoencoder`. Logs: loss, reconstruction, quantizer, perplexity, psnr (of the batch, in dB)."""

    kind = "vqvae"
    headline = ("loss", "psnr", "perplexity")

    def __init__(self, config: RunConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        self.model = cast(VQVAEConfig, config.model)
        self.distance = RECONSTRUCTION_LOSSES[self.model.loss]
        with initial_weights(config.train.seed):
            autoencoder = Autoencoder(self.model, setting.image[0])
        self.autoencoder = cast(Autoencoder, self.add_module("autoencoder", autoencoder))
        self.add_optimizer("autoencoder", self.autoencoder, self.model.optimizer)
        self.add_average("autoencoder")

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        with self.setting.autocast():
            reconstruction, quantized = self.autoencoder(batch.pixels)
        distance = self.distance(reconstruction, batch.pixels)
        loss = self.model.loss_weight * distance + quantized.loss
        descend(self.optimizers["autoencoder"], loss)
        self.update_averages(images_seen)
        with torch.no_grad():
            # Pixels span [-1, 1], so an error of 2 is the full range.
            mean_squared = sum_over_ranks((reconstruction.float() - batch.pixels).square().mean() / 4) / world()
            counts = count_codes(quantized.codes, self.model.quantizer.codes)
            used = perplexity(sum_over_ranks(counts))
        return {
            "loss": loss.detach(),
            "reconstruction": distance.detach(),
            "quantizer": quantized.loss.detach(),
            "perplexity": used,
            "psnr": -10 * torch.log10(mean_squared.clamp_min(1e-12)),
        }

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

    def _reconstruct(self, pixels: Tensor) -> Tensor:
        with self.setting.autocast():
            return self.export().reconstruct(pixels)
