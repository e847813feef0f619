"""Lossless planes and the linear synthesis in integers."""

from __future__ import annotations

import subprocess
import sys
import zlib
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from codec_models import QUALITY, drawn_codec, engine_of, some_codes
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.codec.fields import varint
from smalti.codec.lossless import (
    LARGEST_SHIFT,
    decode_alpha,
    decode_difference,
    difference_to,
    encode_alpha,
    encode_difference,
    linear_levels,
    restored,
    step_integer,
)
from smalti.codec.tables import SCALES
from smalti.errors import CodecError
from smalti.models.codec.codec import step_size

DTYPES = {8: np.uint8, 16: np.uint16}
depths = pytest.mark.parametrize("depth", [8, 16])
sides = st.integers(1, 20)


def noise(shape: tuple[int, ...], depth: int, seed: int) -> np.ndarray:
    """Samples with smooth parts, constant parts and noise."""
    chance = np.random.default_rng(seed)
    ramp = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * chance.integers(0, 1 << (depth - 4))
    found = ramp.reshape(ramp.shape + (1,) * (len(shape) - 2)) + np.zeros(shape, int)
    found[: shape[0] // 2] += chance.integers(0, 1 << depth, found[: shape[0] // 2].shape)
    return (found % (1 << depth)).astype(DTYPES[depth])


# --- Alpha


@given(sides, sides, st.sampled_from([8, 16]), st.integers(0, 99))
def test_alpha_comes_back(height: int, width: int, depth: int, seed: int) -> None:
    alpha = noise((height, width), depth, seed)
    found = decode_alpha(encode_alpha(alpha), height, width, depth)
    assert found.dtype == alpha.dtype
    assert np.array_equal(found, alpha)


@depths
def test_each_filter_is_chosen_where_it_is_best(depth: int) -> None:
    chance = np.random.default_rng(0)
    step = chance.integers(0, 200, 64)
    columns = np.cumsum(np.broadcast_to(step, (64, 64)), axis=0).astype(DTYPES[depth])  # equal steps downwards
    mask = np.where(chance.random((64, 64)) < 0.5, 0, DTYPES[depth](-1 % (1 << depth))).astype(DTYPES[depth])
    for alpha, kind in ((mask, 0), (columns.T.copy(), 1), (columns, 2)):
        data = encode_alpha(alpha)
        assert data[0] == kind
        assert np.array_equal(decode_alpha(data, 64, 64, depth), alpha)


@depths
def test_damaged_alpha_is_refused(depth: int) -> None:
    data = encode_alpha(noise((9, 7), depth, 0))
    bomb = b"\0" + zlib.compress(bytes(10**7), 9)[2:-4]
    for bad in (b"", b"\3" + data[1:], data[:-1], data + b"\0", data[:1], data[:1] + b"\xff" * 9, bomb):
        with pytest.raises(CodecError, match="alpha plane"):
            decode_alpha(bad, 9, 7, depth)
    with pytest.raises(CodecError, match="unpack"):
        decode_alpha(data, 9, 8, depth)


# --- The exact difference


@settings(max_examples=30)
@given(sides, sides, st.sampled_from([1, 3, 4]), st.sampled_from([8, 16]), st.integers(0, 99))
def test_the_exact_pixels_come_back(height: int, width: int, channels: int, depth: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    pixels = noise((height, width, channels), depth, seed)
    spread = chance.choice([0, 1, 20, 1 << depth])
    prediction = pixels.astype(np.int64) + chance.integers(-spread, spread + 1, pixels.shape)
    prediction = prediction.clip(0, (1 << depth) - 1)
    data = encode_difference(difference_to(prediction, pixels), depth)
    difference = decode_difference(data, pixels.shape, depth)
    assert difference.dtype == np.int32
    found = restored(prediction, difference, depth)
    assert found.dtype == pixels.dtype
    assert np.array_equal(found, pixels)


@depths
def test_bands_are_coded_one_after_another(depth: int) -> None:
    """So that memory is bounded: here bands of 8 and of 40 rows, the last of which are cut."""
    chance = np.random.default_rng(0)
    for width, channels in ((8 * 16384, 1), (8 * 1640, 2)):
        spread = np.repeat(10.0 ** (np.arange(8) % (depth // 2 - 2)), 13)[:100, None, None]
        difference = np.rint(chance.normal(0, 1, (100, width // 64, channels)) * spread).astype(int)
        difference = np.repeat(difference, 64, axis=1)[:44] if channels == 2 else np.repeat(difference, 64, axis=1)[:11]
        data = encode_difference(difference, depth)
        assert np.array_equal(decode_difference(data, difference.shape, depth), centred(difference, depth))


def centred(difference: np.ndarray, depth: int) -> np.ndarray:
    half = 1 << (depth - 1)
    return (difference + half) % (2 * half) - half


@depths
def test_the_largest_differences_come_back(depth: int) -> None:
    top = (1 << depth) - 1
    for value in (top, -top, 1 << (depth - 1), -(1 << (depth - 1))):
        difference = np.full((3, 5, 1), value)
        found = decode_difference(encode_difference(difference, depth), (3, 5, 1), depth)
        assert ((found - difference) % (1 << depth) == 0).all()
        assert np.abs(found).max() <= 1 << (depth - 1)


def test_small_differences_take_few_bytes() -> None:
    """Within a tenth of the entropy of what is coded: here a rounded logistic of scale 2."""
    chance = np.random.default_rng(0)
    values = np.rint(chance.logistic(0, 2, (64, 64, 3))).astype(int)
    shares = np.unique(values, return_counts=True)[1] / values.size
    entropy = -(shares * np.log2(shares)).sum() * values.size / 8
    assert len(encode_difference(values, 8)) < 1.1 * entropy
    assert len(encode_difference(np.zeros((640, 640, 3), int), 8)) < 500


def test_damaged_differences_are_refused() -> None:
    """Or, if the change is in the bits that fill the last byte of the scales, make no difference."""
    shape, chance = (9, 7, 3), np.random.default_rng(0)
    difference, harmless = chance.integers(-9, 9, shape), 0
    data = encode_difference(difference, 8)
    tried = [data[:length] for length in range(len(data))] + [data + b"\0", data + b"a"]
    for bit in range(0, 8 * len(data), 3):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        tried.append(bytes(flipped))
    for bad in tried:
        try:
            assert np.array_equal(decode_difference(bad, shape, 8), difference)
            harmless += 1
        except CodecError:
            pass
    assert harmless <= 2
    for other in ((9, 7, 1), (8, 7, 3), (9, 17, 3)):
        with pytest.raises(CodecError):
            decode_difference(data, other, 8)


@pytest.mark.parametrize(
    ("scales", "problem"),
    [
        (bytes(10**7), "does not unpack to 12 bytes"),
        (bytes([SCALES + 4 * LARGEST_SHIFT] * 12), "unknown scale"),
        (bytes([SCALES] * 12), "low bits"),
        (bytes(11), "does not unpack"),
    ],
)
def test_bad_scales_are_refused(scales: bytes, problem: str) -> None:
    side = zlib.compress(scales, 9)[2:-4]
    with pytest.raises(CodecError, match=problem):
        decode_difference(varint(len(side)) + side + b"abc", (9, 9, 3), 8)


# --- The linear synthesis


@pytest.mark.parametrize("quality", [1, 16, 40, 77, 100])
@depths
def test_linear_levels_are_exact(quality: int, depth: int) -> None:
    """Against Python's integers."""
    chance = np.random.default_rng(quality)
    basis = (chance.normal(size=(10, 12)) / 3).astype(np.float32)
    mean = chance.uniform(-1, 1, (3, 2, 2)).astype(np.float32)
    codes = chance.integers(-(2 ** chance.integers(1, 9)), 200, (10, 3, 2)).astype(np.int32)
    getcontext().prec = 60
    step = int(Decimal(2) ** (Decimal(17) - Decimal(quality) / 16) + Decimal("0.5"))
    assert step == step_integer(quality)
    top = (1 << depth) - 1
    found = linear_levels(basis, mean, codes, quality, depth)
    assert found.shape == (6, 4, 3)
    for y, x, c in np.ndindex(6, 4, 3):
        place = (c * 2 + y % 2) * 2 + x % 2
        total = sum(int(codes[d, y // 2, x // 2]) * round(Fraction(float(basis[d, place])) * 2**14) for d in range(10))
        value = total * step + round(Fraction(float(mean[c, y % 2, x % 2])) * 2**30)
        assert found[y, x, c] == min(max(((value + 2**30) * top + 2**30) // 2**31, 0), top)


@depths
def test_linear_levels_are_those_of_the_decoder_without_its_convolutions(depth: int) -> None:
    codec = drawn_codec()
    engine, codes, top = engine_of(codec), some_codes((1, 48, 2, 3)), (1 << depth) - 1
    step = float(step_size(torch.tensor(QUALITY)))
    with torch.no_grad():
        base = codec.basis.synthesise(torch.from_numpy(codes).float() * step)
        base += (codec.mean * codec.basis.scale).repeat(1, 2, 3)
    wanted = (base[0].clamp(-1, 1).permute(1, 2, 0).numpy() + 1) * top / 2
    found = engine.linear_pixels(codes[0], QUALITY, 15, 23, depth)
    # The basis is rounded to 2^-14, and codes are up to some hundreds.
    assert np.abs(found - wanted[:15, :23]).max() < 0.5 + np.abs(codes).sum(axis=1).max() * step * 2**-15 * top / 2


@depths
def test_the_largest_sums_are_exact_and_larger_ones_refused(depth: int) -> None:
    basis, mean = np.full((2, 4), 1.0, np.float32), np.full((1, 2, 2), -1.0, np.float32)
    for size in (2**13 - 1, -(2**13) + 1):
        found = linear_levels(basis, mean, np.full((2, 1, 1), size), 1, depth)
        assert (found == ((1 << depth) - 1 if size > 0 else 0)).all()
    for size in (2**13, -(2**13), 2**24):
        with pytest.raises(CodecError, match="beyond all pictures"):
            linear_levels(basis, mean, np.full((2, 1, 1), size), 1, depth)


def test_steps_halve_every_16_qualities() -> None:
    assert step_integer(16) == 65536
    assert [step_integer(16 + 16 * octave) for octave in range(6)] == [65536 >> octave for octave in range(6)]
    for quality in range(1, 101):
        assert abs(step_integer(quality) - 2 ** (17 - quality / 16)) <= 0.5 + 1e-9


def test_the_integers_of_a_model_are_the_same_on_every_machine() -> None:
    """Its basis and mean are products of float32 with one constant, each rounded once."""
    codec = drawn_codec()
    weight = codec.basis.weight.numpy()
    assert np.array_equal((codec.basis.weight * codec.basis.scale).numpy(), weight * np.float32(0.1))


def test_torch_stays_out() -> None:
    code = "import sys; from smalti.codec import lossless, scalar, tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
