"""Everything smalti raises on purpose.

One tree, so that `except smalti.SmaltiError` catches each mistake a user can make and nothing else. A message
is one line that says what was found, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SmaltiError(Exception):
    """A mistake in the input, never a bug in smalti: the command line prints it without a traceback."""


class ConfigError(SmaltiError):
    """A preset, setting or option that does not exist or does not fit."""


class DataError(SmaltiError):
    """A source of images that is missing, empty, broken or not what was asked for."""


class SplitError(DataError):
    """A source of images that lacks the split asked for."""


class OutputError(SmaltiError):
    """A place that cannot be written: no permission, a full disk, or something of the user's is there."""


class CheckpointError(SmaltiError):
    """A checkpoint that is cut short, damaged, of another version or of another kind."""


class CodeRangeError(SmaltiError):
    """A code outside the alphabet of its plane."""


class TrainingError(SmaltiError):
    """A training that cannot go on: a loss became infinite, or nothing is left to go back to."""


class NonFiniteError(TrainingError):
    """Latents that hold NaN or infinity: the networks before them have diverged, or were given such pixels."""


class RankError(SmaltiError):
    """Another process of the same training failed and has said why."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error line: the closest known word, or all of them when none is close.

    Args:
        word: what was typed.
        known: what would have been right.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown}" if names else "none is known here"
