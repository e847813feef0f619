"""`smalti evaluate doctor`."""

from __future__ import annotations

from types import SimpleNamespace

from command_line import eye


def test_the_doctor_says_what_it_tried(smalti, trained: SimpleNamespace) -> None:
    done = smalti("evaluate", "doctor", "--on", "emoji", "--size", 16, "--channels", 3, "--count", 400, *eye(trained))
    assert "as theory says" in done.out
    assert "verdict" in done.out
    assert done.code in (0, 1)
    assert not done.err
