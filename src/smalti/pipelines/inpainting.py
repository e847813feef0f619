"""Holes filled and images varied, by drawing some of their codes anew.

    emptied   a hole is first filled by what is around it: means of 2, 4, 8, ... known pixels, the finer the nearer the
              edge. What lies in it reaches some way through the encoder, and from an image that goes on smoothly most
              codes around the hole are those of the whole image
    hidden    the places of the grid whose pixels the hole touches, and those within `leak` places of them
    drawn     hidden codes from a prior that knows the rest.  A masked prior sees all that is not hidden.  A causal one
              sees what comes before alone; of K candidates one is taken with the probability  w_k / sum w,
              w = prod p(c_t | c_<t) over the known codes:  sampling-importance-resampling (Rubin 1987)
    blended   inside the hole  decoded + g B(original - decoded), B the mean over known pixels with Gaussian weights,
              g = exp(-distance to the hole's edge / 2); outside the original, to the last bit

Layout: images (H, W, C) uint8, holes (H, W) bool; codes (B, P, h, w).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import ConfigError
from smalti.models.prior.image_prior import ImagePrior
from smalti.models.prior.likelihood import bits_of_codes
from smalti.models.prior.sampling import Sampling
from smalti.runtime.rng import seeded_generator

LEAK = 1  # places beside the hole
CANDIDATES = 8  # of a causal prior
FEATHER = 2.0  # pixels over which the difference at the edge fades
REACH = 7  # pixels to each side that the mean at the edge is taken over


def masked_positions(hole: np.ndarray, grid: tuple[int, int], stride: int, leak: int = LEAK) -> np.ndarray:
    """(H, W) bool pixels -> (h, w) bool places.

    Raises:
        ConfigError: nothing is hidden, or nothing would be left to go by.
    """
    if not hole.any():
        raise ConfigError("the mask is empty: it has no pixel to fill (white is the hole)")
    if hole.all():
        raise ConfigError("the mask is all hole: nothing would be left to go by; smalti generate draws whole images")
    padded = np.zeros((grid[0] * stride, grid[1] * stride), bool)
    padded[: hole.shape[0], : hole.shape[1]] = hole
    touched = padded.reshape(grid[0], stride, grid[1], stride).any(axis=(1, 3))
    places = torch.from_numpy(touched)[None, None].float()
    spread = F.max_pool2d(places, 2 * leak + 1, stride=1, padding=leak)[0, 0].bool().numpy()
    if spread.all():
        raise ConfigError(
            f"the hole touches all {grid[0]}x{grid[1]} places of the codes, so nothing would be left to go by; make it "
            "smaller, or use a tokenizer with a finer grid"
        )
    return spread


def filled_from_surroundings(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """An image with its hole filled smoothly from what is around it: pull and push (Gortler et al. 1996, section 3.4).

    Args:
        image: (H, W, C) uint8.
        hole: (H, W) bool, not all of it.

    Returns:
        (H, W, C) uint8, which does not depend on what lay in the hole.
    """
    values = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    filled = _pulled_and_pushed(values, torch.from_numpy(~hole)[None, None].float())
    found = image.copy()
    found[hole] = filled[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()[hole]
    return found


def _pulled_and_pushed(values: Tensor, known: Tensor) -> Tensor:
    """(1, C, H, W), of which (1, 1, H, W) are known where it is above 0."""
    if bool((known > 0).all()):
        return values
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    means = F.avg_pool2d(values * known, 2, ceil_mode=True) / share.clamp_min(1e-6)
    coarse = _pulled_and_pushed(means, (share > 0).float())
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
    """Draw hidden codes anew, for several versions.

    Args:
        codes: (N, P, h, w), the known ones the same in all.
        hidden: (N, h, w) bool, as many in each.
        seed: version i of a seed is the same however many there are.
        labels, texts: what they are of, (N,).

    Returns:
        (N, P, h, w).
    """
    count = len(codes)
    candidates = CANDIDATES if generator.prior.causal else 1
    kept = []
    for version in range(count):
        some = [torch.stack([part[version]] * candidates) for part in (codes, hidden)]
        label = None if labels is None else labels[version].expand(candidates)
        text = None if texts is None else [texts[version]] * candidates
        numbers = range(version * candidates, (version + 1) * candidates)
        drawn = generator.draw(numbers, seed, how, labels=label, texts=text, codes=some[0], hidden=some[1])
        if candidates == 1:
            kept.append(drawn[0])
            continue
        known = ~some[1]
        weights = (
            -bits_of_codes(generator, drawn, labels=label, texts=text)
            .sum(dim=1)
            .masked_fill(~known, 0.0)
            .sum(dim=(1, 2))
        )
        shares = torch.softmax(weights.cpu().double() * math.log(2), dim=0)
        chance = torch.rand((), generator=seeded_generator(seed, 10, version), dtype=torch.float64)
        kept.append(drawn[int(torch.searchsorted(shares.cumsum(0), chance).clamp(max=candidates - 1))])
    return torch.stack(kept)


def check_strength(strength: float) -> None:
    """Raise ConfigError for what is no share of an image's places."""
    if not 0 < strength <= 1:  # true for NaN too
        raise ConfigError(f"strength is {strength:g}, but must be above 0, and at most 1 for an image of its own")


def blend(original: np.ndarray, decoded: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Decoded pixels in the hole of an image, without a seam.

    Args:
        original: (H, W, C) uint8.
        decoded: (N, H, W, C) uint8, versions of it.
        hole: (H, W) bool.

    Returns:
        (N, H, W, C) uint8, outside the hole the original.
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
        mended = picture + (fade * near[:, 0]).permute(1, 2, 0).numpy()
        version[hole] = mended.round().clip(0, 255).astype(np.uint8)[hole]
    return filled


def _depth(hole: np.ndarray) -> Tensor:
    """(H, W) float32: how many pixels inside the hole lie between a pixel and the edge."""
    inside, depth = torch.from_numpy(hole)[None, None].float(), torch.zeros(hole.shape)
    for _ in range(4 * REACH):
        inside = -F.max_pool2d(F.pad(-inside, (1, 1, 1, 1), value=-1.0), 3, stride=1)  # what lies one pixel deeper
        depth += inside[0, 0]
    return depth
