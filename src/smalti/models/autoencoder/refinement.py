"""Refinement of codes at encoding time, so that they decode to a smaller error than the encoder's own.

    g  = grad_q |x - D(q)|^2                       at the values q of the codes k so far
    k' = encode(q - a g)

An encoder maps each image in one pass and each latent to its nearest code; neither takes into account what the decoder
makes of all codes together. Here every round proposes the codes nearest to where the decoder's error falls, changes a
random part of them in each image, and keeps the change where the image's error is smaller. No image gets worse. a gives
the step the size that quantization errors have, |z - q|. The part is large at first and small at the end, when the
remaining changes conflict with each other.

Analysis by synthesis, as in speech coding (Schroeder and Atal 1985); iterative inference as in Campos et al. 2019,
arXiv:1904.09325, here over discrete codes.  Layout: images (B, C, H, W), codes (B, P, h, w).
"""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.models.autoencoder.autoencoder import Autoencoder

STEP = 1.0  # a, in quantization errors
FIRST_SHARE, LAST_SHARE = 0.8, 0.05  # of the proposed changes that are tried at once


@torch.no_grad()
def refine(autoencoder: Autoencoder, images: Tensor, *, rounds: int) -> Tensor:
    """Refine the codes of images for some rounds; with none they are the encoder's.

    Args:
        autoencoder: in eval mode.
        images: (B, C, H, W) in [-1, 1].
        rounds: each costs about as much as decoding three times; 16 bring most of what there is to gain.

    Returns:
        (B, P, h, w) int64, whose squared error is nowhere larger than that of `autoencoder.encode(images).codes`.
    """
    generator = torch.Generator().manual_seed(0)  # of which changes are tried
    quantizer = autoencoder.quantizer
    latents = autoencoder.latents(images).float()
    codes = quantizer.encode(latents)
    if rounds == 0:
        return codes
    values = quantizer.decode(codes)
    unit = (latents - values).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    error, gradient = _error_and_gradient(autoencoder, values, images)
    for number in range(rounds):
        size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-20)
        proposed = quantizer.encode(values - STEP * unit * gradient / size)
        share = max(LAST_SHARE, FIRST_SHARE * (1 - number / rounds))
        # The same positions in all images, so that the result for one does not depend on the rest of the batch.
        tried = torch.rand(codes.shape[1:], generator=generator).to(codes.device) < share
        proposed = torch.where(tried, proposed, codes)
        proposed_values = quantizer.decode(proposed)
        # The gradient there is what the next round starts from: one pass through the decoder and back serves both.
        proposed_error, proposed_gradient = _error_and_gradient(autoencoder, proposed_values, images)
        better = (proposed_error < error).view(-1, 1, 1, 1)
        codes, values = torch.where(better, proposed, codes), torch.where(better, proposed_values, values)
        gradient = torch.where(better, proposed_gradient, gradient)
        error = torch.minimum(error, proposed_error)
    return codes


def _error_and_gradient(autoencoder: Autoencoder, values: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) squared errors of the images that values decode to, and their gradients, both float32."""
    with torch.enable_grad():
        values = values.detach().requires_grad_()
        error = autoencoder.squared_errors(values, images)
        (gradient,) = torch.autograd.grad(error.sum(), values)
    return error.detach(), gradient.float()
