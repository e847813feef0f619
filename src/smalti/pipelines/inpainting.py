"""Inpainting and image variations, by resampling some of the codes of an image.

    pre-fill   The hole is filled smoothly from its surroundings: means of 2, 4, 8, ... known pixels, finer near the
               edge. The encoder's receptive field extends across the edge, and with a smooth filling most codes around
               the hole equal those of the complete image.
    masking    The positions of the code grid whose pixels the hole touches are masked, and those within `leak` of them.
    sampling   A prior samples the masked codes given the others. A masked prior is conditioned on all unmasked codes, a
               causal one only on those before. Of K samples of a causal prior one is chosen with probability
               w_k / sum w, w = prod p(c_t | c_<t) over the unmasked codes: sampling-importance-resampling (Rubin 1987).
    blending   Inside the hole, decoded + g B(original - decoded), where B is the Gaussian-weighted mean over known
               pixels and g = exp(-distance to the edge / 2). Outside, the original pixels are unchanged.

Layout: images (H, W, C) uint8, holes (H, W) bool; codes (B, P, h, w).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import ConfigError, command
from smalti.models.prior.image_prior import ImagePrior
from smalti.models.prior.likelihood import bits_of_codes
from smalti.models.prior.sampling import Sampling
from smalti.runtime.rng import seeded_generator

LEAK = 1  # masked positions around the hole
CANDIDATES = 8  # K, samples of a causal prior per version
FEATHER = 2.0  # pixels over which the correction at the edge decays
REACH = 7  # radius of B in pixels


def masked_positions(hole: np.ndarray, grid: tuple[int, int], stride: int, leak: int = LEAK) -> np.ndarray:
    """The positions of the code grid to resample: (H, W) bool pixels -> (h, w) bool.

    Args:
        hole: true where the image is to be filled.
        grid: (h, w).
        stride: pixels per position along each side.
        leak: number of positions around the hole to resample as well.

    Raises:
        ConfigError: no position or every position would be masked.
    """
    if not hole.any():
        raise ConfigError("the mask is empty: it has no pixel to fill (white is the hole)")
    if hole.all():
        raise ConfigError(
            f"the mask is all hole: nothing would be left to go by; {command('generate')} draws whole images"
        )
    padded = np.zeros((grid[0] * stride, grid[1] * stride), bool)
    padded[: hole.shape[0], : hole.shape[1]] = hole
    touched = padded.reshape(grid[0], stride, grid[1], stride).any(axis=(1, 3))
    positions = torch.from_numpy(touched)[None, None].float()
    dilated = F.max_pool2d(positions, 2 * leak + 1, stride=1, padding=leak)[0, 0].bool().numpy()
    if dilated.all():
        raise ConfigError(
            f"the hole touches all {grid[0]}x{grid[1]} places of the codes, so nothing would be left to go by; make it "
            "smaller, or use a tokenizer with a finer grid"
        )
    return dilated


def filled_from_surroundings(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill a hole smoothly from its surroundings, by the pull-push algorithm (Gortler et al. 1996, section 3.4).

    Args:
        image: (H, W, C) uint8.
        hole: (H, W) bool, not true everywhere.

    Returns:
        (H, W, C) uint8, independent of the original pixels in the hole.
    """
    values = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    filled = _pull_push(values, torch.from_numpy(~hole)[None, None].float())
    result = image.copy()
    result[hole] = filled[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()[hole]
    return result


def _pull_push(values: Tensor, known: Tensor) -> Tensor:
    """Fill unknown values, (1, C, H, W); values are known where `known`, (1, 1, H, W), is above 0."""
    if bool((known > 0).all()):
        return values
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    means = F.avg_pool2d(values * known, 2, ceil_mode=True) / share.clamp_min(1e-6)
    coarse = _pull_push(means, (share > 0).float())
    return torch.where(known > 0, values, F.interpolate(coarse, size=values.shape[2:], mode="bilinear"))


@torch.no_grad()
def resample_codes(
    generator: ImagePrior,
    codes: Tensor,
    hidden: Tensor,
    *,
    seed: int,
    how: Sampling,
    labels: Tensor | None = None,
    texts: Sequence[str] | None = None,
) -> Tensor:
    """Sample masked codes anew, in several versions.

    Args:
        codes: (N, P, h, w), equal in all versions where unmasked.
        hidden: (N, h, w) bool, true for masked positions, the same number in each version.
        seed: version i depends only on the seed and i, not on N.
        how: sampling settings.
        labels: (N,) class numbers, or None.
        texts: N prompts, or None.

    Returns:
        (N, P, h, w) int64.
    """
    count = len(codes)
    candidates = CANDIDATES if generator.prior.causal else 1
    chosen = []
    for version in range(count):
        repeated, masked = (torch.stack([part[version]] * candidates) for part in (codes, hidden))
        label = None if labels is None else labels[version].expand(candidates)
        text = None if texts is None else [texts[version]] * candidates
        numbers = range(version * candidates, (version + 1) * candidates)
        samples = generator.draw(numbers, seed, how, labels=label, texts=text, codes=repeated, hidden=masked)
        if candidates == 1:
            chosen.append(samples[0])
            continue
        bits = bits_of_codes(generator, samples, labels=label, texts=text).sum(dim=1)
        log_weights = -bits.masked_fill(masked, 0.0).sum(dim=(1, 2))
        probabilities = torch.softmax(log_weights.cpu().double() * math.log(2), dim=0)
        chance = torch.rand((), generator=seeded_generator(seed, 10, version), dtype=torch.float64)
        index = torch.searchsorted(probabilities.cumsum(0), chance).clamp(max=candidates - 1)
        chosen.append(samples[int(index)])
    return torch.stack(chosen)


def check_strength(strength: float) -> None:
    """Raise ConfigError if the fraction of positions to resample is not in (0, 1]."""
    if not 0 < strength <= 1:  # true for NaN too
        raise ConfigError(f"strength is {strength:g}, but must be above 0, and at most 1 for an image of its own")


def blend(original: np.ndarray, decoded: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Insert decoded pixels into the hole of an image, without a visible seam.

    Args:
        original: (H, W, C) uint8.
        decoded: (N, H, W, C) uint8, N versions of the image.
        hole: (H, W) bool.

    Returns:
        (N, H, W, C) uint8, equal to the original outside of the hole.
    """
    known = torch.from_numpy(~hole)[None, None].float()
    offsets = torch.arange(-REACH, REACH + 1, dtype=torch.float32)
    line = torch.exp(-offsets.square() / (2 * FEATHER**2))
    kernel = (line[:, None] * line)[None, None]
    fade = torch.exp(-_depth(hole) / FEATHER)
    weight = F.conv2d(known, kernel, padding=REACH).clamp_min(1e-6)
    filled = np.broadcast_to(original, decoded.shape).copy()
    for version, picture in zip(filled, decoded, strict=True):
        difference = torch.from_numpy(original.astype(np.float32) - picture).permute(2, 0, 1)[:, None]
        near = F.conv2d(difference * known, kernel, padding=REACH) / weight
        corrected = picture + (fade * near[:, 0]).permute(1, 2, 0).numpy()
        version[hole] = corrected.round().clip(0, 255).astype(np.uint8)[hole]
    return filled


def _depth(hole: np.ndarray) -> Tensor:
    """Distance of each pixel in the hole to its edge in pixels, up to 4 * REACH: (H, W) float32."""
    inside, depth = torch.from_numpy(hole)[None, None].float(), torch.zeros(hole.shape)
    for _ in range(4 * REACH):
        inside = -F.max_pool2d(F.pad(-inside, (1, 1, 1, 1), value=-1.0), 3, stride=1)  # erosion by one pixel
        depth += inside[0, 0]
    return depth
