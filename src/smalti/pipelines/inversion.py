"""The latent whose picture is most like a given one.

    z* = argmin_z  w |G(z) - x|^2 / n + d(G(z), x) + r (|z|^2 / D - 1)^2

d is the distance of feature maps (losses/perceptual.py) under smalti-vit, n the values of an image, D those of z. The
last term keeps z where latents of training lie. Many latents are drawn and the few whose pictures are nearest, seen at
a quarter of the resolution, are improved by Adam at a rate that falls on a cosine; of all that these passed through,
the latent with the smallest w |G(z) - x|^2 / n + d(G(z), x) is kept.
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
CHUNK = 64  # candidates drawn at a time


def invert(generator: Generator, image: Tensor, label: int | None, *, steps: int, seed: int = 0) -> Tensor:
    """The latent of one image.

    Args:
        generator: in eval mode.
        image: (C, H, W) float32 in [-1, 1], of the generator's shape.
        label: class number, for a generator with labels.
        steps: of the optimizer.

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


def _losses(found: Tensor, wanted: Tensor, features: PerceptualLoss) -> Tensor:
    """(B,): of each image alone."""
    pixels = (found - wanted).square().flatten(1).mean(dim=1)
    layers = zip(*features.compare(found.clamp(-1, 1), wanted), strict=True)
    distances = torch.stack([map_distance(a, b).view(len(found), -1).mean(dim=1) for a, b in layers])
    return PIXEL_WEIGHT * pixels + distances.mean(dim=0)


@torch.no_grad()
def _nearest(generator: Generator, image: Tensor, label: int | None, seed: int) -> Tensor:
    """(STARTS, D) latents whose pictures come near the image, seen coarsely."""
    draws = seeded_generator(seed, 4)
    z = torch.randn(CANDIDATES, generator.latent, generator=draws).to(image.device)
    coarse = F.avg_pool2d(image[None], 4)
    found = [F.avg_pool2d(generator(part, _labels(label, part)), 4) for part in z.split(CHUNK)]
    distances = (torch.cat(found) - coarse).square().flatten(1).mean(dim=1)
    return z[distances.topk(STARTS, largest=False).indices].clone()


def _labels(label: int | None, z: Tensor) -> Tensor | None:
    return None if label is None else torch.full((len(z),), label, device=z.device)
