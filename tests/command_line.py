"""What a command line printed, and the form that every refusal has."""

from __future__ import annotations

from types import SimpleNamespace

Outcome = SimpleNamespace  # code, out, err


def one_line(outcome: Outcome) -> str:
    """The single line of a refusal; everything about its form is checked here."""
    assert outcome.code not in (0, None)
    lines = outcome.err.strip().splitlines()
    assert lines, "nothing was said"
    assert lines[-1].startswith("smalti: error: ")
    assert "Traceback" not in outcome.err
    assert sum(line.startswith("smalti: error: ") for line in lines) == 1
    return lines[-1]


def refused(outcome: Outcome, said: str) -> None:
    """One line that says so, about what was found and not about what was typed."""
    assert said in one_line(outcome)
    assert outcome.code == 1
