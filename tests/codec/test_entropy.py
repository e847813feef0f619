"""Distributions of integers, and what holds for all entropy coders: round trips, golden streams, damage."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from entropy_messages import (
    CODERS,
    INT32,
    TINY,
    Coder,
    Message,
    damaged_streams,
    every_coder,
    messages,
    mixed,
    own_frequencies,
    tables,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.codec.entropy import FrequencyTables, frequencies_from, information_content
from smalti.errors import CodecError


@every_coder
@settings(max_examples=60)
@given(data=st.data())
def test_decoding_gives_back_what_was_coded(coder: Coder, data: st.DataObject) -> None:
    message = data.draw(messages(coder.many))
    found = message.decoded(coder, message.encoded(coder))
    assert message.agrees(found)
    assert all(part.dtype == np.int32 for part in found)


@every_coder
def test_every_value_around_a_row_is_coded(coder: Coder) -> None:
    values = np.arange(-600, 600)[None]
    rows = np.arange(1200)[None] % 2
    message = Message(1, [(TINY, rows, values)])
    assert message.agrees(message.decoded(coder, message.encoded(coder)))


@every_coder
def test_wide_rows_and_all_dtypes(coder: Coder) -> None:
    wide = FrequencyTables.of([np.ones(65536, np.uint32), np.array([1, 65535])], np.array([INT32.min, 5], np.int64))
    rows = np.array([[0, 1, 0, 0, -1, 1]], np.int8)
    values = np.array([[INT32.min, 5, INT32.min + 65534, INT32.max, 0, 6]], np.int32)
    message = Message(1, [(wide, rows, values), (np.array([[[0, 65536]]], np.uint32), np.array([[0]], np.uint8))])
    assert message.agrees(message.decoded(coder, message.encoded(coder)))


@every_coder
def test_nothing_coded_takes_the_checksum_only(coder: Coder) -> None:
    message = Message(
        1, [(TINY, np.full((1, 3), -1), np.zeros((1, 3), int)), (np.array([[[0, 0, 65536]] * 2]), np.array([[1, 1]]))]
    )
    (stream,) = message.encoded(coder)
    assert len(stream) <= (6 if coder is CODERS["range"] else 3)
    assert message.agrees(message.decoded(coder, [stream]))


@every_coder
@pytest.mark.parametrize("columns", [0, 1, 2, 40])
def test_dynamic_columns_come_in_one_call_or_several(coder: Coder, columns: int) -> None:
    rng, lanes = np.random.default_rng(13), 3 if coder.many else 1
    checksums = np.full(lanes, 0xDEADBEEF)
    for _ in range(4):
        cumulative, symbols = own_frequencies(rng, lanes, columns)
        streams = []
        for cuts in ([], [1], range(columns)):
            encoder = coder.encoder(lanes)
            for part in np.split(np.arange(columns), cuts):
                encoder.put_dynamic(cumulative[:, part], symbols[:, part])
            streams.append(encoder.finish(checksums))
        assert streams[0] == streams[1] == streams[2]
        decoder = coder.decoder(streams[0])
        found = [decoder.take_dynamic(cumulative[:, part]) for part in (slice(1), slice(1, None))]
        decoder.finish(checksums)
        assert np.array_equal(np.concatenate(found, axis=1), symbols)
        assert found[0].dtype == found[1].dtype == np.int32


def test_information_content_counts_escapes() -> None:
    bits = information_content(TINY, np.array([[0, 1, -1, 0, 0]]), np.array([[0, 7, 0, 2, 1000]]))
    e = 2 * (1000 - 1 - 1)  # 11 bits, hence 4 nibbles
    assert e.bit_length() == 11
    escape = 16 - np.log2(536)
    expected = 16 - np.log2(20000) + 16 - np.log2(65535) + (escape + 4) + (escape + 4 * 4)
    assert bits == pytest.approx(expected, abs=1e-9)


@every_coder
def test_damaged_streams_are_refused(coder: Coder) -> None:
    rng = np.random.default_rng(7)
    model = tables(rng, rows=30)
    tried = 0
    for columns in (0, 4, 24):
        message = mixed(rng, model, 1, columns)
        (stream,) = message.encoded(coder)
        for bad in damaged_streams(rng, stream, 250):
            tried += 1
            with pytest.raises(CodecError, match="get both again"):
                message.decoded(coder, [bad])
    assert tried > 1500


@every_coder
def test_another_checksum_is_refused(coder: Coder) -> None:
    encoder = coder.encoder(1)
    encoder.put(TINY, np.zeros((1, 4), int), np.zeros((1, 4), int))
    streams = encoder.finish(np.array([0xDEADBEEF]))
    for checksum, right in ((0xDEADBEEF, True), (0xDEADBEEE, False), (0xDEAD3EEF, False), (0, False)):
        decoder = coder.decoder(streams)
        decoder.take(TINY, np.zeros((1, 4), int))
        if right:
            decoder.finish(np.array([checksum], np.uint32))
        else:
            with pytest.raises(CodecError, match="checksum"):
                decoder.finish(np.array([checksum], np.uint32))


@every_coder
@pytest.mark.parametrize("count", [3, 5])
def test_taking_too_few_or_too_many_is_refused(coder: Coder, count: int) -> None:
    encoder = coder.encoder(1)
    encoder.put(TINY, np.zeros((1, 4), int), np.zeros((1, 4), int))
    decoder = coder.decoder(encoder.finish(np.array([0xDEADBEEF])))
    decoder.take(TINY, np.zeros((1, count), int))
    with pytest.raises(CodecError):
        decoder.finish(np.array([0xDEADBEEF]))


@every_coder
def test_endless_and_excessive_escapes_are_refused(coder: Coder) -> None:
    """An escape of symbol 1, then nibbles that always continue, or that give a number above 2^32."""
    model = FrequencyTables.of([np.array([1, 65535])], [0])
    nibbles = np.arange(0, 65537, 4096)[None, None]
    for digits, problem in (([15] * 14, "11 nibbles"), ([15] * 10 + [7], "int32")):
        encoder = coder.encoder(1)
        encoder.put_dynamic(np.array([[[0, 1, 65536]]]), np.array([[1]]))
        encoder.put_dynamic(np.repeat(nibbles, len(digits), axis=1), np.array([digits]))
        decoder = coder.decoder(encoder.finish(np.array([1])))
        with pytest.raises(CodecError, match=problem):
            decoder.take(model, np.zeros((1, 1), int))


def test_frequencies_sum_up_and_are_positive_and_in_proportion() -> None:
    rng = np.random.default_rng(9)
    for size, shape in ((1, 1), (2, 0.01), (30, 0.05), (30, 100), (5000, 0.01), (65536, 1)):
        weights = rng.dirichlet(np.full(size, shape), 5) * 10.0 ** rng.integers(-200, 200, (5, 1))
        found = frequencies_from(weights)
        assert found.dtype == np.int64
        assert (found.sum(axis=1) == 65536).all()
        assert found.min() >= 1
        order = np.argsort(weights, axis=1, kind="stable")
        assert (np.diff(np.take_along_axis(found, order, axis=1), axis=1) >= 0).all()
    weights = rng.dirichlet(np.full(30, 100), 50)
    assert np.abs(frequencies_from(weights) - 65536 * weights).max() < 1
    exact = np.array([[1, 5, 65530], [20000, 20000, 25536]])
    assert np.array_equal(frequencies_from(exact / 7), exact)
    assert frequencies_from(np.array([[1, 1, 1]])).tolist() == [[21846, 21845, 21845]]
    assert frequencies_from(np.array([[0, 0, 3]])).tolist() == [[1, 1, 65534]]


@pytest.mark.parametrize("weights", [[[0.0, 0.0]], [[1.0, -1.0]], [[np.nan, 1.0]], [[np.inf, 1.0]], [[]]])
def test_weights_that_are_none_are_refused(weights: list[list[float]]) -> None:
    with pytest.raises(CodecError, match="weights"):
        frequencies_from(np.array(weights))


@pytest.mark.parametrize(
    ("starts", "cumulative", "first", "problem"),
    [
        ([0, 3], [0, 5, 65535], [0], "row 0"),
        ([0, 3], [1, 5, 65536], [0], "row 0"),
        ([0, 3, 7], [0, 5, 65536, 0, 7, 7, 65536], [0, 0], "row 1"),
        ([0, 3, 7], [0, 5, 65536, 0, 7, -7, 65536], [0, 0], "row 1"),
        ([0, 3, 8], [0, 5, 65536, 0, 2**62, -(2**63), -1, 65536], [0, 0], "row 1"),
        ([0, 2], [0, 65536], [0], "two symbols"),
        ([0, 3], [0, 5, 65536], [0, 0], "two symbols"),
        ([0, 2, 3], [0, 5, 65536], [0, 0], "two symbols"),
        ([1, 3], [0, 5, 65536], [0], "two symbols"),
        ([0, 2**62, -(2**63), -1, 3], [0, 5, 65536], [0, 0, 0, 0], "two symbols"),
        ([], [], [], "vector"),
        ([0.0, 3.0], [0, 5, 65536], [0], "vector"),
        ([[0, 3]], [0, 5, 65536], [0], "vector"),
        ([0, 3], [0, 5, 65536], [2**31], "vector"),
        ([0, 4], [0, 5, 6, 65536], [2**31 - 1], "above 2147483647"),
    ],
)
def test_tables_of_another_form_are_refused(starts: list, cumulative: list, first: list, problem: str) -> None:
    with pytest.raises(CodecError, match=problem):
        FrequencyTables(np.array(starts), np.array(cumulative), np.array(first))


def test_the_largest_value_of_a_row_may_be_that_of_int32() -> None:
    model = FrequencyTables.of([np.array([5, 65531])], [INT32.max])
    assert model.escaped(np.array([0]), np.array([1]), np.array([0])).tolist() == [INT32.max - 1]
    with pytest.raises(CodecError, match="stream 3 "):
        model.escaped(np.array([0]), np.array([0]), np.array([3]))


def test_a_search_finds_the_symbol_of_every_slot() -> None:
    model = tables(np.random.default_rng(10), rows=7, most=80)
    slots = np.arange(65536)
    for row in range(7):
        begin, end = model.starts[row], model.starts[row + 1]
        expected = begin + np.searchsorted(model.cumulative[begin:end], slots, "right") - 1
        assert np.array_equal(model.find(np.full(65536, row), slots), expected)
        depth = int(model.entries.depths[row])
        assert np.array_equal(model.find(np.full(65536, row), slots, depth=depth), expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lanes", ["f072c07ca0019c3041fe", "8b3d09"]),
        ("integer", ["175f5f4e6cb0b83e49c9"]),
        ("range", ["8d3bf9827f21ee39e95f31"]),
    ],
)
def test_golden_streams(name: str, expected: list[str]) -> None:
    """The format: a change here makes files unreadable."""
    lanes = len(expected)
    rows = np.array([[0, 0, 1, 0, 0, 1, 0, 0, -1, 0, 0, 0]] * lanes)
    values = np.array([[-1, 0, 7, 1, -1, 5, 900, -1, 0, 0, -1, 1]] * lanes)
    rows[1:, 3:] = -1
    values[1:, 3:] = 0
    dynamic = np.array([[[0, 1000, 1000, 65536]]] * lanes), np.array([[2]] * lanes)
    message = Message(lanes, [(TINY, rows, values), dynamic])
    assert [stream.hex() for stream in message.encoded(CODERS[name])] == expected
    assert message.agrees(message.decoded(CODERS[name], [bytes.fromhex(stream) for stream in expected]))


def test_torch_stays_out() -> None:
    code = "import sys; from smalti.codec import entropy, range_coder, rans; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
