"""Writing files so that nothing is lost: atomically, and with one clear line when the system refuses."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from smalti.errors import OutputError


def write_atomically(path: Path, fill: Callable[[Any], Any]) -> None:
    """Write beside the file, sync, and rename over it: after a kill at any moment the old or the new one is there.

    Raises:
        OutputError: the disk is full or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with output_errors(path):
        try:
            with temporary.open("wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into one line that says what to do.

    Raises:
        OutputError: for any `OSError` inside, or torch's own report of a failed write.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(_cannot_write(path, error.errno, error.strerror or str(error))) from None
    except RuntimeError as error:
        # torch's zip writer covers the system's refusal with a complaint of its own.
        if isinstance(error.__context__, OSError):
            cause = error.__context__
            raise OutputError(_cannot_write(path, cause.errno, cause.strerror or str(cause))) from None
        if "write" not in str(error).lower():
            raise
        raise OutputError(_cannot_write(path, errno.ENOSPC, "the write failed")) from None


def _cannot_write(path: Path, number: int | None, reason: str) -> str:
    remedy = {
        errno.ENOSPC: "the disk is full: free some space or choose another folder, then give the same command again",
        errno.EACCES: "no permission: choose a folder that is yours",
        errno.EROFS: "the file system is read-only: choose another folder",
        errno.ENOTDIR: "a part of the path is a file: choose another folder",
    }.get(number or 0, "choose another place")
    return f"cannot write {path} ({reason}); {remedy}"
