"""GAN inversion: the latent whose image is most similar to a given image.

    z* = argmin_z  w |G(z) - x|^2 / n + d(G(z), x) + r (|z|^2 / D - 1)^2

d is the perceptual distance (losses/perceptual.py) under smalti-vit, n the number of pixel values, D the dimension of
z. The last term keeps the norm of z typical of N(0, 1). Of many random latents, those whose images are nearest at a
quarter of the resolution are optimised by Adam with a cosine learning-rate schedule. The result is the latent with the
smallest w |G(z) - x|^2 / n + d(G(z), x) of all steps.
Source: Karras et al. 2020, arXiv:1912.04958, section 5, for latents of one vector.  Layout: (B, C, H, W) in [-1, 1].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.features.extractor import extractor
from smalti.losses.perceptual import PerceptualLoss, map_distance
from smalti.models.gan.base import Generator
from smalti.runtime.rng import seeded_generator

CANDIDATES, STARTS = 1024, 4
RATE = 0.1
PIXEL_WEIGHT, RADIUS_WEIGHT = 4.0, 0.1
CHUNK = 64  # candidates per batch


def invert(generator: Generator, image: Tensor, label: int | None, *, steps: int, seed: int = 0) -> Tensor:
    """Invert one image.

    Args:
        generator: in eval mode.
        image: (C, H, W) float32 in [-1, 1], of the generator's shape.
        label: class number, for a conditional generator.
        steps: optimizer steps.
        seed: of the initial candidates.

    Returns:
        (D,) float32.
    """
    features = extractor("smalti-vit", device=image.device).perceptual_loss()
    z = _nearest(generator, image, label, seed).requires_grad_(True)
    optimizer = torch.optim.Adam([z], RATE, betas=(0.9, 0.99))
    targets = image.expand(len(z), -1, -1, -1)
    best, lowest = z.detach().clone(), torch.full((len(z),), math.inf, device=z.device)
    for step in range(steps + 1):
        with torch.enable_grad():
            losses = _losses(generator(z, _labels(label, z)), targets, features)
            whole = (losses + RADIUS_WEIGHT * (z.square().mean(dim=1) - 1).square()).sum()
        now = losses.detach()
        better = now < lowest
        best, lowest = torch.where(better[:, None], z.detach(), best), torch.where(better, now, lowest)
        if step < steps:
            optimizer.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
            (z.grad,) = torch.autograd.grad(whole, z)
            optimizer.step()
    return best[int(lowest.argmin())]


def _losses(images: Tensor, targets: Tensor, features: PerceptualLoss) -> Tensor:
    """(B,) pixel and perceptual loss of each image."""
    pixels = (images - targets).square().flatten(1).mean(dim=1)
    layers = zip(*features.compare(images.clamp(-1, 1), targets), strict=True)
    distances = torch.stack([map_distance(a, b).view(len(images), -1).mean(dim=1) for a, b in layers])
    return PIXEL_WEIGHT * pixels + distances.mean(dim=0)


@torch.no_grad()
def _nearest(generator: Generator, image: Tensor, label: int | None, seed: int) -> Tensor:
    """(STARTS, D) random latents whose images are nearest to the given one at low resolution."""
    draws = seeded_generator(seed, 4)
    z = torch.randn(CANDIDATES, generator.latent, generator=draws).to(image.device)
    coarse = F.avg_pool2d(image[None], 4)
    found = [F.avg_pool2d(generator(part, _labels(label, part)), 4) for part in torch.split(z, CHUNK)]
    distances = (torch.cat(found) - coarse).square().flatten(1).mean(dim=1)
    return z[distances.topk(STARTS, largest=False).indices].clone()


def _labels(label: int | None, z: Tensor) -> Tensor | None:
    return None if label is None else torch.full((len(z),), label, device=z.device)
