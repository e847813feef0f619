"""The context net in integers: against the float net, exactness, refused weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_models import discs, drawn_codec, engine_of, integer_context, some_codes, trained_codec
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.codec import context as integers
from smalti.codec.context import EXACT, FINEST, LARGEST, IntegerContext, IntegerLayer, integer_layer
from smalti.codec.scalar import scalar_bits
from smalti.codec.tables import SPIKES
from smalti.errors import CodecError
from smalti.models.codec.context import ContextNet, compressed

QUALITIES = np.array([1, 40, 100])
both = pytest.mark.parametrize("neighbours", [False, True], ids=["alone", "neighbours"])


def all_rows(context: IntegerContext, codes: np.ndarray, quality: np.ndarray) -> list[np.ndarray]:
    """Rows and shifts of every pass."""
    return [part for place in context.passes for part in context.rows(codes, quality, *place)]


def tensors_of(net: ContextNet) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


def rebuilt(net: ContextNet, tensors: dict[str, np.ndarray]) -> IntegerContext:
    return IntegerContext(tensors, net.bounds, neighbours=net.neighbours, shared=net.shared)


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


# --- Against the float net


@both
def test_rates_are_those_of_the_float_net(neighbours: bool) -> None:
    """In nets as small as these the grid of parameters costs half a per cent; those of the presets lose none."""
    codec = trained_codec(neighbours=neighbours)
    engine, images, exact, rounded = engine_of(codec), discs(24, seed=9), 0.0, 0.0
    for quality in (10, 40, 65):
        codes = engine.codes_of(images, quality, effort=3)
        values = torch.from_numpy(codes).float()
        exact += float(codec.distribution(values, torch.full((24,), float(quality))).bits(values).sum())
        rounded += scalar_bits(engine.context, codes, quality)
    assert abs(rounded / exact - 1) < 0.0075


@both
def test_parameters_are_those_of_the_float_net_rounded_to_the_grid(neighbours: bool) -> None:
    codec = drawn_codec(neighbours=neighbours)
    codes = some_codes((3, 48, 3, 4))
    context = integer_context(codec.context)
    with torch.no_grad():
        wanted = codec.distribution(torch.from_numpy(codes).float(), torch.from_numpy(QUALITIES).float())
    means, scales = wanted.mean.numpy(), wanted.log_scale.numpy()
    apart = []
    for group, phase in context.passes:
        rows, shifts = context.rows(codes, QUALITIES, group, phase)
        tiles, part = context.tiles(3, 3, 4, phase), slice(*context.bounds[group : group + 2])
        mean, scale = (each[:, part].transpose(0, 2, 3, 1).reshape(36, -1)[tiles] for each in (means, scales))
        spiked = rows < 31 * SPIKES * 8
        found = np.where(spiked, rows // (8 * SPIKES), 31 + (rows - 31 * SPIKES * 8) // 8) / 4 - 4.75
        coded = rows >= 0
        apart.append((np.abs(found - scale.clip(-4.75, 6)))[coded].max())
        apart.append(np.abs(shifts + (rows % 8 - 4) / 8 - mean)[coded].max())
    assert max(apart[::2]) < 0.125 + 0.1  # half of a grid step, and the roundings inside of the net
    assert max(apart[1::2]) < 0.0625 + 0.1


def test_features_are_those_of_the_float_net() -> None:
    codes = np.arange(-700, 701, dtype=np.int32)
    found = integers._features(codes)
    wanted = 32 * compressed(torch.from_numpy(codes).float()).numpy()
    assert np.abs(found - wanted).max() <= 0.5
    assert np.array_equal(found, -found[::-1])
    assert (np.diff(found) >= 0).all()
    assert found.max() == LARGEST


@both
def test_a_coefficient_is_excluded_if_its_scale_is_the_lowest_and_its_mean_zero(neighbours: bool) -> None:
    context = integer_context(drawn_codec(neighbours=neighbours).context)
    rows = np.concatenate([part.ravel() for part in all_rows(context, some_codes((3, 48, 3, 4)), QUALITIES)[::2]])
    shifts = np.concatenate([part.ravel() for part in all_rows(context, some_codes((3, 48, 3, 4)), QUALITIES)[1::2]])
    lowest = (rows >= 0) & (rows < 8 * SPIKES)
    assert (rows == -1).mean() > 0.05
    assert (shifts[rows == -1] == 0).all()
    assert lowest.any()
    assert (shifts[lowest] != 0).all()


# --- The same everywhere


@both
def test_rows_do_not_depend_on_the_batch_or_on_what_is_beside(neighbours: bool) -> None:
    context = integer_context(drawn_codec(neighbours=neighbours).context)
    codes, quality = some_codes((64, 48, 2, 3)), np.tile([1, 17, 40, 100], 16)
    together = all_rows(context, codes, quality)
    for image in (0, 1, 33, 63):
        alone = all_rows(context, codes[image : image + 1], quality[image : image + 1])
        assert same(alone, [part[image * len(part) // 64 : (image + 1) * len(part) // 64] for part in together])


@both
def test_rows_do_not_depend_on_the_precision_of_the_products(neighbours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """float64, and integers without any rounding."""
    net = drawn_codec(neighbours=neighbours).context
    codes = some_codes((3, 48, 3, 4), spread=300)
    expected = all_rows(integer_context(net), codes, QUALITIES)
    for dtype in (np.float64, np.int64):
        other = integer_context(net)
        for each in other.nets:
            for name in ("first", "second", "last", "linear"):
                layer = getattr(each, name)
                if layer is not None:
                    setattr(each, name, Wider(layer, dtype))
            each.second_bias = each.second_bias.astype(dtype)
        assert same(all_rows(other, codes, QUALITIES), expected)


class Wider(IntegerLayer):
    """A layer whose sums have another type."""

    def __init__(self, layer: IntegerLayer, dtype: Any) -> None:
        super().__init__(Product(layer.weights, dtype), layer.exponents)  # type: ignore[arg-type]

    def shifted(self, sums: np.ndarray, extra: np.ndarray | int) -> np.ndarray:
        bits = self.exponents + extra
        if sums.dtype == np.int64:
            return (sums << np.maximum(-bits, 0)) >> np.maximum(bits, 0)
        return np.floor(np.ldexp(sums.astype(np.float64), -bits))


class Product:
    """A matrix that multiplies inputs of any type in its own, and adds biases in it too."""

    __array_ufunc__ = None

    def __init__(self, weights: np.ndarray, dtype: Any) -> None:
        self.weights = weights.astype(dtype)
        assert (self.weights == weights).all()

    def __rmatmul__(self, inputs: np.ndarray) -> np.ndarray:
        return Sums(np.asarray(inputs).astype(self.weights.dtype) @ self.weights)


class Sums(np.ndarray):
    """Sums that keep their type when float32 biases, which must be integers, are added."""

    def __new__(cls, values: np.ndarray) -> Sums:
        return values.view(cls)

    def __add__(self, bias: np.ndarray) -> np.ndarray:  # type: ignore[override]
        bias = np.broadcast_to(bias, self.shape)
        assert (bias == np.rint(bias)).all()
        return np.asarray(self) + bias.astype(self.dtype)


@both
def test_rows_do_not_depend_on_the_order_of_summation(neighbours: bool) -> None:
    net = drawn_codec(neighbours=neighbours).context
    codes = some_codes((3, 48, 3, 4), spread=300)
    expected = all_rows(integer_context(net), codes, QUALITIES)
    other = integer_context(net)
    chance = np.random.default_rng(0)
    for each in other.nets:
        for name in ("first", "second", "last", "linear"):
            layer = getattr(each, name)
            if layer is not None:
                weights = Permuted(layer.weights, chance.permutation(len(layer.weights)))
                setattr(each, name, IntegerLayer(weights, layer.exponents))  # type: ignore[arg-type]
    assert same(all_rows(other, codes, QUALITIES), expected)


class Permuted:
    """A matrix that adds its products one after another, in an order of its own."""

    __array_ufunc__ = None

    def __init__(self, weights: np.ndarray, order: np.ndarray) -> None:
        self.weights, self.order = weights, order

    def __rmatmul__(self, inputs: np.ndarray) -> np.ndarray:
        sums = np.zeros((len(inputs), self.weights.shape[1]), np.float32)
        for place in self.order:
            sums += inputs[:, place, None] * self.weights[place]
        return sums


def test_rows_do_not_depend_on_threads(tmp_path: Path) -> None:
    """Nor on the instructions that the matrix product uses: other kernels of OpenBLAS."""
    net = drawn_codec(neighbours=True).context
    np.savez(tmp_path / "net.npz", codes=some_codes((64, 48, 5, 5)), bounds=net.bounds, **tensors_of(net))
    code = (
        "import sys, hashlib, numpy as np; from smalti.codec.context import IntegerContext\n"
        "file = dict(np.load(sys.argv[1])); codes, bounds = file.pop('codes'), file.pop('bounds').tolist()\n"
        "context, sha = IntegerContext(file, bounds, neighbours=True, shared=10), hashlib.sha256()\n"
        "for place in context.passes:\n"
        "    for part in context.rows(codes, np.full(64, 40), *place): sha.update(part.astype('<i4').tobytes())\n"
        "assert 'torch' not in sys.modules; print(sha.hexdigest())"
    )
    found = set()
    for more in ({"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"}, {"OPENBLAS_CORETYPE": "Nehalem"}):
        words = [sys.executable, "-c", code, str(tmp_path / "net.npz")]
        ran = subprocess.run(words, env=os.environ | more, capture_output=True, text=True, check=True)
        found.add(ran.stdout)
    assert len(found) == 1


# --- The bound


@settings(max_examples=60)
@given(st.data())
def test_no_sum_reaches_the_end_of_exact_integers(data: st.DataObject) -> None:
    """With the worst inputs, added in the worst order, and the largest bias."""
    chance = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    outputs, inputs = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 40))
    size = 10.0 ** data.draw(st.integers(-8, 2))
    weights = (chance.standard_t(2, (outputs, inputs)) * size).astype(np.float32)
    largest = chance.choice([LARGEST, 4 * LARGEST, 2047], inputs)
    bound = np.abs(chance.standard_t(2, outputs)) * size
    point = data.draw(st.sampled_from([0, 5]))
    try:
        layer = integer_layer(weights, largest, bound, point=point)
    except CodecError:
        assert (np.abs(weights) @ largest + bound * 2**point).max() > EXACT / 2
        return
    exact = [[int(weight) for weight in column] for column in layer.weights.T]
    for row, column, s, most in zip(weights, exact, layer.exponents.tolist(), bound.tolist(), strict=True):
        assert 0 <= s <= FINEST
        assert column == [round(float(weight) * 2**s) for weight in row]
        worst = sum(abs(weight) * int(x) for weight, x in zip(column, largest, strict=True))
        half = 2 ** max(s + 3, 0)  # of the last layer, whose shift is the longest
        assert worst + round(most * 2 ** (s + point)) + half * (point > 0) + 2 ** max(s - 4, 0) < EXACT
        if s < FINEST:  # one bit more would not fit
            finer = sum(
                abs(round(float(weight) * 2 ** (s + 1))) * int(x) for weight, x in zip(row, largest, strict=True)
            )
            assert finer + (most + 1) * 2 ** (s + 1 + point) + 1 >= EXACT


@both
def test_biases_of_all_qualities_are_below_their_bound(neighbours: bool) -> None:
    net = drawn_codec(neighbours=neighbours).context
    for name, value in tensors_of(net).items():
        if name.endswith("bias.weight"):
            bound = integers._bias_bound(value)
            for quality in range(128):
                assert (np.abs(integers._polynomial(value, (quality - 50) / 32)) <= bound).all()


@both
def test_large_weights_get_fewer_bits_but_stay_exact(neighbours: bool) -> None:
    """Weights as large as they may be: the sums come close to the bound, and integers still tell the same."""
    net = drawn_codec(neighbours=neighbours).context
    tensors = tensors_of(net)
    for name in tensors:
        if "first.weight" in name or "last.weight" in name:
            tensors[name] = tensors[name] * 40
        if "linear" in name:
            tensors[name] = tensors[name] * 4000
    context = rebuilt(net, tensors)
    assert min(layer.exponents.min() for each in context.nets for layer in (each.first, each.last)) < 8
    assert not neighbours or min(each.linear.exponents.min() for each in context.nets if each.linear) <= 3
    codes = some_codes((3, 48, 3, 4), spread=300)
    expected = all_rows(context, codes, QUALITIES)
    for each in context.nets:
        for layer in ("first", "second", "last", "linear"):
            if getattr(each, layer) is not None:
                setattr(each, layer, Wider(getattr(each, layer), np.int64))
    assert same(all_rows(context, codes, QUALITIES), expected)


# --- Refusals


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("nets.1.first.weight", np.nan, "NaN"),
        ("nets.1.second.bias", np.inf, "NaN or infinite"),
        ("nets.1.last_bias.weight", -np.inf, "NaN or infinite"),
        ("nets.1.last.weight", 1e6, "too large"),
        ("nets.1.first_bias.weight", 3e38, "too large"),
        ("nets.1.linear.weight", 1e9, "too large"),
        ("nets.1.linear.weight", np.nan, "NaN"),
    ],
)
def test_bad_weights_are_refused(name: str, value: float, problem: str) -> None:
    net = drawn_codec(neighbours=True).context
    tensors = tensors_of(net)
    tensors[name].flat[-1] = value
    with pytest.raises(CodecError, match=problem):
        rebuilt(net, tensors)


@pytest.mark.parametrize("name", ["first.weight", "first_bias.weight", "second.bias", "last.weight"])
def test_missing_and_misshapen_weights_are_refused(name: str) -> None:
    net = drawn_codec().context
    tensors = tensors_of(net)
    whole = tensors.pop(f"nets.2.{name}")
    with pytest.raises(CodecError, match="group 2 cannot be read"):
        rebuilt(net, tensors)
    with pytest.raises(CodecError, match="group 2 cannot be read"):
        rebuilt(net, tensors | {f"nets.2.{name}": whole[..., :-1]})
