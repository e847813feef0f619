"""The difference of two evaluations, or why there is none.

    d    = b - a
    low  = d - sqrt((a.high - a.value)^2 + (b.value - b.low)^2)
    high = d + sqrt((a.value - a.low)^2 + (b.high - b.value)^2)

the interval of a difference of independent estimates whose own intervals may be lopsided (Zou and Donner 2008,
Statistics in Medicine 27:1693). Both were held against the same reference images, whose luck moves both figures the
same way and is counted twice here: the interval is wider than it need be, so a difference that it shows is there.
Figures are compared only when the whole protocols are equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smalti.errors import ConfigError
from smalti.metrics.bootstrap import LEVEL
from smalti.metrics.metric import MetricValue
from smalti.report.record import UNITS, Evaluation, decimals, span, title, written

NO_DIFFERENCE = "no difference that N can show"
_PARTS_AT_MOST = 6  # of a refusal; the rest is counted
# Samples are samples, whether a model or a folder gave them.
_KIN = {"generator": "samples", "folder": "samples"}


@dataclass(frozen=True)
class Difference:
    """One figure of two evaluations.

    Attributes:
        a, b: the figure in each.
        value: b - a; NaN where it has none, as between two infinities.
        low, high: ends of its interval, both None where a figure has none.
        verdict: on b: "better", "worse", "higher" or "lower" (where neither end is good), "equal",
            "no difference that N can show", or "" where there is no interval to judge by.
    """

    a: MetricValue
    b: MetricValue
    value: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """What two evaluations have in common.

    Attributes:
        a, b: the evaluations.
        differences: of every figure in both, in the order of a.
        only_a, only_b: names of figures that one of them lacks.
        warnings: plain sentences.
    """

    a: Evaluation
    b: Evaluation
    differences: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    warnings: tuple[str, ...]

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Header and rows as text: the figure in a and b, the difference, its interval and the verdict on b."""
        header = ("figure", "A", "B", "B - A", f"{LEVEL * 100:g} % interval", "verdict on B")
        rows: list[tuple[str, ...]] = []
        for difference in self.differences:
            a, b = difference.a, difference.b
            digits = max(decimals(a.value, a.low, a.high), decimals(b.value, b.low, b.high))
            unit = f" {UNITS.get(a.unit, a.unit)}" if a.unit else ""
            rows.append(
                (
                    title(a.name, self.a),
                    written(a.value, digits) + unit,
                    written(b.value, digits) + unit,
                    written(difference.value, digits, sign=True) + unit,
                    span(difference.low, difference.high, digits, sign=True),
                    difference.verdict,
                )
            )
        return header, rows

    def remarks(self) -> tuple[str, ...]:
        """The warnings, and which figures stand alone, one sentence each."""
        alone = [
            f"only {name} has {', '.join(title(figure, evaluation) for figure in figures)}"
            for name, figures, evaluation in (("A", self.only_a, self.a), ("B", self.only_b, self.b))
            if figures
        ]
        return (*self.warnings, *alone)


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """The difference b - a of every figure that both have.

    Raises:
        ConfigError: they were measured differently; it says in what, on one line.
    """
    parts = unlike(a, b)
    if parts:
        more = f"; and {len(parts) - _PARTS_AT_MOST} more" if len(parts) > _PARTS_AT_MOST else ""
        raise ConfigError(
            f"these cannot be compared: {'; '.join(parts[:_PARTS_AT_MOST])}{more}; measure both the same way"
        )
    others = {figure.name: figure for figure in b.figures}
    differences = tuple(_difference(figure, others[figure.name]) for figure in a.figures if figure.name in others)
    compared = {difference.a.name for difference in differences}
    warnings = []
    if a.version != b.version:
        warnings.append(
            f"measured with smalti {a.version} and {b.version}; both define the figures alike, rounding may differ"
        )
    if not compared:
        warnings.append("they have no figure in common")
    return Comparison(
        a,
        b,
        differences,
        tuple(figure.name for figure in a.figures if figure.name not in compared),
        tuple(figure.name for figure in b.figures if figure.name not in compared),
        tuple(warnings),
    )


def unlike(a: Evaluation, b: Evaluation) -> list[str]:
    """What differs between two protocols, a part of a sentence each; empty when the figures may be compared."""
    parts = []
    if _KIN.get(a.form, a.form) != _KIN.get(b.form, b.form):
        parts.append(f"an evaluation of form {a.form} against one of form {b.form}")
    first, second = dict(a.protocol), dict(b.protocol)
    networks = first.get("extractor"), second.get("extractor")
    names = [network.get("name") if isinstance(network, Mapping) else None for network in networks]
    if names[0] != names[1]:
        # Everything else about two networks differs as well and would say nothing more.
        parts.append(
            f"extractor {_network(first.pop('extractor', None))} against {_network(second.pop('extractor', None))}"
        )
    left, right = _flat(first), _flat(second)
    for key in [*left, *(key for key in right if key not in left)]:
        if key not in left or key not in right or not _equal(left[key], right[key]):
            parts.append(f"{key} {_short(left, key)} against {_short(right, key)}")
    return parts


def _difference(a: MetricValue, b: MetricValue) -> Difference:
    value = b.value - a.value
    if a.low is None or a.high is None or b.low is None or b.high is None or not math.isfinite(value):
        return Difference(a, b, value, None, None, "equal" if a.value == b.value else "")
    # A bootstrap interval may lie wholly to one side of its estimate; an arm is then 0, never negative.
    low = value - math.hypot(max(a.high - a.value, 0.0), max(b.value - b.low, 0.0))
    high = value + math.hypot(max(a.value - a.low, 0.0), max(b.high - b.value, 0.0))
    return Difference(a, b, value, low, high, _verdict(low, high, a.better))


def _verdict(low: float, high: float, better: str) -> str:
    if not (low > 0 or high < 0):
        return NO_DIFFERENCE
    way = "higher" if low > 0 else "lower"
    if not better:
        return way
    return "better" if way == better else "worse"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value by its dotted path."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _equal(a: Any, b: Any) -> bool:
    # 1 and True are equal to Python, and are not the same setting.
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _network(extractor: Any) -> str:
    if not isinstance(extractor, Mapping):
        return "none"
    return f"{_word(extractor.get('name'))} (digest {_word(extractor.get('digest', 'unknown'))})"


def _short(table: Mapping[str, Any], key: str) -> str:
    return _word(table[key]) if key in table else "none"


def _word(value: Any) -> str:
    """A setting in a few characters; of a digest, as many as tell it from others."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if len(text) >= 32 and all(character in "0123456789abcdef" for character in text):
        return text[:12] + "..."
    return text if len(text) <= 48 else text[:45] + "..."
