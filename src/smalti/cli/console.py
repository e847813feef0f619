"""What the commands print: results on stdout, everything else on stderr.

All of it goes through `visible`: names, licences and classes come from files that anybody may have written.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from smalti.errors import OutputError
from smalti.files import output_errors


def visible(text: str) -> str:
    """Text in one line, with control characters and bytes that are no text written out: \\x1b, \\n, \\udcff."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def complain(message: str) -> None:
    """One line on stderr."""
    print(f"smalti: error: {visible(message)}", file=sys.stderr)


def note(message: str) -> None:
    """A remark on stderr."""
    print(visible(message), file=sys.stderr)


class _LogHandler(logging.Handler):
    """Prints what the library logs as remarks."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def print_log() -> None:
    """From now on, warnings that the library logs are printed to stderr, one line each."""
    logger = logging.getLogger("smalti")
    if not any(isinstance(handler, _LogHandler) for handler in logger.handlers):
        logger.addHandler(_LogHandler(logging.WARNING))


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
    """Names and values, one pair a line, neither wrapped nor cut so that they can be copied."""
    width = max((len(name) for name in rows), default=0)
    for name, value in rows.items():
        say(f"{name:{width}}  {value}")


def free_to_write(path: Path, overwrite: bool) -> None:
    """Refuse to write over what is there.

    Raises:
        OutputError: the file exists and `overwrite` is false, or the system will not say whether it does.
    """
    with output_errors(path):
        taken = path.exists()
    if taken and not overwrite:
        raise OutputError(f"{path} is already there; give another --out, or --overwrite to replace it")


def too_little_memory(error: Exception) -> bool:
    """Whether Python, numpy or torch, on the CPU or a GPU, failed to get memory; torch need not be imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("allocate memory", "out of memory", "bad_alloc", "alloc_failed")
    )
