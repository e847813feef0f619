"""Open a data source from a path or name; its format is recognised by its contents, not by its extension.

A format that needs more than this package has an opener elsewhere: an entry of `OPENERS`.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from smalti.data.archives import Folder, Tree, ZipArchive, open_tree
from smalti.data.arrays import EmojiSource, NpzSource, find_idx
from smalti.data.cifar import CifarSource, layout_of
from smalti.data.download import find_or_download
from smalti.data.image_tree import TreeSource
from smalti.data.sources import Source
from smalti.errors import DataError, did_you_mean
from smalti.files import input_errors

WORDS = ("cifar10", "emoji")
"""Names of the data sets that are available by name."""

OPENERS: dict[bytes, str] = {b"\x9eS": "smalti.pipelines.archive_source:ArchiveSource"}
"""Openers of files by their first bytes: "module:name", imported on first use, called with (path, location)."""

_PEEK = 64  # files of an archive that are checked for the names of CIFAR-10, which has eight files


def find_source(
    source: str | os.PathLike[str], *, cache: Path, progress: Callable[[int, int | None], None] | None = None
) -> Source:
    """Open the source at a path, or the data set of that name.

    Args:
        source: a path, or one of `WORDS`, which always mean the data set; a folder of that name is "./emoji".
        cache: folder in which "cifar10" is looked for and to which it is downloaded.
        progress: called during a download with (bytes so far, total bytes or None).

    Raises:
        DataError: the path does not exist, cannot be read, or is not a data set of images.
    """
    text = os.fspath(source)
    if text == "emoji":
        return EmojiSource()
    with input_errors(text, DataError):
        return _at(find_or_download(cache, progress=progress) if text == "cifar10" else expanded(text), text)


def expanded(path: str | os.PathLike[str]) -> Path:
    """Expand ~ and ~name in a path to home folders.

    Raises:
        DataError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{os.fspath(path)} names the home folder of nobody here; write the path in full") from error


def opener_of(start: bytes) -> Callable[[Path, str], Source] | None:
    """The opener of files that begin so, or None."""
    for magic, address in OPENERS.items():
        if start.startswith(magic):
            module, _, name = address.partition(":")
            found: Callable[[Path, str], Source] = getattr(importlib.import_module(module), name)
            return found
    return None


def _at(path: Path, text: str) -> Source:
    if not path.exists():
        raise DataError(f"{text or repr(text)} does not exist; {_hint(path)}")
    path = path.resolve()
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file or folder; give a folder, archive or file of images")
    with path.open("rb") as file:
        opener = opener_of(file.read(16))
    if opener is not None:
        return opener(path, str(path))
    tree = open_tree(path)
    if tree is not None:
        return _in_tree(tree)
    found = find_idx(path, str(path))
    if found is None:
        raise DataError(f"{path} holds no set of images; expected a folder, zip, tar, npz, IDX, CIFAR-10 or .smt file")
    return found


def _hint(path: Path) -> str:
    """Suggest one of `WORDS` or a similar name in the same folder."""
    beside = []
    with contextlib.suppress(OSError):  # a folder that cannot be listed gives no suggestions
        beside = [str(path.parent / name) for name in os.listdir(path.parent)]
    letters = re.sub(r"[^a-z0-9]", "", str(path).lower())  # CIFAR-10 and cifar_10 are cifar10
    if letters in WORDS:
        return f"did you mean {letters!r}?"
    if difflib.get_close_matches(str(path), (*WORDS, *beside), n=1, cutoff=0.6):
        return did_you_mean(str(path), (*WORDS, *beside))
    return f"give a folder, archive or file of images, or one of {', '.join(WORDS)}"


def _in_folder(path: Path) -> Source:
    for folder in (path, path / "cifar-10-batches-py", path / "cifar-10-batches-bin"):
        if folder.is_dir():
            layout = layout_of([child.name for child in folder.iterdir()])
            if layout is not None:
                return CifarSource(Folder(folder), str(path), binary=layout == "binary")
    return find_idx(path, str(path)) or TreeSource(Folder(path), str(path))


def _in_tree(tree: Tree) -> Source:
    location = str(tree.path)
    with contextlib.closing(tree.walk(lambda entry: False)) as walk:
        names = [entry.name for entry, _ in islice(walk, _PEEK)]
    if isinstance(tree, ZipArchive) and names and all(name.endswith(".npy") for name in names):
        return NpzSource(tree.path, location)
    layout = layout_of(names)
    return TreeSource(tree, location) if layout is None else CifarSource(tree, location, binary=layout == "binary")
