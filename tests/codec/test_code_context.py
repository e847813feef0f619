"""Codes to bytes and back: of every quantizer, on every machine, and never another code in silence."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from variants import VARIANTS, latents

from smalti.codec import code_context
from smalti.codec.code_context import (
    CodeContext,
    cumulative_frequencies,
    decode_codes,
    encode_codes,
    exponentials,
)
from smalti.codec.entropy import EntropyDecoder, EntropyEncoder
from smalti.codec.fields import CoderKind
from smalti.codec.image_file import STATE_SYMBOLS, decoder_for, encoder_for
from smalti.codec.range_coder import RangeDecoder, RangeEncoder
from smalti.codec.rans import IntegerDecoder, IntegerEncoder, LaneDecoder, LaneEncoder
from smalti.config.code_context import CodeContextConfig
from smalti.config.quantizer import QuantizerConfig
from smalti.errors import CodecError, CodeRangeError
from smalti.models.codec.code_context import CodeContextNet
from smalti.models.codec.code_symbols import NEIGHBOURS
from smalti.quantize import build_quantizer

SMALL = CodeContextConfig(embedding=4, width=16)


def net_of(sizes: tuple[int, ...], config: CodeContextConfig = SMALL, *, sharp: float = 10) -> CodeContextNet:
    """A net whose distributions are far from uniform."""
    torch.manual_seed(0)
    net = CodeContextNet(config, sizes)
    net.fit([torch.randn(size, 3) for size in sizes], [torch.rand(size) + 0.01 for size in sizes])
    net.last.data.mul_(sharp)
    return net


def context_of(net: CodeContextNet) -> CodeContext:
    return CodeContext(net.arrays(), net.codebook_sizes)


def random_codes(sizes: tuple[int, ...], count: int, grid: tuple[int, int] = (3, 4), seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return np.stack([chance.integers(0, size, (count, *grid)) for size in sizes], axis=1)


def striped_codes(count: int, *, size: int = 16, side: int = 6, seed: int = 0) -> np.ndarray:
    """(count, 1, side, side) codes that mostly continue what is left of them, one higher than above."""
    chance = np.random.default_rng(seed)
    codes = chance.integers(0, size, (count, 1, side, side))
    for row in range(side):
        for column in range(1, side):
            guess = codes[:, 0, row - 1, column] + 1 if row else codes[:, 0, row, column - 1]
            keep = chance.random(count) < 0.8
            codes[:, 0, row, column] = np.where(keep, guess % size, codes[:, 0, row, column])
    return codes


@pytest.fixture(scope="module")
def trained() -> CodeContextNet:
    """A net that learned striped codes."""
    torch.manual_seed(0)
    net = CodeContextNet(CodeContextConfig(embedding=8, width=48), (16,))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    codes = torch.from_numpy(striped_codes(1000))
    for step in range(120):
        optimizer.zero_grad()
        net(codes[step * 13 % 968 :][:32]).mean().backward()
        optimizer.step()
    return net.eval()


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_codes_of_every_quantizer_come_back(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(config)
    quantizer(latents(config))
    sizes = quantizer.codebook_sizes
    context = context_of(net_of(sizes))
    with torch.no_grad():
        encoded = quantizer.eval().encode(latents(config, 1, batch=3)).numpy()
    for codes in (encoded, random_codes(sizes, 3), random_codes(sizes, 2, (1, 1))):
        count, grid = len(codes), codes.shape[2:]
        streams = encode_codes(context, codes, LaneEncoder(count))
        assert np.array_equal(decode_codes(context, LaneDecoder(streams), count, grid), codes)
        bits = context.information(codes)
        assert all(8 * len(stream) <= size + 36 for stream, size in zip(streams, bits, strict=True))


@pytest.mark.parametrize(("encoder", "decoder"), [(IntegerEncoder, IntegerDecoder), (RangeEncoder, RangeDecoder)])
def test_one_stream_holds_one_image_or_several(
    encoder: Callable[[], EntropyEncoder], decoder: Callable[[bytes], EntropyDecoder]
) -> None:
    context, codes = context_of(net_of((9, 5000))), random_codes((9, 5000), 5)
    for part in (codes[:1], codes):
        (stream,) = encode_codes(context, part, encoder(), per_stream=len(part))
        assert np.array_equal(decode_codes(context, decoder(stream), len(part), (3, 4), per_stream=len(part)), part)


@pytest.mark.parametrize(("count", "per_stream"), [(7, 3), (6, 3), (1, 4)])
def test_the_last_stream_may_have_fewer_images(count: int, per_stream: int) -> None:
    context, codes = context_of(net_of((9, 3))), random_codes((9, 3), count)
    lanes = -(-count // per_stream)
    streams = encode_codes(context, codes, LaneEncoder(lanes), per_stream=per_stream)
    found = decode_codes(context, LaneDecoder(streams), count, (3, 4), per_stream=per_stream)
    assert np.array_equal(found, codes)
    last = codes[per_stream * (lanes - 1) :]
    assert encode_codes(context, last, LaneEncoder(1), per_stream=per_stream) == streams[-1:]


def test_frequencies_are_whole_and_follow_the_logits() -> None:
    table = exponentials()
    assert table[0] == 2**24
    assert table[-1] == 0
    assert all(value == math.floor(2**24 * math.exp(-index / 16)) for index, value in enumerate(table[1:], 1))
    chance = np.random.default_rng(0)
    for size in (1, 2, 512, 4096):
        logits = chance.normal(0, 40, (20, size)).astype(np.int32)
        found = cumulative_frequencies(logits)
        frequencies = np.diff(found, axis=1)
        assert (found[:, 0] == 0).all()
        assert (found[:, -1] == 2**16).all()
        assert frequencies.min() >= 1
        for row, counts in zip(logits.tolist(), found.tolist(), strict=True):
            weights = table[np.minimum(max(row) - np.array(row), len(table) - 1)].tolist()
            sums = [0, *itertools.accumulate(weights)]
            assert counts == [index + part * (2**16 - size) // sums[-1] for index, part in enumerate(sums)]


def test_it_computes_what_its_description_says() -> None:
    """In Python's integers, position by position."""
    net = net_of((5, 4), CodeContextConfig(embedding=3, width=8), sharp=30)
    context, codes = context_of(net), random_codes((5, 4), 1, (2, 3))
    arrays, clip = net.arrays(), lambda value, low: max(low, min(255, value))
    table = [[clip(round(32 * float(x)), -255) for x in row] for row in arrays["table"]]
    starts, wanted = (0, 6), []

    def layer(inputs: list[int], found: tuple, row: int, point: int) -> list[int]:
        part, biases = found
        sums = [
            sum(int(w) * x for w, x in zip(column, inputs, strict=False)) + float(bias)
            for column, bias in zip(part.weights.T, biases[row], strict=True)
        ]
        return [math.floor(total / 2 ** (int(s) + point)) for total, s in zip(sums, part.exponents, strict=True)]

    for y, x, plane in np.ndindex(2, 3, 2):
        inputs: list[int] = []
        for down, right in NEIGHBOURS:
            inside = y + down >= 0 and 0 <= x + right < 3
            rows = [table[start + (codes[0, p, y + down, x + right] if inside else size)]
                    for p, (start, size) in enumerate(zip(starts, (5, 4), strict=True))]  # fmt: skip
            inputs += [clip(sum(values), -255) for values in zip(*rows, strict=True)]
        inputs += table[codes[0, 0, y, x]] if plane else [0] * 3
        hidden = layer(inputs, (context._first, context._first_bias), plane, 0)
        hidden = layer([clip(value, 0) for value in hidden], (context._second, context._second_bias), plane, 0)
        logits = layer([clip(value, 0) for value in hidden], context._last[plane], 0, 1)
        frequencies = np.diff(cumulative_frequencies(np.array([logits], dtype=np.int32))[0])
        wanted.append(16 - math.log2(frequencies[codes[0, plane, y, x]]))
    assert context.information(codes)[0] == pytest.approx(sum(wanted), rel=1e-12)


def test_the_integer_net_costs_hardly_more_than_the_float_net(trained: CodeContextNet) -> None:
    codes = striped_codes(200, seed=1)
    with torch.no_grad():
        wanted = float(trained(torch.from_numpy(codes)).double().sum())
    found = context_of(trained).information(codes).sum()
    assert wanted / codes.size < 2.4 < math.log2(16)
    assert found == pytest.approx(wanted, rel=0.005)


RUN = """
import sys, hashlib, numpy as np
from smalti.codec.code_context import CodeContext, encode_codes
from smalti.codec.rans import LaneEncoder
found = np.load(sys.argv[1])
context = CodeContext({name: found[name] for name in found.files if name != "codes"}, (16,))
codes = found["codes"]
whole = encode_codes(context, codes, LaneEncoder(len(codes)))
single = [encode_codes(context, part[None], LaneEncoder(1))[0] for part in codes[:8]]
assert single == whole[:8]
assert "torch" not in sys.modules
print(hashlib.sha256(b"".join(whole)).hexdigest())
"""


def test_threads_and_batches_change_no_byte(trained: CodeContextNet, tmp_path: Path) -> None:
    codes = striped_codes(64, seed=2)
    np.savez(tmp_path / "net.npz", codes=codes, **trained.arrays())
    found = {hashlib.sha256(b"".join(encode_codes(context_of(trained), codes, LaneEncoder(64)))).hexdigest()}
    for threads in ("1", "2"):
        places = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path / "net.npz")], capture_output=True, text=True, timeout=60,
            env=os.environ | places,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.add(done.stdout.strip())
    assert len(found) == 1


def golden_context() -> CodeContext:
    """Weights by a formula that every version of numpy computes alike."""

    def weights(start: int, *shape: int) -> np.ndarray:
        count = math.prod(shape)
        return ((np.arange(start, start + count) * 7919 % 101 - 50) / 64).astype(np.float32).reshape(shape)

    total = 6 + 40 + 128  # values of the symbols of a plane of 6 codes and one of 5000
    ranks = np.arange(5000) * 7 % 5000
    return CodeContext(
        {
            "table": weights(0, total + 3, 4), "around.weight": weights(3, 8, 24), "own": weights(5, 2, 8, 4),
            "first_bias": weights(7, 3, 8), "second.weight": weights(11, 8, 8), "second_bias": weights(13, 3, 8),
            "last": weights(17, total, 8), "last_bias": weights(19, total), "ranks": ranks,
        },
        (6, 5000),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("encoder", "per_stream", "expected"),
    [
        (lambda: LaneEncoder(3), 1, "e21cb07f352699fe"),
        (lambda: LaneEncoder(2), 2, "b7e20cbc288b01c5"),
        (IntegerEncoder, 3, "bc8767eb3d7d3959"),
        (RangeEncoder, 3, "748a2bd5c9a15a9c"),
    ],
)
def test_golden_streams(encoder: Callable[[], EntropyEncoder], per_stream: int, expected: str) -> None:
    """If this fails, files of earlier versions can no longer be read: raise the version of the format."""
    index = np.arange(3 * 2 * 4 * 5).reshape(3, 2, 4, 5) * 7919
    codes = np.stack([index[:, 0] % 6, index[:, 1] % 5000], axis=1)
    streams = encode_codes(golden_context(), codes, encoder(), per_stream=per_stream)
    assert hashlib.sha256(b"".join(streams)).hexdigest()[:16] == expected


def test_damaged_streams_are_refused(trained: CodeContextNet) -> None:
    context, codes = context_of(trained), striped_codes(8, seed=3)
    streams = encode_codes(context, codes, LaneEncoder(8))
    chance = np.random.default_rng(0)
    for attempt in range(60):
        bad = [bytearray(stream) for stream in streams]
        lane = attempt % 8
        if attempt % 3:
            bad[lane][chance.integers(len(bad[lane]))] ^= 1 << chance.integers(8)
        else:
            del bad[lane][chance.integers(1, len(bad[lane])) :]
        with pytest.raises(CodecError, match="compressed"):
            decode_codes(context, LaneDecoder([bytes(stream) for stream in bad]), 8, (6, 6))
    for other in (context_of(net_of((16,))), context_of(net_of((15,)))):
        with pytest.raises(CodecError, match="it is damaged or was made with another model"):
            decode_codes(other, LaneDecoder(streams), 8, (6, 6))
    with pytest.raises(CodecError, match="it is damaged or was made with another model"):
        decode_codes(context, LaneDecoder(streams), 8, (6, 5))


def test_a_large_picture_takes_the_range_coder_and_comes_back_or_is_refused() -> None:
    context, grid = context_of(net_of((16,))), (182, 182)
    codes = random_codes((16,), 1, grid)
    assert codes.size > STATE_SYMBOLS
    (stream,) = encode_codes(context, codes, encoder_for(CoderKind.RANGE))
    assert 8 * len(stream) < context.information(codes)[0] * 1.0002 + 32 + 8 + 8
    assert np.array_equal(decode_codes(context, decoder_for(CoderKind.RANGE, [stream]), 1, grid), codes)
    half = len(stream) // 2
    flipped = [stream[:at] + bytes([stream[at] ^ 16]) + stream[at + 1 :] for at in (0, half, len(stream) - 3)]
    for bad in (*flipped, stream[:half], stream[:-1], stream + b"\1", b""):
        with pytest.raises(CodecError, match=r"compressed stream 0 .*it is damaged or was made with another model"):
            decode_codes(context, decoder_for(CoderKind.RANGE, [bad]), 1, grid)


@pytest.mark.parametrize("per_stream", [1, 2, 3])
def test_parts_of_waves_change_no_byte(per_stream: int, monkeypatch: pytest.MonkeyPatch) -> None:
    context, codes = context_of(net_of((9, 5000))), random_codes((9, 5000), 5, (6, 7))
    lanes = -(-5 // per_stream)
    whole = encode_codes(context, codes, LaneEncoder(lanes), per_stream=per_stream)
    for name in ("ENTRIES", "CACHED"):
        monkeypatch.setattr(code_context, name, 700)
        assert encode_codes(context, codes, LaneEncoder(lanes), per_stream=per_stream) == whole
    found = decode_codes(context, LaneDecoder(whole), 5, (6, 7), per_stream=per_stream)
    assert np.array_equal(found, codes)


def test_codes_that_do_not_exist_are_refused() -> None:
    context = context_of(net_of((4, 5000)))
    with pytest.raises(CodeRangeError, match=r"plane 1 holds codes outside of 0\.\.4999"):
        context.symbols(np.array([0, 5000]).reshape(1, 2, 1, 1))
    with pytest.raises(CodeRangeError, match=r"codes have the shape \(1, 1, 2, 2\), not \(N, 2, h, w\)"):
        context.symbols(np.zeros((1, 1, 2, 2), np.int64))
    high, low = context.sizes[1:]
    with pytest.raises(CodecError, match="hold a code that does not exist"):
        context.codes(np.array([0, high - 1, low - 1]).reshape(1, 3, 1, 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"table": np.nan}, "the embeddings of the context net are NaN or infinite"),
        ({"second.weight": np.inf}, "NaN or infinite weights"),
        ({"around.weight": 1e9}, "too large for exact sums"),
        ({"own": None}, "cannot be read"),
        ({"ranks": 0}, "its ranks are no permutation"),
    ],
)
def test_weights_that_are_no_net_are_refused(change: dict[str, float | None], said: str) -> None:
    arrays = net_of((4, 5000)).arrays()
    for name, value in change.items():
        arrays[name] = np.zeros(0) if value is None else np.full_like(arrays[name], value)
    with pytest.raises(CodecError, match=said):
        CodeContext(arrays, (4, 5000))
