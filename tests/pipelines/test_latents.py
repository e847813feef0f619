"""Latents: the way between two of them, and files that hold one, honest and hostile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smalti.errors import DataError, OutputError
from smalti.pipelines import latents
from smalti.pipelines.latents import Latent, mixtures, sample_latents, slerp, walk

MODEL, OTHER = "a" * 64, "b" * 64
SHARES = st.floats(0, 1)
VECTORS = arrays(np.float32, 5, elements=st.floats(-4, 4, width=32))


UNIT_VECTORS = VECTORS.filter(lambda vector: np.linalg.norm(vector) > 0.1).map(lambda vector: unit(vector))


def unit(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector.astype(np.float64))).astype(np.float32)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """By the half chord, which is exact for near vectors too."""
    x, y = (v.astype(np.float64) / np.linalg.norm(v.astype(np.float64)) for v in (a, b))
    return float(2 * np.arctan2(np.linalg.norm(x - y), np.linalg.norm(x + y)))


# The way between two


@given(UNIT_VECTORS, UNIT_VECTORS, SHARES)
def test_between_unit_vectors_every_point_has_unit_length(a: np.ndarray, b: np.ndarray, share: float) -> None:
    assume(angle(a, b) < 3)  # past it, the rounding of a and b themselves is seen
    assert np.linalg.norm(slerp(a, b, share)) == pytest.approx(1, abs=2e-6)


@given(UNIT_VECTORS, UNIT_VECTORS, SHARES)
def test_the_angle_grows_evenly(a: np.ndarray, b: np.ndarray, share: float) -> None:
    assume(angle(a, b) < 3)
    assert angle(a, slerp(a, b, share)) == pytest.approx(share * angle(a, b), abs=1e-5)


@given(VECTORS, VECTORS)
def test_the_ends_are_the_points_to_the_last_bit(a: np.ndarray, b: np.ndarray) -> None:
    assert np.array_equal(slerp(a, b, 0.0), a)
    assert np.array_equal(slerp(a, b, 1.0), b)


@given(VECTORS, VECTORS, SHARES)
def test_the_way_back_is_the_same_way(a: np.ndarray, b: np.ndarray, share: float) -> None:
    np.testing.assert_allclose(slerp(a, b, share), slerp(b, a, 1 - share), atol=1e-3)


def test_a_quarter_turn_by_hand() -> None:
    x, y = np.eye(2, dtype=np.float32)
    np.testing.assert_allclose(slerp(x, y, 1 / 3), [np.sqrt(0.75), 0.5], atol=1e-7)
    np.testing.assert_allclose(slerp(2 * x, y, 0.5), [np.sqrt(2), np.sqrt(0.5)], atol=1e-6)


@given(UNIT_VECTORS, st.just(0.0) | st.floats(0.01, 3) | st.floats(-3, -0.01), SHARES)
def test_vectors_on_one_line_are_joined_by_that_line(a: np.ndarray, factor: float, share: float) -> None:
    b = (np.float32(factor) * a).astype(np.float32)
    expected = (1 - share) * a.astype(np.float64) + share * b
    assert np.array_equal(slerp(a, b, 1.0), b)
    np.testing.assert_allclose(slerp(a, b, share), expected, atol=1e-6)


def test_opposite_points_meet_in_the_middle_and_zero_is_no_trouble() -> None:
    a, zero = np.array([3, 4], np.float32), np.zeros(2, np.float32)
    assert slerp(a, -a, 0.5).tolist() == [0, 0]
    assert slerp(a, zero, 0.5).tolist() == [1.5, 2]
    assert slerp(zero, zero, 0.5).tolist() == [0, 0]


@given(UNIT_VECTORS, st.sampled_from([1e-30, 1e-6, 1e3, 1e30]))
def test_any_size_is_turned_the_same_way(a: np.ndarray, size: float) -> None:
    b = np.ones(5, np.float32)
    assume(0.1 < angle(a, b) < 3)
    expected = slerp(a, b, 0.3)
    found = slerp(a * np.float32(size), b * np.float32(size), 0.3)
    np.testing.assert_allclose(found / np.float32(size), expected, atol=1e-5)


@given(st.integers(2, 6), st.integers(0, 40))
def test_a_walk_passes_through_its_points(count: int, more: int) -> None:
    points = sample_latents(range(count), 7, seed=0)
    walked = walk(points, count + more)
    assert (walked.shape, walked.dtype) == ((count + more, 7), np.float32)
    places = [int(np.flatnonzero((walked == point).all(axis=1))[0]) for point in points]
    assert (places[0], places[-1]) == (0, count + more - 1)
    assert np.ptp(np.diff(places)) <= 1, "the legs are equally long, to within a frame"


def test_a_walk_is_evenly_spaced_on_each_leg() -> None:
    points = np.stack([unit(point) for point in sample_latents(range(3), 7, seed=0)])
    walked = walk(points, 11)
    for leg in range(2):
        turns = [angle(walked[5 * leg + step], walked[5 * leg + step + 1]) for step in range(5)]
        assert turns == pytest.approx([angle(points[leg], points[leg + 1]) / 5] * 5, rel=1e-4)


def test_a_walk_may_come_back_to_where_it_began() -> None:
    first, second = sample_latents(range(2), 4, seed=0)
    walked = walk(np.stack([first, second, first]), 5)
    np.testing.assert_allclose(walked, walked[::-1], atol=1e-6)
    assert np.array_equal(walk(np.stack([first, first]), 3), [first] * 3)


def test_a_table_of_mixtures_has_the_points_on_its_diagonal_and_is_symmetric() -> None:
    points = sample_latents(range(4), 5, seed=1)
    table = mixtures(points)
    assert (table.shape, table.dtype) == ((4, 4, 5), np.float32)
    assert np.array_equal(table[range(4), range(4)], points)
    assert np.array_equal(table, table.swapaxes(0, 1))
    assert np.array_equal(table[1, 3], slerp(points[1], points[3], 0.5))


# Drawn


@given(st.lists(st.integers(0, 10**18), max_size=8), st.integers(0, 10**30))
def test_a_row_depends_on_the_seed_and_its_number_alone(numbers: list[int], seed: int) -> None:
    rows = sample_latents(numbers, 3, seed)
    assert (rows.shape, rows.dtype) == ((len(numbers), 3), np.float32)
    for number, row in zip(numbers, rows, strict=True):
        assert np.array_equal(row, sample_latents([number], 3, seed)[0])


def test_rows_of_other_numbers_and_seeds_are_others() -> None:
    rows = np.concatenate([sample_latents(range(50), 4, seed) for seed in range(4)])
    assert len(np.unique(rows, axis=0)) == 200


def test_rows_are_normal() -> None:
    rows = sample_latents(range(400), 50, seed=3)
    assert rows.mean() == pytest.approx(0, abs=0.03)
    assert rows.std() == pytest.approx(1, abs=0.03)
    assert np.abs(np.corrcoef(rows[0:-1].ravel(), rows[1:].ravel())[0, 1]) < 0.03


# Files


@settings(max_examples=40)
@given(
    arrays(np.float32, st.integers(1, 6), elements=st.floats(-50, 50, width=32)),
    st.none() | st.text(st.characters(exclude_categories=()), max_size=6),
)
def test_a_file_gives_back_what_it_was_given(tmp_path: Path, values: np.ndarray, label: str | None) -> None:
    path = tmp_path / "a.latent.json"
    latents.write(path, Latent(values, label, MODEL), source="\udcff.png", psnr_db=20.5)
    found = latents.read(path, dimension=len(values), model=MODEL)
    assert np.array_equal(found.values, values)
    assert (found.values.dtype, found.label, found.model) == (np.float32, label, MODEL)


def test_a_file_says_for_people_where_it_comes_from(tmp_path: Path) -> None:
    latents.write(tmp_path / "a.json", Latent(np.ones(2, np.float32), "cat", MODEL), source="cat.png", steps=3)
    plain = json.loads((tmp_path / "a.json").read_text())
    assert (plain["kind"], plain["model"], plain["label"]) == ("smalti latent", MODEL, "cat")
    assert (plain["source"], plain["steps"], plain["values"]) == ("cat.png", 3, [1, 1])


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        latents.write(tmp_path / "none" / "a.json", Latent(np.ones(2, np.float32), None, MODEL))


def text(**changes: object) -> bytes:
    plain = {"kind": "smalti latent", "model": MODEL, "label": None, "values": [0.5, -1]} | changes
    return json.dumps({name: value for name, value in plain.items() if value != "left out"}).encode()


def nested(depth: int) -> object:
    found: object = 1
    for _ in range(depth):
        found = [found]
    return found


HOSTILE = {
    "empty": b"",
    "not JSON": b"a cat",
    "cut short": text()[:-1],
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "not UTF-8": b'{"kind": "\xff\xfe"}',
    "a list": b"[1, 2]",
    "a number": b"3",
    "null": b"null",
    "another kind": text(kind="smalti card"),
    "a kind that is a list": text(kind=["smalti latent"]),
    "no values": text(values="left out"),
    "no model": text(model="left out"),
    "no label": text(label="left out"),
    "NaN": text(values=[0.5, float("nan")]),
    "infinity": text(values=[0.5, -float("inf")]),
    "beyond float64": text().replace(b"0.5", b"1e999"),
    "beyond float32": text(values=[1e39, 0]),
    "where no latent is": text(values=[1e9, 0]),
    "a long integer": text(values=[10**400, 0]),
    "a longer integer": text().replace(b"0.5", b"1" * 5000),
    "words": text(values=["1.5", "2"]),
    "truths": text(values=[True, False]),
    "nulls": text(values=[None, None]),
    "one value": text(values=1.5),
    "a word for values": text(values="12"),
    "a table for values": text(values={"0": 1, "1": 2}),
    "rows": text(values=[[1, 2], [3, 4]]),
    "ragged rows": text(values=[[1], [3, 4]]),
    "values nested deeply": text(values=nested(300)),
    "nested too deeply to read": b"[" * 200_000,
    "tables nested too deeply to read": b'{"kind":' * 200_000,
    "a model nested deeply": text(model=nested(300)),
    "a model that is a number": text(model=3),
    "a label that is a number": text(label=3),
    "a label that is a list": text(label=["cat"]),
    "huge": text() + b" " * 5 * 2**20,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_latent_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.latent.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        latents.read(path, dimension=2, model=MODEL)
    assert str(caught.value) == f"{path} is no latent file; `smalti.GAN.invert` writes them"


def test_a_latent_of_another_model_names_both(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(text())
    with pytest.raises(DataError, match=f"the model {MODEL[:12]}, not of {OTHER[:12]}; invert the image"):
        latents.read(tmp_path / "a.json", dimension=2, model=OTHER)


@pytest.mark.parametrize("values", [[], [1], [1, 2, 3]])
def test_a_latent_of_another_length_names_both(tmp_path: Path, values: list[float]) -> None:
    (tmp_path / "a.json").write_bytes(text(values=values))
    with pytest.raises(DataError, match=f"holds {len(values)} values, but a latent of its model has 2"):
        latents.read(tmp_path / "a.json", dimension=2, model=MODEL)


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(DataError, match="cannot read"):
            latents.read(path, dimension=2, model=MODEL)
