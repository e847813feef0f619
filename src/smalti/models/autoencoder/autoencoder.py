"""Encoder, quantizer, decoder: an image becomes a small grid of codes and comes back.

The architectures are in classic.py, vqgan.py and klt.py; all take images of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.quantizer import ProductConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.data.spec import ImageSpec
from smalti.models.autoencoder.classic import plain_decoder, plain_encoder, residual_decoder, residual_encoder
from smalti.models.autoencoder.klt import TransformDecoder, TransformEncoder, fit_transform
from smalti.models.autoencoder.vqgan import ModernDecoder, ModernEncoder
from smalti.quantize import Quantized, build_quantizer

# Encoder and decoder by architecture, both called with (config, channels, dimension). The keys are words of the file
# format: never renamed.
ARCHITECTURES: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "residual": (residual_encoder, residual_decoder),
    "plain": (plain_encoder, plain_decoder),
    "modern": (ModernEncoder, ModernDecoder),
    "transform": (TransformEncoder, TransformDecoder),
}


class Autoencoder(nn.Module):
    """Images to codes and back, at any image size.

    Args:
        config: the networks and the quantizer.
        channels: of the images, 1, 3 or 4.
    """

    def __init__(self, config: VQVAEConfig, channels: int) -> None:
        super().__init__()
        build_encoder, build_decoder = ARCHITECTURES[config.autoencoder.architecture]
        dimension = config.quantizer.dimension
        self.stride = config.autoencoder.stride
        self.groups = config.quantizer.groups if isinstance(config.quantizer, ProductConfig) else 1
        self.encoder = build_encoder(config.autoencoder, channels, dimension)
        self.quantizer = build_quantizer(config.quantizer)
        self.decoder = build_decoder(config.autoencoder, channels, dimension)

    def encode(self, images: Tensor) -> Quantized:
        """(B, C, H, W) in [-1, 1] -> codes on a grid of ceil(H/stride) x ceil(W/stride).

        Sides that are no multiple of the stride are extended by repeating the last row and column.

        Raises:
            NonFiniteError: in eval mode, latents that are NaN or infinite.
        """
        latents = self.latents(images)
        if not self.training:
            self.quantizer.check_finite(latents)
        return self.quantizer(latents)

    def latents(self, images: Tensor) -> Tensor:
        """The latents that `encode` quantizes: (B, D, h, w)."""
        return self.encoder(self._padded(images))

    def decode(self, codes: Tensor) -> Tensor:
        """(B, P, h, w) codes -> (B, C, h * stride, w * stride) images in [-1, 1], clipped to that range.

        Raises:
            CodeRangeError: a code is outside its plane's alphabet.
        """
        self.quantizer.check_codes(codes)
        return self.images_of(codes)

    def codes_of(self, images: Tensor) -> Tensor:
        """The codes of `encode`, without reading values: what `torch.export` records."""
        return self.quantizer.codes_of(self.latents(images))

    def images_of(self, codes: Tensor) -> Tensor:
        """`decode` without reading values: what `torch.export` records."""
        return self.decoder(self.quantizer.values_of(codes)).float().clamp(-1, 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, through the codes."""
        height, width = images.shape[-2:]
        return self.decode(self.encode(images).codes)[..., :height, :width]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Quantized]:
        """Latents; reconstructions of the images' shape, not clipped, with gradients; and the quantizer's result."""
        height, width = images.shape[-2:]
        latents = self.latents(images)
        quantized = self.quantizer(latents)
        return latents, self.decoder(quantized.values)[..., :height, :width], quantized

    def squared_errors(self, values: Tensor, images: Tensor) -> Tensor:
        """Squared errors of the images that values of codes decode to: (B, D, h, w), (B, C, H, W) -> (B,) float32."""
        height, width = images.shape[-2:]
        result = self.decoder(values)[..., :height, :width].float().clamp(-1, 1)
        return (result - images).square().flatten(1).sum(dim=1)

    @property
    def last_weight(self) -> Tensor:
        """The weight of the decoder's last convolution."""
        return [parameter for parameter in self.decoder.parameters() if parameter.ndim == 4][-1]

    @torch.no_grad()
    def fit(self, batches: Callable[[], Iterable[Tensor]], *, batch: int) -> None:
        """Fit the linear transform and its codes to some images before training.

        Architectures without such a transform are left as they are.

        Args:
            batches: gives the same (B, C, H, W) images at every call.
            batch: images in a training step, over all ranks.

        Raises:
            ConfigError: too few images for the number of codes.
        """
        if not isinstance(self.encoder, TransformEncoder):
            return
        assert isinstance(self.decoder, TransformDecoder)
        latents = fit_transform(self.encoder, self.decoder, lambda: map(self._padded, batches()), groups=self.groups)
        self.quantizer.fit(latents, latents_per_step=batch * latents.shape[2] * latents.shape[3])

    def _padded(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        down, right = -height % self.stride, -width % self.stride
        return F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images


def build_autoencoder(config: VQVAEConfig, spec: ImageSpec, classes: int, tokenizer: nn.Module | None) -> Autoencoder:
    """The network of the kind `vqvae`, without its weights."""
    return Autoencoder(config, spec.channels)
