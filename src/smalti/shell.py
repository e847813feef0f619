"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from smalti.errors import OutputError


def complain(message: str) -> None:
    """One line on stderr, with control characters made visible: file names are hostile too."""
    shown = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in message)
    print(f"smalti: error: {shown}", file=sys.stderr)


def note(message: str) -> None:
    """A remark on stderr."""
    print(message, file=sys.stderr)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout; numbers should come formatted."""
    console = Console(highlight=False, markup=False)
    grid = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def facts(rows: Mapping[str, object]) -> None:
    """Names and values, one pair a line, values untouched so that they can be copied."""
    width = max((len(name) for name in rows), default=0)
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")


def free_to_write(path: Path, overwrite: bool) -> None:
    """Refuse to write over what is there.

    Raises:
        OutputError: the file exists and `overwrite` is false.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{path} is already there; give another --out, or --overwrite to replace it")
