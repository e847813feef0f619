"""Writing files without losing data, and turning errors of the operating system into one clear line."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from smalti.errors import OutputError, SmaltiError

_TEMPORARY = re.compile(r"(\..+\.)([0-9]+)\.tmp", re.DOTALL)


def write_atomically(path: Path, fill: Callable[[Any], Any]) -> None:
    """Write a file so that after a kill at any moment either the old or the new contents are there.

    The contents are written to a temporary file in the same folder, synced, and renamed over the old file.

    Args:
        path: the file to write.
        fill: called with the open binary file to write the contents.

    Raises:
        OutputError: the disk is full or the file cannot be written.
    """
    # File names are limited to 255 bytes, so a long name is shortened; the process ID keeps it unique.
    temporary = path.with_name(f"{_start(path)}{os.getpid()}.tmp")
    with output_errors(path):
        try:
            with temporary.open("wb") as file:
                fill(file)
            sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the contents are safe; this makes the rename survive a power cut too
        sync(path.parent)


def _start(path: Path) -> str:
    """How the names of a file's temporary files begin."""
    return f".{path.name[:50]}."


def remove_leftovers(paths: Iterable[Path]) -> int:
    """Delete the temporary files that killed processes left of some files; returns how many.

    Those of processes that run are left alone.

    Args:
        paths: the files that were to be written with `write_atomically`.
    """
    starts: dict[Path, set[str]] = {}
    for path in paths:
        starts.setdefault(path.parent, set()).add(_start(path))
    removed = 0
    for folder, wanted in starts.items():
        with contextlib.suppress(OSError):  # a folder that is not there has none
            for name in os.listdir(folder):
                found = _TEMPORARY.fullmatch(name)
                if found is not None and found[1] in wanted and not _runs(int(found[2])):
                    (folder / name).unlink(missing_ok=True)
                    removed += 1
    return removed


def _runs(process: int) -> bool:
    """Whether there is a process of this ID, as far as can be told: on Windows it is assumed."""
    if os.name == "nt":  # os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # somebody else's
    return True


def lock(file: IO[bytes], refusal: str) -> None:
    """Lock an open file exclusively until it is closed or the process ends.

    Args:
        file: it is closed if another process holds the lock.
        refusal: message of the error.

    Raises:
        OutputError: another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows: there is no lock
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OutputError(refusal) from None


def sync(path: Path) -> None:
    """Flush a file, or the directory entries of a folder, to disk (fsync). Does nothing for folders on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def input_errors(path: str | os.PathLike[str], kind: type[SmaltiError]) -> Iterator[None]:
    """Turn errors of the operating system while reading into one line.

    Args:
        path: named in the message if the system names no file.
        kind: type of the error to raise.

    Raises:
        kind: for any `OSError` inside the block.
    """
    try:
        yield
    except OSError as error:
        remedy = {
            errno.EACCES: "; check its permissions",
            errno.ENAMETOOLONG: "; give a shorter one",
        }.get(error.errno or 0, "")
        place = error.filename if isinstance(error.filename, str) else os.fspath(path)
        raise kind(f"cannot read {place} ({error.strerror or error}){remedy}") from None


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system while writing into one line that says what to do.

    Raises:
        OutputError: for any `OSError` inside the block, including one that torch's writer hides behind its own error.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(_cannot_write(path, error.errno, error.strerror or str(error))) from None
    except RuntimeError as error:
        # torch's zip writer raises a RuntimeError while it handles the OSError.
        cause = error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OutputError(_cannot_write(path, cause.errno, cause.strerror or str(cause))) from None


def _cannot_write(path: Path, number: int | None, reason: str) -> str:
    remedy = {
        errno.ENOSPC: "the disk is full: free some space or choose another folder, then give the same command again",
        errno.EACCES: "no permission: choose a folder that is yours",
        errno.EROFS: "the file system is read-only: choose another folder",
        errno.ENOTDIR: "a part of the path is a file: choose another folder",
        errno.ENAMETOOLONG: "choose a shorter name",
    }.get(number or 0, "choose another place")
    return f"cannot write {path} ({reason}); {remedy}"
