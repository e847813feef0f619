"""Training of a restorer that predicts codes: those of the clean image x, from the degraded one y.

    L = c CE(logits(y), codes(x)) + f |z(y) - values(x)|^2           z: latents of y; values: of the codes of x
        + from `fidelity_start` on: w * distance(x^, x) + perceptual and adversarial terms

x^ is decoded from the predicted codes at fidelity 1. The cross-entropy is the mean over places and planes, in nats, the
square the mean over places and channels; published are c = 0.5 and f = 1. The VQ-VAE, which also gives the codes of
x, is not trained; the recipe's optimizer knows nothing of it.
Source: Zhou et al. 2022, arXiv:2206.11253, sections 3.2 and 3.3.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.config.code_restorer import CodeRestorerConfig
from smalti.config.run import RunConfig
from smalti.errors import ConfigError, arg
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.restorer.code_restorer import CodePredictor, CodeRestorer, Control, Prediction
from smalti.recipes.base import TrainingContext, initial_weights
from smalti.recipes.images import Images
from smalti.recipes.restoration import RestorationRecipe, psnr_and_gain


class RestoreCodesRecipe(RestorationRecipe):
    """Modules: `predictor`, and `discriminator` if there is an adversarial loss.

    Logs: loss, cross_entropy (nats per code), accuracy (share of the codes that are right), features; from
    `fidelity_start` on, at fidelity 1, psnr and gain as `restore`, and its other terms.
    """

    kind = "restore-codes"
    headline = ("loss", "accuracy")

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(CodeRestorerConfig, config.model)
        self.autoencoder = self._checked_tokenizer()
        with initial_weights(config.train.seed):
            self.whole = CodeRestorer(self.model, self.autoencoder, context.image[0])
        self.predictor = cast(CodePredictor, self.add_module("predictor", self.whole.predictor))
        self.add_optimizer("predictor", self.predictor, self.model.optimizer)
        self.add_average("predictor")
        self.losses = self.add_picture_losses()

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        degraded, clean = self.degraded(batch, images_seen)
        with self.context.autocast():
            with torch.no_grad():
                codes = self.autoencoder.codes_of(clean)
            prediction = self.whole.predict(degraded.images)
        loss, terms = self._code_loss(prediction, codes)
        restored = None
        if images_seen >= self.model.fidelity_start:
            with self.context.autocast():
                restored = self.whole.decode(prediction, 1.0)
            image_loss, more = self.losses.add(
                self.model.loss_weight * self.distance(restored, clean),
                restored, clean, self._last_weight, images_seen,
            )  # fmt: skip
            loss, terms = loss + image_loss, terms | more
        self.descend("predictor", loss, images_seen)
        self.update_averages(images_seen)
        if restored is not None:
            terms |= self.train_discriminator(self.losses, restored, clean, images_seen)
            terms |= psnr_and_gain(restored, degraded, clean)
        return {"loss": loss.detach(), **terms}

    def _code_loss(self, prediction: Prediction, codes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        planes = zip(prediction.logits, codes.unbind(dim=1), strict=True)
        losses = [F.cross_entropy(logits.float(), wanted) for logits, wanted in planes]
        cross_entropy = torch.stack(losses).mean()
        quantizer = self.autoencoder.quantizer
        features = F.mse_loss(quantizer.bounded(prediction.latents), quantizer.values_of(codes))
        loss = self.model.code_weight * cross_entropy + self.model.feature_weight * features
        accuracy = (prediction.codes == codes).float().mean()
        return loss, {"cross_entropy": cross_entropy.detach(), "features": features.detach(), "accuracy": accuracy}

    @property
    def _last_weight(self) -> Tensor:
        """Of the last fidelity connection: the last layer before the picture that is trained."""
        return [cast(Control, control) for control in self.predictor.controls.values()][-1].change.weight

    def _checked_tokenizer(self) -> Autoencoder:
        tokenizer = self.context.tokenizer
        if tokenizer is None:
            raise ConfigError(
                f"the recipe {self.kind} predicts the codes of a trained VQ-VAE; give {arg('of', 'RUN')}, its run"
            )
        network, (channels, height, width) = cast(Autoencoder, tokenizer.module), self.context.image
        theirs = tokenizer.card.spec.shape[0]
        if theirs != channels:
            raise ConfigError(
                f"the tokenizer is of images with {theirs} channels, the images have {channels}; "
                f"give {arg('channels', theirs)}, or a tokenizer of such images"
            )
        if height % network.stride or width % network.stride:
            raise ConfigError(
                f"the images have {height}x{width} pixels, but sides must be multiples of {network.stride}, the pixels "
                f"per code of the tokenizer; give {arg('data.crop')} or {arg('size')} such a number"
            )
        return network

    def export(self) -> CodeRestorer:
        with torch.device("meta"):
            whole = CodeRestorer(self.model, self.autoencoder, self.context.image[0])
        whole.predictor = cast(CodePredictor, self.averages["predictor"].module)
        return whole.eval()
