"""`smalti evaluate compare`: the differences of two records."""

from __future__ import annotations

from pathlib import Path

from smalti.cli import console
from smalti.cli.apps import evaluate_app, examples


@evaluate_app.command(
    name="compare",
    help_epilogue=examples(
        "smalti evaluate compare monday.json tuesday.json",
    ),
)
def evaluate_compare(a: Path, b: Path, /) -> int:
    """Print the differences of two records with their intervals; refuses records that were measured differently.

    Parameters
    ----------
    a:
        A record from smalti evaluate.
    b:
        Another one.
    """
    from smalti.report import record
    from smalti.report.compare import compare

    comparison = compare(record.read(a), record.read(b))
    console.facts({"A": a, "B": b})
    console.say()
    console.table(*comparison.table())
    for remark in comparison.remarks():
        console.note(f"warning: {remark}")
    return 0
