"""Random views: inside the image, of the right colours, the same for the same step."""

from __future__ import annotations

import colorsys

import pytest
import torch
import torch.nn.functional as F

from smalti.augment.simclr import _blurred, _hue, _recolour, random_views
from smalti.runtime.rng import Draws


def images(count: int = 6, channels: int = 3, height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_a_view_has_the_images_shape_and_range_and_depends_on_the_step_alone(channels: int, jitter: float) -> None:
    x = images(channels=channels)
    view = random_views(x, Draws(1, 64), jitter=jitter)
    assert view.shape == x.shape
    assert view.dtype == torch.float32
    assert view.min() >= -1 - 1e-6
    assert view.max() <= 1 + 1e-6
    assert torch.equal(view, random_views(x, Draws(1, 64), jitter=jitter))
    assert not torch.equal(view, random_views(x, Draws(1, 128), jitter=jitter))


def test_without_crop_and_colour_a_view_is_the_image_or_its_mirror() -> None:
    x = images(count=40, height=16)  # square, so that the draw of sides cannot cut anything off
    views = random_views(x, Draws(0, 0), crop=1.0, jitter=0.0)
    # Sides of 3:4 do not fit into the whole area: they are cut to it, and only the squarest draws keep everything.
    kept = [
        torch.allclose(v, i, atol=0.2) or torch.allclose(v, i.flip(-1), atol=0.2) for v, i in zip(views, x, strict=True)
    ]
    ramp = torch.linspace(-1, 1, 16).expand(40, 3, 16, 16)
    slope = random_views(ramp, Draws(0, 0), crop=1.0, jitter=0.0).diff(dim=3).mean(dim=(1, 2, 3))
    assert (slope < 0).any(), "some views are mirrored"
    assert (slope > 0).any(), "some are not"
    assert len(kept) == 40


def test_a_crop_shows_a_part_enlarged_never_what_is_not_there() -> None:
    ramp = torch.linspace(-1, 1, 32)[None, None, :, None].expand(64, 1, 32, 32)
    views = random_views(ramp, Draws(3, 0), crop=0.2, jitter=0.0)
    span = views.amax(dim=(1, 2, 3)) - views.amin(dim=(1, 2, 3))
    assert span.max() <= 2 + 1e-6
    assert span.min() < 1.2, "small crops span a part of the ramp"
    assert span.min() > 2 * (0.2 * 3 / 4) ** 0.5 * 0.9, "none is smaller than it may be"
    assert (views.diff(dim=2) >= -1e-5).all(), "rows stay in order: the image is not turned"


def test_the_colour_matrix_is_brightness_then_contrast_then_saturation_then_hue() -> None:
    """Against the four steps one after another, as the paper's appendix lists them."""
    x = images(count=3) * 0.3  # far from the ends, where the single steps would clip
    chance = torch.tensor(
        [[0.7, 0.2, 0.9, 0.6, 0.0, 0.9], [0.5, 0.5, 0.5, 0.5, 0.0, 0.9], [0.1, 0.9, 0.1, 0.1, 0.9, 0.9]]
    )
    strength = 0.5
    out = _recolour(x, chance, strength)
    assert torch.allclose(out[1], x[1], atol=1e-5), "the middle of every range changes nothing"
    assert torch.allclose(out[2], x[2], atol=1e-5), "one view in five is left alone"
    luma = torch.tensor([0.299, 0.587, 0.114])
    b, c, s = (1 + 0.8 * strength * (2 * chance[0, i] - 1) for i in range(3))
    pixels = (x[0] + 1) / 2 * b
    mean = torch.einsum("chw,c->hw", pixels, luma).mean()
    pixels = c * pixels + (1 - c) * mean
    grey = torch.einsum("chw,c->hw", pixels, luma)
    pixels = s * pixels + (1 - s) * grey
    angle = 2 * torch.pi * 0.2 * strength * (2 * chance[:1, 3] - 1)
    pixels = torch.einsum("ij,jhw->ihw", _hue(angle)[0], pixels)
    assert torch.allclose(out[0], pixels.clamp(0, 1) * 2 - 1, atol=1e-4)


def test_greyed_views_have_no_colour_and_keep_their_brightness() -> None:
    x = images(count=2)
    chance = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.9, 0.1]] * 2)
    out = _recolour(x, chance, 0.5)
    assert torch.allclose(out[:, 0], out[:, 1], atol=1e-5)
    assert torch.allclose(out[:, 0], torch.einsum("bchw,c->bhw", x, torch.tensor([0.299, 0.587, 0.114])), atol=1e-4)


def test_a_hue_turn_keeps_brightness_and_grey_and_moves_the_hue() -> None:
    turn = _hue(torch.tensor([0.5]))[0]
    assert torch.allclose(turn @ torch.ones(3), torch.ones(3), atol=1e-5), "grey has no hue"
    red = torch.tensor([0.6, 0.4, 0.4])
    turned = turn @ red
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert float(luma @ turned) == pytest.approx(float(luma @ red), abs=1e-3)
    assert colorsys.rgb_to_hsv(*turned.tolist())[0] != pytest.approx(colorsys.rgb_to_hsv(*red.tolist())[0], abs=0.02)
    assert torch.allclose(_hue(torch.zeros(1))[0], torch.eye(3), atol=1e-5)


def test_transparency_is_cropped_but_never_coloured() -> None:
    x = images(channels=4)
    x[:, 3] = 0.25
    assert torch.allclose(random_views(x, Draws(0, 0), jitter=1.0)[:, 3], torch.tensor(0.25), atol=1e-5)


def test_blur_is_the_gaussian_of_its_sigma_and_keeps_what_is_flat() -> None:
    x = images(count=2, height=24, width=24)
    chance = torch.tensor([[1.0, 0.2], [1.0, 0.9]])
    out = _blurred(x, chance, 0.5)
    assert torch.equal(out[1], x[1]), "half of the views stay sharp"
    kernel = torch.exp(-(torch.arange(-8.0, 9.0) ** 2) / 2)  # sigma is 1 at 24 pixels
    kernel = kernel / kernel.sum()
    rows = F.conv2d(x[:1].transpose(0, 1), kernel.view(1, 1, -1, 1), padding=(8, 0))
    expected = F.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, 8)).transpose(0, 1)
    assert torch.allclose(out[:1, :, 8:-8, 8:-8], expected[:, :, 8:-8, 8:-8], atol=1e-4)
    flat = torch.full((3, 3, 24, 24), 0.3)
    assert torch.allclose(random_views(flat, Draws(0, 0), jitter=0.0, blur=1.0), flat, atol=1e-5)
