"""Random views of images for contrastive training (SimCLR): crop, flip, colour jitter, blur.

    crop    a box of `crop`..1 of the area with an aspect ratio from 3:4 to 4:3, resized to the full size, bilinear
    flip    half of the views
    colour  x -> H S c (b x) + (1 - c) b mean:  brightness b, contrast c, saturation S, hue H (a rotation in YIQ), as
            one 3x3 matrix and one offset per view, for four views in five; one view in five is converted to grey
    blur    Gaussian, sigma from 0.1 to a 24th of the longer side, for a fraction `blur` of the views

Source: Chen et al. 2020, arXiv:2002.05709, appendix A.  A crop is never larger than the image, so it is only ever
enlarged and needs no antialiasing filter.  Layout: (B, C, H, W) float32 in [-1, 1]; a fourth channel (alpha) keeps its
values under colour jitter.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.runtime.rng import Draws

LUMA = (0.299, 0.587, 0.114)
# RGB -> YIQ (NTSC 1953); a rotation of the I-Q plane changes only the hue.
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
JITTERED, GREYED = 0.8, 0.2  # fractions of the views
HUE_TURN = 0.2  # of a full turn, at jitter 1
SMALLEST_SIGMA, LARGEST_SIGMA = 0.1, 1 / 24  # pixels; fraction of the longer side


def random_views(images: Tensor, draws: Draws, *, crop: float = 0.2, jitter: float = 0.5, blur: float = 0.0) -> Tensor:
    """One random view of each image.

    Args:
        images: (B, C, H, W) float32 in [-1, 1].
        draws: the random numbers of this step.
        crop: smallest fraction of the area that is kept.
        jitter: strength of the colour jitter: 0 is none, 0.5 is SimCLR's for CIFAR-10, 1 SimCLR's for ImageNet.
        blur: fraction of the views that are blurred.

    Returns:
        The same shape.
    """
    chance = draws.uniform(len(images), 13)
    views = _crop(images, chance[:, :5], crop)
    views = _recolour(views, chance[:, 5:11], jitter) if jitter > 0 else views
    return _blurred(views, chance[:, 11:], blur) if blur > 0 else views


def _crop(images: Tensor, chance: Tensor, smallest: float) -> Tensor:
    area = smallest + (1 - smallest) * chance[:, 0]
    ratio = torch.exp((2 * chance[:, 1] - 1) * math.log(4 / 3))
    width = (area * ratio).sqrt().clamp_max(1.0)
    height = (area / ratio).sqrt().clamp_max(1.0)
    mirror = torch.where(chance[:, 4] < 0.5, -1.0, 1.0)
    affine = images.new_zeros(len(images), 2, 3)
    affine[:, 0, 0] = width * mirror
    affine[:, 1, 1] = height
    affine[:, 0, 2] = (2 * chance[:, 2] - 1) * (1 - width)
    affine[:, 1, 2] = (2 * chance[:, 3] - 1) * (1 - height)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _recolour(images: Tensor, chance: Tensor, strength: float) -> Tensor:
    """Colour jitter; `chance` is (B, 6) uniform: brightness, contrast, saturation, hue, jitter or not, grey or not."""
    jittered = (chance[:, 4] < JITTERED).float()
    spread = 0.8 * strength * (2 * chance[:, :3] - 1) * jittered[:, None]
    brightness, contrast, saturation = (1 + spread).unbind(dim=1)
    pixels = (images[:, :3] + 1) / 2
    channels = pixels.shape[1]
    luma = pixels.new_tensor(LUMA) if channels == 3 else pixels.new_ones(1)
    mean = torch.einsum("bchw,c->b", pixels, luma) / pixels[0, 0].numel()
    matrix = torch.eye(channels, device=pixels.device).expand(len(pixels), -1, -1)
    if channels == 3:
        grey = luma.expand(3, 3)  # every row computes the luma
        angle = 2 * math.pi * HUE_TURN * strength * (2 * chance[:, 3] - 1) * jittered
        matrix = torch.lerp(grey, matrix, saturation[:, None, None])
        matrix = _hue(angle) @ matrix
        matrix = torch.where((chance[:, 5] < GREYED)[:, None, None], grey @ matrix, matrix)
    matrix = matrix * (brightness * contrast)[:, None, None]
    offset = (1 - contrast) * brightness * mean
    flat = pixels.flatten(2)
    changed = torch.baddbmm(offset[:, None, None].expand(-1, channels, 1), matrix, flat).clamp(0, 1)
    colour = changed.view_as(pixels) * 2 - 1
    return torch.cat([colour, images[:, 3:]], dim=1) if images.shape[1] > 3 else colour


def _blurred(images: Tensor, chance: Tensor, share: float) -> Tensor:
    """Blur images; `chance` is (B, 2) uniform: sigma, whether blurred."""
    height, width = images.shape[2:]
    largest = max(LARGEST_SIGMA * max(height, width), SMALLEST_SIGMA)
    sigma = SMALLEST_SIGMA + (largest - SMALLEST_SIGMA) * chance[:, 0]
    rows, columns = _gaussian(height, sigma), _gaussian(width, sigma)
    smooth = torch.einsum("byh,bchw,bxw->bcyx", rows, images, columns)
    return torch.where((chance[:, 1] < share)[:, None, None, None], smooth, images)


def _gaussian(side: int, sigma: Tensor) -> Tensor:
    """(B,) -> (B, side, side): Gaussian filter as a matrix; row i has the weights of output pixel i, which sum to 1."""
    position = torch.arange(side, device=sigma.device)
    weights = torch.exp(-((position[:, None] - position).square()) / (2 * sigma[:, None, None].square()))
    return weights / weights.sum(dim=2, keepdim=True)


def _hue(angle: Tensor) -> Tensor:
    """(B,) angles in radians -> (B, 3, 3) hue rotations of RGB."""
    to_yiq = angle.new_tensor(_TO_YIQ)
    turn = torch.zeros(len(angle), 3, 3, device=angle.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 2, 1] = angle.sin()
    turn[:, 1, 2] = -angle.sin()
    return torch.linalg.inv(to_yiq) @ turn @ to_yiq
