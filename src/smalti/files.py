"""Files and what the system says about them: written so that nothing is lost, refused with one clear line."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from smalti.errors import OutputError, SmaltiError


def write_atomically(path: Path, fill: Callable[[Any], Any]) -> None:
    """Write beside the file, sync, and rename over it: after a kill at any moment the old or the new one is there.

    Raises:
        OutputError: the disk is full or the place cannot be written.
    """
    # Names have a limit of 255 bytes, so a long one is cut: the process number tells the rest apart.
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}.tmp")
    with output_errors(path):
        try:
            with temporary.open("wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the file is on disk; this lets the rename outlast a power cut too
        sync(path.parent)


def lock(file: IO[bytes], refusal: str) -> None:
    """Hold an open file for this process alone, until it is closed or the process ends.

    Raises:
        OutputError: another process holds it; its message is the refusal.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows, where nothing stops a second process
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OutputError(refusal) from None


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk. Folders cannot be synced on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def input_errors(path: str | os.PathLike[str], kind: type[SmaltiError]) -> Iterator[None]:
    """Turn the system's refusal to read, or to look, into one line.

    Raises:
        kind: for any `OSError` inside; it names the file, or `path` where the system names none.
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
    """Turn the system's refusal to write into one line that says what to do.

    Raises:
        OutputError: for any `OSError` inside, also where torch's writer reports something else on top of it.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(_cannot_write(path, error.errno, error.strerror or str(error))) from None
    except RuntimeError as error:
        # torch's zip writer covers the system's refusal with a complaint of its own.
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
