"""Find CIFAR-10 on this machine, or download the authors' archive and check it against its published MD5."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import secrets
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from smalti.errors import DataError, OutputError, arg
from smalti.files import sync

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"  # published beside the link
ARCHIVE = "cifar-10-python.tar.gz"

_PLACES = (ARCHIVE, "cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10-binary.tar.gz")
_DOWNLOAD_LIMIT = 512 * 2**20  # the archive has 163 MiB
_CHUNK = 2**20

Progress = Callable[[int, int | None], None]


def find_or_download(
    cache: Path,
    *,
    progress: Progress | None = None,
    url: str = URL,
    md5: str = MD5,
    timeout_seconds: float = 30.0,
) -> Path:
    """The path of CIFAR-10: an earlier download, a copy in ./data or the working folder, or a new download.

    Args:
        cache: the cache folder; downloads are stored in its subfolder "downloads".
        progress: called with (bytes so far, total bytes or None).
        url: where to download from.
        md5: expected checksum of the archive, hexadecimal.
        timeout_seconds: a download is given up after this time without data.

    Raises:
        DataError: the download fails, or its checksum is wrong.
        OutputError: the cache cannot be written.
    """
    downloads = cache / "downloads"
    for folder in (downloads, Path("data"), Path()):
        for name in _PLACES:
            if (folder / name).exists():
                return folder / name
    target = downloads / ARCHIVE
    partial = downloads / f".{ARCHIVE}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        digest = _fetch(url, partial, target, progress, timeout_seconds)
        if digest != md5:
            raise DataError(f"{url} came with MD5 {digest}, expected {md5}; try again, or put {ARCHIVE} at {target}")
        partial.replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {target} ({reason}); give {arg('cache', 'FOLDER')}") from error
    finally:
        with contextlib.suppress(OSError):  # never written, or already renamed
            partial.unlink()
    return target


def _fetch(url: str, partial: Path, target: Path, progress: Progress | None, timeout_seconds: float) -> str:
    """Download the URL to a file and return the MD5 of the contents."""
    digest = hashlib.md5(usedforsecurity=False)
    with partial.open("wb") as file:
        for chunk, total in _download(url, target, timeout_seconds):
            digest.update(chunk)
            file.write(chunk)
            if file.tell() > _DOWNLOAD_LIMIT:
                raise DataError(f"{url} sends more than {_DOWNLOAD_LIMIT:,} bytes; put {ARCHIVE} at {target} yourself")
            if progress is not None:
                progress(file.tell(), total)
    sync(partial)
    return digest.hexdigest()


def _download(url: str, target: Path, timeout_seconds: float) -> Iterator[tuple[bytes, int | None]]:
    """Yield chunks of the response with its announced length.

    Raises:
        DataError: the server cannot be reached or the transfer breaks off.
    """
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            received = 0
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                yield chunk, total
            if total is not None and received != total:
                raise DataError(f"{url} broke off at {received:,} of {total:,} bytes; try again, or put it at {target}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"cannot download {url} ({error}); get {ARCHIVE} elsewhere and put it at {target}") from error
