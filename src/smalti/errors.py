"""The exceptions of smalti, and the format of their messages.

All are subclasses of `SmaltiError`, so that `except smalti.SmaltiError` catches every user error and nothing else. A
message is one line: what was found and what was expected; what to do.

The same argument is `out` in Python and `--out` on the command line. Messages therefore mark arguments and commands
with `arg` and `command`, and the code that displays a message replaces the marks with `reworded`. `str(error)` uses
Python syntax.

    >>> error = OutputError(f"runs/a is a file; give {arg('out')} a folder")
    >>> str(error), error.remedy, error.arguments
    ('runs/a is a file; give `out` a folder', 'give `out` a folder', ('out',))
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable

# Unicode noncharacters, which do not occur in paths or in text read from files.
_OPEN, _CLOSE, _NEXT = "\ufdd0", "\ufdd1", "\ufdd2"
_MARKED = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")


# Commands by what they are in Python.
_FUNCTIONS = {
    "smalti compress": "smalti.Codec.compress",
    "smalti decompress": "smalti.Codec.decompress",
    "smalti encode": "smalti.pipelines.encode_dataset",
    "smalti evaluate": "smalti.evaluation",
    "smalti generate": "generate",
    "smalti invert": "smalti.GAN.invert",
    "smalti train": "smalti.train",
}


def arg(name: str, value: object = None) -> str:
    """Mark an argument of the raising function in a message; a dotted name is a training setting.

    Args:
        name: as in Python: `out`, `on_nan`, `model.loss`.
        value: its actual or recommended value; None: only the name.
    """
    return f"{_OPEN}{name}{_CLOSE}" if value is None else f"{_OPEN}{name}{_NEXT}{value}{_CLOSE}"


def command(name: str, *positional: object, **options: object) -> str:
    """Mark a call of another function of smalti that helps, for a message: `command("encode", "RUN", out="CODES")`.

    Args:
        name: of the command; `_FUNCTIONS` has its name in Python.
    """
    words = [f"{_OPEN}smalti {name}{_CLOSE}", *map(str, positional)]
    return " ".join([*words, *(arg(key, value) for key, value in options.items())])


def reworded(message: str, wording: Callable[[str, str | None], str]) -> str:
    """Replace the marked arguments of a message.

    Args:
        wording: maps the name of an argument, and its value or None, to text.
    """

    def worded(match: re.Match[str]) -> str:
        name, mark, value = match[1].partition(_NEXT)
        return wording(name, value if mark else None)

    return _MARKED.sub(worded, message)


def _python(name: str, value: str | None) -> str:
    if name in _FUNCTIONS:
        return f"`{_FUNCTIONS[name]}`"
    return f"`{name}`" if value is None else f"`{name}={value}`"


class SmaltiError(Exception):
    """Base class: a user error, never a bug in smalti. The command line prints it without a traceback.

    Attributes:
        message: the text with marked arguments, for `reworded`.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return reworded(self.message, _python)

    @property
    def problem(self) -> str:
        """First part of the message: what was found and what was expected."""
        return str(self).partition("; ")[0]

    @property
    def remedy(self) -> str:
        """Second part of the message: what to do; empty if there is none."""
        return str(self).partition("; ")[2]

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the arguments and settings that the message mentions."""
        names = (match[1].partition(_NEXT)[0] for match in _MARKED.finditer(self.message))
        return tuple(dict.fromkeys(name for name in names if name not in _FUNCTIONS))


class ConfigError(SmaltiError):
    """A preset, setting or argument that does not exist or has an invalid value."""


class DataError(SmaltiError):
    """A data source that is missing, empty, damaged or of the wrong kind."""


class SplitError(DataError):
    """A data source without the requested split."""


class OutputError(SmaltiError):
    """A path that cannot be written: no permission, a full disk, or existing files that must not be overwritten."""


class CheckpointError(SmaltiError):
    """A checkpoint that is truncated, damaged, or of another version or kind."""


class CodeRangeError(SmaltiError):
    """A code outside the codebook of its plane."""


class CodecError(SmaltiError):
    """A compressed file that is truncated, damaged, of another version or model, or asks for too much memory."""


class TrainingError(SmaltiError):
    """A training that cannot continue: it diverged or collapsed, and no rollback is left."""


class NonFiniteError(TrainingError):
    """Latents with NaN or infinite values: the network diverged, or its input has such values."""


class RankError(SmaltiError):
    """Another rank of the same training failed, and has reported the reason."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The suggestion at the end of an error message: the closest valid word, or a list of them if none is close.

    Args:
        word: the invalid word.
        known: the valid words.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown}" if names else "none is known here"
