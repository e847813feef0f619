"""Preprocessing of images: sizes, channels and alpha."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.errors import DataError
from smalti.features.resizing import Preprocessing, resized


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(128, 128), (7, 11), (40, 9), (33, 31), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_pillows_bilinear_without_rounding(size: tuple[int, int], channels: int) -> None:
    images = pictures(2, 32, 30, channels)
    found = resized(images, size, channels=channels)
    assert found.shape == (2, channels, *size)
    for image, mine in zip(images, found, strict=True):
        for channel in range(channels):
            plane = Image.fromarray(image[:, :, channel].astype(np.float32))
            theirs = np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR))
            np.testing.assert_allclose(mine[channel].numpy(), theirs, atol=1e-3)


def test_it_is_the_triangle_of_its_formula() -> None:
    line = pictures(1, 1, 23, 1)
    for new in (5, 23, 64):
        step = 23 / new
        centres = (np.arange(new)[:, None] + 0.5) * step
        weights = np.maximum(0, 1 - np.abs(np.arange(23)[None] + 0.5 - centres) / max(step, 1))
        expected = weights @ line[0, 0, :, 0] / weights.sum(1)
        np.testing.assert_allclose(resized(line, (1, new), channels=1).numpy()[0, 0, 0], expected, atol=1e-3)


def test_an_image_of_the_right_size_is_not_touched() -> None:
    images = pictures(2, 9, 12, 3)
    assert torch.equal(resized(images, (9, 12)), torch.from_numpy(images).permute(0, 3, 1, 2).float())


def test_a_fine_grid_becomes_grey_and_no_other_pattern() -> None:
    grid = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[None, :, :, None]
    assert (resized(grid, (13, 13), channels=1) - 127.5).abs().max() < 6


def test_grey_is_repeated_and_colours_become_luma() -> None:
    grey = pictures(1, 8, 8, 1)
    three = resized(grey, (5, 5))
    assert three.shape == (1, 3, 5, 5)
    assert torch.equal(three[:, 0], three[:, 2])
    colours = pictures(1, 8, 8, 3)
    luma = np.asarray(Image.fromarray(colours[0]).convert("L"), np.float32)
    np.testing.assert_allclose(resized(colours, (8, 8), channels=1)[0, 0].numpy(), luma, atol=0.51)


def test_transparency_is_laid_over_white() -> None:
    images = pictures(2, 6, 6, 4)
    alpha = images[..., 3:].astype(np.float64) / 255
    expected = images[..., :3] * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(resized(images, (6, 6)).permute(0, 2, 3, 1).numpy(), expected, atol=1e-3)
    images[..., 3] = 0
    assert (resized(images, (9, 4)) >= 254.99).all()
    assert (resized(images, (9, 4), channels=1) >= 254.99).all()


def test_transparent_pixels_lend_no_colour() -> None:
    images = np.zeros((1, 8, 8, 4), np.uint8)
    images[:, :, :4] = (200, 100, 50, 255)  # the other half is black and transparent
    found = resized(images, (3, 3), channels=4)
    shown = found[0, :3, :, :2]
    assert torch.allclose(shown, torch.tensor([200.0, 100.0, 50.0])[:, None, None].expand_as(shown), atol=1e-2)
    assert 0 < found[0, 3, 0, 1] < 255
    opaque = resized(pictures(1, 8, 8, 3), (3, 3), channels=4)
    assert (opaque[:, 3] == 255).all()
    assert resized(pictures(1, 8, 8, 1), (3, 3), channels=4).shape == (1, 4, 3, 3)


def test_read_only_and_turned_arrays_are_taken() -> None:
    images = pictures(2, 8, 6, 3)
    images.flags.writeable = False
    assert torch.equal(resized(images[:, :, ::-1], (8, 6)), resized(images, (8, 6)).flip(3))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 2), np.uint8),
        np.zeros((2, 0, 4, 3), np.uint8),
        np.broadcast_to(np.uint8(0), (1, 20000, 4, 3)),
    ],
    ids=["float", "one image", "two channels", "no rows", "too high"],
)
def test_other_arrays_are_refused(images: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected uint8|must have 1 to 16384"):
        resized(images, (4, 4))


def test_preprocessing_scales_as_its_record_says(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(5, 12, 12, 3)
    three = Preprocessing((8, 8), 3, (10.0, 20.0, 30.0), (2.0, 4.0, 8.0))
    found = three(images, torch.device("cpu"))
    expected = (resized(images, (8, 8)) - torch.tensor([10.0, 20, 30]).view(3, 1, 1)) / torch.tensor([2.0, 4, 8]).view(
        3, 1, 1
    )
    assert torch.allclose(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert three.record()["range"] == "(x - (10, 20, 30)) / (2, 4, 8) for x in 0..255"
    assert Preprocessing((8, 8), 1, (127.5,), (127.5,)).record()["range"] == "(x - 127.5) / 127.5 for x in 0..255"
    monkeypatch.setattr("smalti.features.resizing.CHUNK_VALUES", 2 * 12 * 12 * 3)  # two images at a time
    assert torch.equal(three(images, torch.device("cpu")), found)
