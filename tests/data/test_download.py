"""CIFAR-10 by name: found, downloaded from a local server, checked."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dataset_files import cifar_batch
from picture_files import write_tar

from smalti.data import load
from smalti.data.archives import TarArchive
from smalti.data.cifar import CifarSource
from smalti.data.download import ARCHIVE, find_or_download
from smalti.errors import DataError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a local web server over tmp_path/www."""
    (tmp_path / "www").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "www"))

        def log_message(self, *arguments: Any) -> None:
            """Nothing on the terminal."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def cifar_archive(path: Path) -> str:
    names = [*(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)), "cifar-10-batches-py/test_batch"]
    write_tar(path, {name: cifar_batch() for name in names}, "w:gz")
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("elsewhere")
def test_cifar10_is_downloaded_once_and_checked(tmp_path: Path, cache: Path, server: str) -> None:
    md5 = cifar_archive(tmp_path / "www" / ARCHIVE)
    seen: list[tuple[int, int | None]] = []
    path = find_or_download(cache, url=f"{server}/{ARCHIVE}", md5=md5, progress=lambda *step: seen.append(step))
    assert path == cache / "downloads" / ARCHIVE
    size = path.stat().st_size
    assert seen[-1] == (size, size)
    assert [file.name for file in path.parent.iterdir()] == [ARCHIVE]
    assert find_or_download(cache, url="http://127.0.0.1:1/", md5="") == path
    assert len(load("cifar10", cache=cache)) == 10


@pytest.mark.usefixtures("elsewhere")
def test_a_tampered_download_is_not_kept(tmp_path: Path, cache: Path, server: str) -> None:
    md5 = cifar_archive(tmp_path / "www" / ARCHIVE)
    with (tmp_path / "www" / ARCHIVE).open("ab") as file:
        file.write(b"!")
    with pytest.raises(DataError, match=f"expected {md5}; try again, or put {ARCHIVE} at") as caught:
        find_or_download(cache, url=f"{server}/{ARCHIVE}", md5=md5)
    assert str(cache / "downloads" / ARCHIVE) in str(caught.value)
    assert list((cache / "downloads").iterdir()) == []


@pytest.mark.usefixtures("elsewhere")
def test_a_server_that_is_not_there_or_has_no_such_file(cache: Path, server: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{unused.getsockname()[1]}/{ARCHIVE}"
    for url in (gone, f"{server}/none.tar.gz", "nonsense"):
        with pytest.raises(DataError, match=f"cannot download .*put it at .*{ARCHIVE}"):
            find_or_download(cache, url=url)
        assert list((cache / "downloads").iterdir()) == []


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("answer", ["short", "silent"])
def test_a_server_that_stops_in_the_middle(cache: Path, answer: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
                if answer == "silent":
                    done.wait(10)

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(DataError, match=ARCHIVE):
            find_or_download(cache, url=url, timeout_seconds=0.3)
        done.set()
        thread.join()
    assert list((cache / "downloads").iterdir()) == []


def test_cifar10_that_is_there_already_is_taken(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    cifar_archive(tmp_path / "data" / ARCHIVE)
    assert find_or_download(cache, url="http://127.0.0.1:1/") == Path("data") / ARCHIVE
    assert not cache.exists()
    source = CifarSource(TarArchive(tmp_path / "data" / ARCHIVE), "x", binary=False)
    assert len(source.listing("test", look=False).names) == 2
