"""Evaluation records: round trip, stable file format, and rejection of invalid files."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.errors import DataError, OutputError
from smalti.metrics.metric import MetricValue
from smalti.report import record
from smalti.report.record import Evaluation

GOLDEN = Path(__file__).with_name("golden_evaluation.json")
EXTRACTOR = {
    "name": "efficientnet-lite0",
    "digest": "ab" * 32,
    "dimension": 1280,
    "size": [128, 128],
    "precision": "float32",
}


def evaluation(**changes: Any) -> Evaluation:
    """A record with every field in use."""
    fields: dict[str, Any] = {
        "form": "generator",
        "subject": {"path": "runs/cats", "digest": "cd" * 32, "count": 10000, "seed": 0},
        "reference": {"source": "cifar10", "split": "test", "fingerprint": "ef" * 32, "count": 10000},
        "protocol": record.protocol_of(
            extractor=EXTRACTOR, reference_fingerprint="ef" * 32, reference_count=10000, judged_count=10000,
            neighbours=5, seed=None,
        ),
        "figures": (
            MetricValue("frechet_distance", 12.345678, 11.9, 12.8, 10000, "lower", note="biased upwards by about 0.4"),
            MetricValue("kernel_distance", 0.00123456, 0.0010, 0.0015, 10000, "lower"),
            MetricValue("psnr_db", math.inf, None, None, 10, "higher", "dB"),
            MetricValue("copied_share", math.nan, None, None, 0, "lower"),
        ),
        "classes": (
            {"name": "кошка 🐈", "precision": 0.75, "recall": 0.5, "f1": 0.6, "count": 1000},
            {"name": "dog", "precision": math.nan, "recall": 0.0, "f1": 0.0, "count": 0},
        ),
        "warnings": ("fewer images than features",),
        "version": "0.2.0",
        "date": "2026-01-31T12:00:00+00:00",
        "command": ("smalti", "evaluate", "generator", "runs/cats"),
        "machine": "torch 2.6.0, cpu",
    }  # fmt: skip
    return Evaluation(**fields | changes)


def same(a: Evaluation, b: Evaluation) -> bool:
    return repr(a) == repr(b)  # NaN != NaN, but their repr is equal


def changed(path: Path, **changes: Any) -> Path:
    """The golden record with some keys replaced; `...` leaves a key out."""
    plain = json.loads(GOLDEN.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in plain.items() if value is not ...}))
    return path


# The format


def test_the_format_stays(tmp_path: Path) -> None:
    record.write(tmp_path / "now.json", evaluation())
    assert (tmp_path / "now.json").read_bytes() == GOLDEN.read_bytes()
    assert same(record.read(GOLDEN), evaluation())


def test_what_is_written_comes_back_and_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.write(path, evaluation())
    again = record.read(path)
    assert same(again, evaluation())
    record.write(tmp_path / "again.json", again)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    plain = json.loads(path.read_text(), parse_constant=refuse)
    assert [figure["value"] for figure in plain["figures"][2:]] == ["inf", "nan"]
    assert plain["classes"][1]["precision"] == "nan"


@settings(max_examples=40, deadline=None)
@given(
    value=st.floats() | st.integers(-(10**12), 10**12),
    ends=st.none() | st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)).map(sorted),
    count=st.integers(0, 2**62),
    note=st.text(),
    table=st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(), max_size=4),
)
def test_any_figure_and_table_come_back(
    value: float, ends: list[float] | None, count: int, note: str, table: dict[str, Any], tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("record") / "record.json"
    low, high = ends or (None, None)
    made = evaluation(figures=(MetricValue("ssim", value, low, high, count, note=note),), subject=table)
    record.write(path, made)
    assert same(record.read(path), made)


def test_numpy_paths_and_tuples_become_plain(tmp_path: Path) -> None:
    made = evaluation(
        subject={"path": Path("a/b"), "count": np.int64(3), "shape": (3, np.float32(0.5)), "flag": True},
        figures=(MetricValue("psnr_db", np.float32(1.5), np.float64(1), np.float64(2), np.int64(4)),),
    )
    assert made.subject == {"path": "a/b", "count": 3, "shape": [3, 0.5], "flag": True}
    record.write(tmp_path / "r.json", made)
    assert same(record.read(tmp_path / "r.json"), made)


def test_a_figure_is_found_by_its_name() -> None:
    found = evaluation().figure("psnr_db")
    assert found is not None
    assert found.unit == "dB"
    assert evaluation().figure("nothing") is None


def test_a_protocol_names_the_metrics_and_leaves_out_what_is_not_set() -> None:
    protocol = record.protocol_of(
        extractor=None, reference_fingerprint="", reference_count=0, judged_count=5, neighbours=None, seed=3
    )
    assert protocol == {
        "metrics": record.METRICS,
        "reference_fingerprint": "",
        "reference_count": 0,
        "judged_count": 5,
        "seed": 3,
    }


# Invalid records


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "poem"}, "form is 'poem', expected one of generator, folder"),
        ({"subject": [1]}, "subject must be a table, found a list of 1"),
        ({"protocol": {"a": {"b": object()}}}, "protocol.a.b is <object"),
        ({"protocol": {"a": math.nan}}, "protocol.a is nan; expected text, finite numbers"),
        ({"protocol": {1: 2}}, "protocol has a key that is no text"),
        ({"warnings": "one"}, "warnings must be a list of texts"),
        ({"command": (1,)}, "command: 1 is no text"),
        ({"version": 2}, "version: 2 is no text"),
        ({"date": "yesterday"}, "date is 'yesterday', expected one in UTC"),
        ({"date": "2026-01-31T12:00:00"}, "expected one in UTC"),
        ({"date": "2026-01-31T12:00:00+02:00"}, "expected one in UTC"),
        ({"figures": (MetricValue("FD", 1, None, None, 1),)}, "lower-case letters"),
        ({"figures": (MetricValue("fd", 1, None, None, 1),) * 2}, "'fd' twice"),
        ({"figures": (MetricValue("fd", 1, 0.5, None, 1),)}, "one end of an interval"),
        ({"figures": (MetricValue("fd", 1, 2, 1, 1),)}, "from 2 down to 1"),
        ({"figures": (MetricValue("fd", "1", None, None, 1),)}, "'1' is no number"),
        ({"figures": (MetricValue("fd", True, None, None, 1),)}, "True is no number"),
        ({"figures": (MetricValue("fd", 10**400, None, None, 1),)}, "too large"),
        ({"figures": (MetricValue("fd", 1, None, None, -1),)}, "count is -1, expected a whole number"),
        ({"figures": (MetricValue("fd", 1, None, None, 1.5),)}, "count is 1.5"),
        ({"figures": (MetricValue("fd", 1, None, None, 1, better="bigger"),)}, "expected lower, higher or nothing"),
        ({"figures": (MetricValue("fd", 1, None, None, 1, unit=None),)}, "None is no text"),
        ({"classes": ({"name": "a"},)}, "must hold name, precision"),
        ({"classes": ({"name": "a", "precision": 2.0, "recall": 0, "f1": 0, "count": 1},)}, r"lie in \[0, 1\]"),
        ({"classes": (3,)}, r"classes\[0\] must hold"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        evaluation(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"has the evaluation format 2, but smalti .* reads format 1; .*\(smalti '0.2.0'\)"),
        ({"format": True}, "evaluation format True"),
        ({"format": ...}, "is not an evaluation"),
        ({"figures": ...}, "is not an evaluation"),
        ({"date": ...}, "lacks 'date'"),
        ({"colour": "red"}, "holds the unknown key 'colour'"),
        ({"figures": {}}, "figures must be a list"),
        ({"figures": [1]}, r"figures\[0\] must hold name, value"),
        ({"figures": [{"name": "fd"}]}, r"figures\[0\] must hold name, value"),
        ({"classes": None}, "classes must be a list"),
        ({"classes": [[]]}, r"classes\[0\] must be a table"),
        ({"form": ["generator"]}, "form is a list of 1"),
        ({"protocol": json.loads("[" * 200 + "]" * 200)}, "protocol must be a table"),
        ({"protocol": {"a": json.loads("[" * 200 + "]" * 200)}}, "nested deeper than 12"),
    ],
)
def test_a_changed_file_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        record.read(changed(tmp_path / "changed.json", **changes))
    assert "\n" not in str(caught.value)
    assert "changed.json" in str(caught.value)


def figure_with(**changes: Any) -> dict[str, Any]:
    return dataclasses.asdict(MetricValue("fd", 1.0, None, None, 1)) | changes


@pytest.mark.parametrize(
    "figure",
    [figure_with(value="many"), figure_with(value=None), figure_with(value=[1]), figure_with(low="inf"),
     figure_with(name=7), figure_with(count="1"), figure_with(count=1e300), figure_with(note={}),
     figure_with(low=2, high="-inf")],
)  # fmt: skip
def test_a_figure_of_wrong_types_is_refused(tmp_path: Path, figure: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="is no evaluation that smalti wrote"):
        record.read(changed(tmp_path / "changed.json", figures=[figure]))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"3", b'{"format": 1}', b"\xff\xfe\x00", b'{"a": NaN}', b'{"a": 1, "a": 2}',
     b"[" * 100_000, b'{"format": 1, "figures": ' + b"9" * 5000 + b"}", b"\x89PNG\r\n\x1a\n"],
)  # fmt: skip
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "what.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"what\.json") as caught:
        record.read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    whole = GOLDEN.read_bytes()
    for length in range(0, len(whole) - 2, 97):
        (tmp_path / "cut.json").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.json"):
            record.read(tmp_path / "cut.json")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: uses no disk space
    with pytest.raises(DataError, match="larger than 8 MiB"):
        record.read(path)


def test_files_that_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        record.read(tmp_path / "absent.json")
    with pytest.raises(DataError, match="Is a directory"):
        record.read(tmp_path)
    with pytest.raises(OutputError):
        record.write(tmp_path / "absent" / "record.json", evaluation())


# As text


def test_the_table_shows_as_many_digits_as_the_interval_supports() -> None:
    header, rows = record.table(evaluation())
    assert header == ("figure", "value", "95 % interval", "N", "better")
    assert rows == [
        ("FD (efficientnet-lite0, 128 px)", "12.35", "11.90 to 12.80", "10,000", "lower"),
        ("KID", "0.00123", "0.00100 to 0.00150", "10,000", "lower"),
        ("PSNR", "inf dB", "", "10", "higher"),
        ("copied share", "nan", "", "0", "lower"),
    ]


@pytest.mark.parametrize(
    ("extractor", "expected"),
    [
        ({"name": "inception", "size": [299, 299], "precision": "float32"}, "FID"),
        (
            {"name": "inception", "size": [299, 299], "precision": "bfloat16 autocast, features as float32"},
            "FD (inception, 299 px, bfloat16)",
        ),
        ({"name": "inception", "size": [128, 128]}, "FD (inception, 128 px)"),
        ({"name": "dinov2", "size": [224, 224]}, "FD (dinov2, 224 px)"),
        ({"name": "smalti-vit", "size": [32, 48]}, "FD (smalti-vit, 32x48 px)"),
        ({"name": "dinov2"}, "FD (dinov2)"),
    ],
)
def test_only_inception_gives_a_fid(extractor: dict[str, Any], expected: str) -> None:
    made = evaluation(protocol={"extractor": extractor})
    assert record.title("frechet_distance", made) == expected
    assert record.title("frechet_distance_infinity", made) == expected + ", extrapolated to infinite N"
    assert record.title("precision", made) == "precision"
