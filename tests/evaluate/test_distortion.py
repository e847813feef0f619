"""PSNR as the compression papers count it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from smalti.evaluate.distortion import psnr_db, squared_error, squared_error_uint8


def test_the_psnr_of_an_error_known_by_heart() -> None:
    a = torch.zeros(2, 3, 4, 5)
    total, count = squared_error(a, a + 0.2)  # 0.1 in [0, 1] units: 20 dB
    assert count == 120
    assert psnr_db(total, count) == pytest.approx(20, abs=1e-5)
    assert psnr_db(*squared_error_uint8(np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8))) == pytest.approx(0)
    assert psnr_db(0.0, 7) == math.inf


def test_both_kinds_of_pixels_agree() -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8) for _ in range(2))
    total, count = squared_error_uint8(a, b)
    expected = np.mean((a / 255 - b / 255) ** 2)
    assert psnr_db(total, count) == pytest.approx(-10 * math.log10(expected))
    floats = squared_error(*(torch.from_numpy(x).double() / 127.5 - 1 for x in (a, b)))
    assert floats == (pytest.approx(total), count)


def test_the_error_is_pooled_before_the_logarithm() -> None:
    parts = [squared_error(torch.zeros(10), torch.full((10,), d)) for d in (0.02, 0.2)]
    pooled = psnr_db(sum(p[0] for p in parts), sum(p[1] for p in parts))
    assert pooled < np.mean([psnr_db(*p) for p in parts])
    assert pooled == pytest.approx(-10 * math.log10((0.01**2 + 0.1**2) / 2), abs=1e-5)


def test_equal_images_have_no_error() -> None:
    a = torch.rand(2, 3, 4, 4)
    assert psnr_db(*squared_error(a, a)) == math.inf
