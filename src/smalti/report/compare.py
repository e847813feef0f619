"""Comparison of two evaluations: differences with confidence intervals, or the reason why they are not comparable.

    d    = b - a
    low  = d - sqrt((a.high - a.value)^2 + (b.value - b.low)^2)
    high = d + sqrt((a.value - a.low)^2 + (b.high - b.value)^2)

the confidence interval of a difference of independent estimates with asymmetric intervals (Zou and Donner 2008,
Statistics in Medicine 27:1693). Both evaluations use the same reference images, whose sampling error affects both
values in the same direction but is counted twice here, so the interval is conservative.
Metric values are compared only if the protocols are equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smalti.errors import ConfigError
from smalti.metrics.bootstrap import LEVEL
from smalti.metrics.metric import MetricValue
from smalti.report.formatting import decimal_places, format_interval, format_number, format_unit
from smalti.report.record import Evaluation, title

NO_DIFFERENCE = "no difference that N can show"
_PARTS_AT_MOST = 6  # reasons listed in an error message; the rest is counted
# Generated images are comparable whether they come from a model or from a folder.
_KINDS = {"generator": "samples", "folder": "samples"}


@dataclass(frozen=True)
class Difference:
    """The difference between two evaluations in one metric.

    Attributes:
        a, b: the metric value in each evaluation.
        value: b - a; NaN if it is undefined, as between two infinities.
        low, high: ends of its confidence interval; both None if either value has none.
        verdict: verdict on b: "better", "worse", "higher" or "lower" (if neither direction is better), "equal",
            "no difference that N can show" (not significant), or "" without an interval.
    """

    a: MetricValue
    b: MetricValue
    value: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """The comparison of two evaluations.

    Attributes:
        a, b: the evaluations.
        differences: differences in all metrics that both contain, in the order of a.
        only_a, only_b: names of the metrics that only one of them contains.
        warnings: caveats, one sentence each.
    """

    a: Evaluation
    b: Evaluation
    differences: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    warnings: tuple[str, ...]

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Header and rows as text: the metric in a and b, the difference, its confidence interval and the verdict."""
        header = ("figure", "A", "B", "B - A", f"{LEVEL * 100:g} % interval", "verdict on B")
        rows: list[tuple[str, ...]] = []
        for difference in self.differences:
            a, b = difference.a, difference.b
            digits = max(decimal_places(a.value, a.low, a.high), decimal_places(b.value, b.low, b.high))
            unit = format_unit(a.unit)
            rows.append(
                (
                    title(a.name, self.a),
                    format_number(a.value, digits) + unit,
                    format_number(b.value, digits) + unit,
                    format_number(difference.value, digits, sign=True) + unit,
                    format_interval(difference.low, difference.high, digits, sign=True),
                    difference.verdict,
                )
            )
        return header, rows

    def remarks(self) -> tuple[str, ...]:
        """The warnings, and the metrics that only one evaluation contains, one sentence each."""
        alone = [
            f"only {name} has {', '.join(title(figure, evaluation) for figure in figures)}"
            for name, figures, evaluation in (("A", self.only_a, self.a), ("B", self.only_b, self.b))
            if figures
        ]
        return (*self.warnings, *alone)


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """Compare two evaluations by the differences b - a of all metrics that both contain.

    Raises:
        ConfigError: the protocols differ; the message lists the differences.
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
    """The differences between two protocols, one phrase each; empty if the evaluations are comparable."""
    parts = []
    if _KINDS.get(a.form, a.form) != _KINDS.get(b.form, b.form):
        parts.append(f"an evaluation of form {a.form} against one of form {b.form}")
    first, second = dict(a.protocol), dict(b.protocol)
    networks = first.get("extractor"), second.get("extractor")
    names = [network.get("name") if isinstance(network, Mapping) else None for network in networks]
    if names[0] != names[1]:
        # All other settings of two different networks differ as well and would add nothing.
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
    # A bootstrap interval may lie entirely on one side of its estimate; the distance to that end is then 0.
    low = value - math.hypot(max(a.high - a.value, 0.0), max(b.value - b.low, 0.0))
    high = value + math.hypot(max(a.value - a.low, 0.0), max(b.high - b.value, 0.0))
    return Difference(a, b, value, low, high, _verdict(low, high, a.better))


def _verdict(low: float, high: float, better: str) -> str:
    if not (low > 0 or high < 0):
        return NO_DIFFERENCE
    direction = "higher" if low > 0 else "lower"
    if not better:
        return direction
    return "better" if direction == better else "worse"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All values of nested tables, by dotted path."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _equal(a: Any, b: Any) -> bool:
    # 1 == True in Python, but they are different settings.
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _network(extractor: Any) -> str:
    if not isinstance(extractor, Mapping):
        return "none"
    return f"{_word(extractor.get('name'))} (digest {_word(extractor.get('digest', 'unknown'))})"


def _short(table: Mapping[str, Any], key: str) -> str:
    return _word(table[key]) if key in table else "none"


def _word(value: Any) -> str:
    """A setting as short text; digests are abbreviated."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if len(text) >= 32 and all(character in "0123456789abcdef" for character in text):
        return text[:12] + "..."
    return text if len(text) <= 48 else text[:45] + "..."
