"""Places that results are written to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from smalti.errors import OutputError
from smalti.files import output_errors

if TYPE_CHECKING:
    import numpy as np

NUMBERED = r"[0-9]{6,}\.png"


def free_to_write(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file.

    Raises:
        OutputError: the file exists and `overwrite` is false, or the system will not say whether it does.
    """
    with output_errors(path):
        taken = path.exists()
    if taken and not overwrite:
        raise OutputError(f"{path} is already there; give another --out, or --overwrite to replace it")


class FreeNames:
    """Gives each name once: one that another file has taken gets a number, x.png and x-2.png.

    Names are compared as a file system does that does not know capitals.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def take(self, name: str) -> str:
        """The name, with a number if it is taken."""
        path, found = PurePosixPath(name), name
        while found.casefold() in self._taken:
            number = self._next.get(name.casefold(), 2)
            self._next[name.casefold()] = number + 1
            found = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        self._taken.add(found.casefold())
        return found


def refuse_numbered(folder: Path) -> None:
    """Refuse to replace numbered pictures.

    Raises:
        OutputError: the folder holds some, is a file, or cannot be read.
    """
    with output_errors(folder):
        there = os.listdir(folder) if folder.exists() else []
    name = next((name for name in there if re.fullmatch(NUMBERED, name)), None)
    if name is not None:
        raise OutputError(
            f"{folder} holds numbered pictures already ({name}); give another --out, or --overwrite to replace them"
        )


def write_numbered(
    folder: Path, first: int, pictures: Iterable[np.ndarray], text: Callable[[int], dict[str, str]]
) -> None:
    """Write pictures as files of six digits.

    Args:
        first: number of the first one.
        text: the metadata of the picture of a number.

    Raises:
        OutputError: they cannot be written.
    """
    from smalti.report.pictures import write_png

    for number, picture in enumerate(pictures, first):
        write_png(folder / f"{number:06d}.png", picture, text(number))
