"""`smalti data inspect`: what a source of images holds."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli import console
from smalti.cli.apps import data_app, examples
from smalti.cli.options import SourcePath
from smalti.cli.progress import counting

if TYPE_CHECKING:
    from smalti.data import Summary

LISTED = 20  # classes, sizes or modes shown


@data_app.command(
    help_epilogue=examples(
        "smalti data inspect photos.zip",
    )
)
def inspect(
    source: SourcePath,
    /,
    *,
    split: str | None = None,
    cache: Path | None = None,
) -> int:
    """Look at a source without packing it: images, sizes, splits, classes, broken files.

    Parameters
    ----------
    split:
        Look at only this split.
    cache:
        Folder in which downloads are looked for.
    """
    from smalti import data

    with counting("looking") as progress:
        summary = data.inspect(source, split=split, cache=cache, progress=progress)
    console.facts(
        {
            "source": summary.source,
            "kind": summary.kind,
            "images": f"{summary.images:,}" + (f" in split {summary.split}" if summary.split else ""),
            "splits": _counts(summary.splits),
            "classes": _counts(summary.classes),
            "sizes": _counts({f"{height}x{width}": count for (height, width), count in summary.sizes.items()}),
            "modes": _counts(summary.modes),
            "captions": f"{summary.captions:,}",
            "other files": f"{summary.ignored:,}",
            "broken": f"{len(summary.broken):,}",
        }
    )
    for name, reason in summary.broken:
        console.say(f"  {name}: {reason}")
    console.say(f"try: {first_command(source, summary)}")
    return 1 if summary.broken else 0


def first_command(source: str | os.PathLike[str], summary: Summary) -> str:
    """A command to begin with."""
    command = f"smalti train vqvae --data {shlex.quote(os.fspath(source))} --out runs/first"
    return command if summary.suggested_side is None else f"{command} --size {summary.suggested_side}"


def _counts(numbers: dict[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(numbers.items())[:LISTED]]
    if len(numbers) > LISTED:
        shown.append(f"and {len(numbers) - LISTED} more")
    return ", ".join(shown) or "none"
