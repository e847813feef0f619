"""Pixels change their form in one place, and come back as they were."""

from __future__ import annotations

import numpy as np
import torch

from smalti.runtime.pixels import to_pixels, to_tensor


def test_every_value_comes_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    tensor = to_tensor(pixels)
    assert tensor.dtype == torch.float32
    assert (float(tensor.min()), float(tensor.max())) == (-1.0, 1.0)
    assert np.array_equal(to_pixels(tensor), pixels)


def test_layout() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 4), dtype=np.uint8)
    tensor = to_tensor(pixels)
    assert tensor.shape == (2, 4, 3, 5)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(to_pixels(tensor), pixels)
    assert np.array_equal(to_pixels(tensor.contiguous()), pixels)
    assert to_pixels(tensor).flags.c_contiguous


def test_what_is_outside_is_clipped_and_what_is_between_is_rounded() -> None:
    values = torch.tensor([-9.0, -1.001, 1.001, 9.0, -1 + 0.6 / 127.5, -1 + 0.4 / 127.5]).view(1, 1, 1, 6)
    assert to_pixels(values).ravel().tolist() == [0, 0, 255, 255, 1, 0]
    assert to_pixels(values.bfloat16().requires_grad_()).dtype == np.uint8


def test_pixels_of_any_memory_are_taken_and_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    assert np.array_equal(to_pixels(to_tensor(pixels)), pixels)
    mirrored = pixels[:, :, ::-1]
    assert np.array_equal(to_pixels(to_tensor(mirrored)), mirrored)
    own = pixels.copy()
    to_tensor(own).fill_(0)
    assert np.array_equal(own, pixels)


def test_sixteen_bits_come_back() -> None:
    pixels = np.arange(2**16, dtype=np.uint16).reshape(1, 256, 64, 4)
    tensor = to_tensor(pixels)
    assert (tensor.dtype, tensor.shape) == (torch.float32, (1, 4, 256, 64))
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert (float(tensor.min()), float(tensor.max())) == (-1.0, 1.0)
    found = to_pixels(tensor, bit_depth=16)
    assert found.dtype == np.uint16
    assert np.array_equal(found, pixels)
    assert to_pixels(torch.tensor([-9.0, 9.0]).view(1, 1, 1, 2), bit_depth=16).ravel().tolist() == [0, 65535]
    shades = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert torch.equal(to_tensor(shades), to_tensor(shades.astype(np.uint16) * 257))
