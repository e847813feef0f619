"""Comparison of two evaluations: differences with confidence intervals, and evaluations that are not comparable."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from smalti.errors import ConfigError
from smalti.metrics.bootstrap import mean_interval
from smalti.metrics.metric import MetricValue
from smalti.report import record
from smalti.report.compare import NO_DIFFERENCE, compare, unlike
from smalti.report.record import Evaluation

LITE = {"name": "efficientnet-lite0", "digest": "ab12" * 16, "dimension": 1280, "size": [128, 128]}
INCEPTION = {"name": "inception", "digest": "cd34" * 16, "dimension": 2048, "size": [299, 299]}


def evaluation(
    *figures: MetricValue, form: str = "generator", extractor: Any = None, count: int = 10000, **changes: Any
) -> Evaluation:
    protocol = record.protocol_of(
        extractor=LITE if extractor is None else extractor, reference_fingerprint="ef" * 32,
        reference_count=10000, judged_count=count, **changes.pop("settings", {"neighbours": 5}),
    )  # fmt: skip
    return Evaluation(form, {}, {}, protocol, figures, date="2026-01-31T12:00:00+00:00", **changes)


def fd(value: float, low: float | None, high: float | None, better: str = "lower") -> MetricValue:
    return MetricValue("frechet_distance", value, low, high, 10000, better)


# Differences


def test_arms_of_both_intervals_are_added_in_quadrature() -> None:
    found = compare(evaluation(fd(10, 7, 14)), evaluation(fd(20, 17, 32))).differences[0]
    assert found.value == 10
    assert found.low == pytest.approx(10 - math.hypot(14 - 10, 20 - 17))
    assert found.high == pytest.approx(10 + math.hypot(10 - 7, 32 - 20))


def test_exchanging_the_two_mirrors_the_interval_and_the_verdict() -> None:
    a, b = evaluation(fd(10, 9, 12)), evaluation(fd(20, 17, 21))
    there, back = compare(a, b).differences[0], compare(b, a).differences[0]
    assert (there.value, there.low, there.high) == (-back.value, -back.high, -back.low)
    assert (there.verdict, back.verdict) == ("worse", "better")


@pytest.mark.parametrize(
    ("b", "better", "verdict"),
    [
        (fd(20, 19, 21), "lower", "worse"),
        (fd(1, 0, 2), "lower", "better"),
        (fd(20, 19, 21), "higher", "better"),
        (fd(1, 0, 2), "higher", "worse"),
        (fd(20, 19, 21), "", "higher"),
        (fd(1, 0, 2), "", "lower"),
        (fd(11, 10, 12), "lower", NO_DIFFERENCE),
        (fd(10, 9, 11), "lower", NO_DIFFERENCE),
        (fd(20, None, None), "lower", ""),
        (fd(10, None, None), "lower", "equal"),
        (fd(math.inf, 9, math.inf), "lower", ""),
        (fd(math.nan, 9, 11), "lower", ""),
    ],
)
def test_verdicts(b: MetricValue, better: str, verdict: str) -> None:
    a = dataclasses.replace(fd(10, 9, 11), better=better)
    assert compare(evaluation(a), evaluation(b)).differences[0].verdict == verdict


def test_two_infinities_are_equal_and_have_no_difference() -> None:
    psnr = MetricValue("psnr_db", math.inf, None, None, 5, "higher", "dB")
    found = compare(evaluation(psnr), evaluation(psnr)).differences[0]
    assert math.isnan(found.value)
    assert found.verdict == "equal"


def test_an_interval_beside_its_estimate_has_no_negative_arm() -> None:
    found = compare(evaluation(fd(10, 11, 13)), evaluation(fd(20, 20, 20))).differences[0]
    assert (found.low, found.high) == (pytest.approx(7), 10)


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    # Skewed samples of different spread, so that the intervals are asymmetric.
    generator = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        figures = []
        for scale in (1.0, 3.0):
            sample = generator.exponential(scale, 60)
            low, high = mean_interval(sample, seed=trial)
            figures.append(MetricValue("density", float(sample.mean()), low, high, 60, "higher"))
        found = compare(evaluation(figures[0]), evaluation(figures[1])).differences[0]
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 2.0 <= found.high
    assert 176 <= held <= 200


def test_figures_that_one_lacks_are_named() -> None:
    recall, coverage = MetricValue("recall", 0.5, None, None, 9), MetricValue("coverage", 0.5, None, None, 9)
    found = compare(evaluation(fd(1, 0, 2), recall), evaluation(coverage, fd(1, 0, 2)))
    assert [difference.a.name for difference in found.differences] == ["frechet_distance"]
    assert (found.only_a, found.only_b) == (("recall",), ("coverage",))
    assert found.remarks() == ("only A has recall", "only B has coverage")
    assert compare(evaluation(recall), evaluation(coverage)).warnings == ("they have no figure in common",)


def test_the_table() -> None:
    psnr = MetricValue("psnr_db", 24.5, None, None, 10, "higher", "dB")
    header, rows = compare(evaluation(fd(10, 9, 11), psnr), evaluation(fd(20.25, 19, 21), psnr)).table()
    assert header == ("figure", "A", "B", "B - A", "95 % interval", "verdict on B")
    assert rows == [
        ("FD (efficientnet-lite0, 128 px)", "10.0", "20.2", "+10.2", "+8.6 to +11.5", "worse"),
        ("PSNR", "24.50 dB", "24.50 dB", "0.00 dB", "", "equal"),
    ]


# What may be compared


def test_a_folder_of_samples_and_a_generator_may_be_compared() -> None:
    assert unlike(evaluation(form="folder"), evaluation(form="generator")) == []
    assert compare(evaluation(fd(1, 0, 2)), evaluation(fd(1, 0, 2))).warnings == ()


def test_another_version_is_allowed_with_a_warning() -> None:
    found = compare(evaluation(fd(1, 0, 2), version="0.2.0"), evaluation(fd(1, 0, 2), version="0.3.0"))
    assert found.differences[0].verdict == NO_DIFFERENCE
    assert "smalti 0.2.0 and 0.3.0" in found.warnings[0]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"extractor": INCEPTION},
         "extractor efficientnet-lite0 (digest ab12ab12ab12...) against inception (digest cd34cd34cd34...)"),
        ({"extractor": LITE | {"size": [96, 96]}}, "extractor.size [128, 128] against [96, 96]"),
        ({"extractor": LITE | {"digest": "0" * 64}}, "extractor.digest ab12ab12ab12... against 000000000000..."),
        ({"extractor": {}}, "extractor efficientnet-lite0 (digest ab12ab12ab12...) against None (digest unknown)"),
        ({"count": 5000}, "judged_count 10000 against 5000"),
        ({"settings": {}}, "neighbours 5 against none"),
        ({"settings": {"neighbours": 3, "seed": 1}}, "neighbours 5 against 3; seed none against 1"),
        ({"settings": {"neighbours": 5, "seed": True}}, "seed none against True"),
        ({"settings": {"neighbours": 5, "rule": "x" * 100}}, f"rule none against {'x' * 45}..."),
        ({"form": "autoencoder"}, "an evaluation of form generator against one of form autoencoder"),
        ({"count": 5000, "extractor": INCEPTION}, "(digest cd34cd34cd34...); judged_count 10000 against 5000"),
    ],
)  # fmt: skip
def test_unlike_protocols_are_refused_with_all_that_differs(other: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compare(evaluation(fd(1, 0, 2)), evaluation(fd(1, 0, 2), **other))
    message = str(caught.value)
    assert said in message
    assert message.startswith("these cannot be compared: ")
    assert message.endswith("; measure both the same way")
    assert "\n" not in message


def test_a_flag_is_not_a_number() -> None:
    assert unlike(evaluation(settings={"seed": True}), evaluation(settings={"seed": 1})) == ["seed True against 1"]


def test_one_without_features_against_one_with() -> None:
    bare = dataclasses.replace(evaluation(), protocol={"metrics": 1})
    assert "extractor efficientnet-lite0 (digest ab12ab12ab12...) against none" in unlike(evaluation(), bare)


def test_a_long_refusal_is_cut_and_counted() -> None:
    settings = {f"setting{i}": i for i in range(20)}
    with pytest.raises(ConfigError, match=r"setting5 none against 5; and 14 more; measure both the same way"):
        compare(evaluation(settings={}), evaluation(settings=settings))


def test_other_metrics_are_refused() -> None:
    newer = dataclasses.replace(evaluation(), protocol=dict(evaluation().protocol) | {"metrics": 2})
    assert unlike(evaluation(), newer) == ["metrics 1 against 2"]
