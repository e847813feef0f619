"""What the commands print: results on stdout, everything else on stderr.

All of it goes through `visible`: names, licences and classes come from files that anybody may have written.
"""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from smalti.errors import SmaltiError, reworded


def visible(text: str) -> str:
    """Text in one line, with control characters and bytes that are no text written out: \\x1b, \\n, \\udcff."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def with_flags(error: Exception | str) -> str:
    """A message with its arguments as flags: `--out`, `--size 64`, `--set model.loss=hinge`."""
    text = error.message if isinstance(error, SmaltiError) else str(error)
    return reworded(text, _flag)


def _flag(name: str, value: str | None) -> str:
    if name.startswith("smalti "):
        return name
    if "." in name:
        return f"--set {name}" if value is None else f"--set {name}={value}"
    flag = f"--{name.replace('_', '-')}"
    return flag if value in (None, "True") else f"{flag} {value}"


def complain(message: Exception | str) -> None:
    """One line on stderr."""
    print(f"smalti: error: {visible(with_flags(message))}", file=sys.stderr)


def note(message: str) -> None:
    """A remark on stderr."""
    print(visible(message), file=sys.stderr)


@functools.cache
def note_once(message: str) -> None:
    """The same for what is true of many files."""
    note(message)


def print_log() -> None:
    """From now on, print the warnings that the library logs to stderr, one line each."""
    import logging  # here, because help needs none of it

    class LogHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage())

    logger = logging.getLogger("smalti")
    if not logger.handlers:
        logger.addHandler(LogHandler(logging.WARNING))


def suggest(*words: object) -> None:
    """The command that comes next, as it can be pasted into a shell."""
    note(f"next: smalti {shlex.join(map(str, words))}")


def say(message: str = "") -> None:
    """A line on stdout."""
    print(visible(message))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout; numbers should come formatted."""
    console = Console(highlight=False, markup=False)
    grid = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*map(visible, row))
    console.print(grid)


def facts(rows: Mapping[str, object]) -> None:
    """Names and values, one pair on a line, neither wrapped nor cut so that they can be copied."""
    width = max((len(name) for name in rows), default=0)
    for name, value in rows.items():
        say(f"{name:{width}}  {value}")


def note_skipped(images: Any, *, source: str = "") -> None:
    """A remark on the files of a source that could not be read, and why one of them could not.

    Args:
        images: anything; only what has `skipped`, pairs of a name and a reason, is remarked upon.
        source: which source they are of, where a command opens several.
    """
    skipped = getattr(images, "skipped", ())
    if not skipped:
        return
    name, reason = skipped[0]
    of = f" of {source}" if source else ""
    more = "; smalti data inspect lists them all" if len(skipped) > 1 and not source else ""
    note(f"skipped {len(skipped)} of {len(skipped) + len(images)} files{of}: {name} ({reason}){more}")


def too_little_memory(error: Exception) -> bool:
    """Whether Python, numpy or torch, on the CPU or a GPU, failed to get memory; torch need not be imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("allocate memory", "out of memory", "bad_alloc", "alloc_failed")
    )
