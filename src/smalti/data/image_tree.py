"""A data set stored as a tree of image files: a folder, a zip or a tar.

How the files are interpreted:

    splits    the top-level folders, if all of them are named train, test, val, valid or validation (the last three
              are one split, "val"); if train and another of these are among them, anything beside them is ignored. A
              single folder around everything is skipped.
    classes   the first folder level inside a split, sorted by name; a split with images outside such folders has no
              labels
    order     natural order of the names: 2.png before 10.png
    captions  a .txt beside an image with the same stem, or captions.jsonl or metadata.jsonl with lines
              {"file_name": ..., "text": ...}, names relative to that file; "" for an image without a caption
    images    files with an image extension, and files with an unknown extension: those are tried, and listed as
              skipped if they are not images
    ignored   names that begin with a dot, __MACOSX, Thumbs.db, desktop.ini, and well-known extensions of other formats
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from smalti.data.archives import Entry, Tree, bytes_of
from smalti.data.images import Probe, probe
from smalti.data.sources import (
    IMAGE_EXTENSIONS,
    SPLIT_NAMES,
    SPLIT_ORDER,
    Block,
    Encoded,
    Listing,
    Source,
    choose_split,
    first_of,
)
from smalti.errors import DataError

OTHER_EXTENSIONS = frozenset(
    """
    txt json jsonl csv tsv md rst html htm xml yaml yml toml ini cfg log py ipynb m mat npy npz h5 hdf5 pkl pickle pt
    pth safetensors onnx parquet arrow tfrecord lmdb mdb db sqlite sql zip tar gz tgz xz bz2 7z rar pdf doc docx xls
    xlsx svg mp3 wav flac ogg mp4 avi mov mkv webm sh bat exe so dll lnk url md5 sha1 sha256 bin idx smt smi
    """.split()  # noqa: SIM905
)
_OTHER_NAMES = frozenset({"readme", "license", "licence", "notice", "copying", "changelog", "makefile", "sha256sums"})
_CAPTION_FILES = ("captions.jsonl", "metadata.jsonl")
_CAPTION_BYTES = 2**16  # a larger .txt beside an image is not taken for a caption


def natural_key(name: str) -> tuple[tuple[tuple[int, str], ...], ...]:
    """Sort key for natural order: digits by value, folder by folder: a2 < a10, a/9 < a/10 < b/1."""
    key = []
    for folder in name.split("/"):
        parts = re.split(r"([0-9]+)", folder)  # text, digits, text, ...
        stripped = (part.lstrip("0") if i % 2 else part for i, part in enumerate(parts))
        key.append(tuple((len(part) if i % 2 else 0, part) for i, part in enumerate(stripped)))
    return (*key, ((0, name),))  # tells 01 from 1


def is_candidate(name: str) -> bool:
    """Whether a file may be an image, judged by its name."""
    file = PurePosixPath(name)
    extension = file.suffix[1:].lower()
    if extension in IMAGE_EXTENSIONS:
        return True
    return extension not in OTHER_EXTENSIONS and file.stem.lower() not in _OTHER_NAMES


@dataclass(frozen=True)
class _Assignment:
    """The split and the class folder that a file belongs to."""

    split: str | None
    folder: str | None


def assign_splits(names: Sequence[str]) -> tuple[tuple[str, ...], list[_Assignment]]:
    """Assign files to splits and class folders by the rules at the top of this file.

    Returns:
        The splits, and the split and class folder of each name.
    """
    paths = [name.split("/") for name in names]
    if _single_top_folder(paths) and not _splits(paths):
        paths = [path[1:] for path in paths]
    splits = _splits(paths)
    if not splits:
        return (), [_Assignment(None, path[0] if len(path) > 1 else None) for path in paths]
    return splits, [
        _Assignment(SPLIT_NAMES[path[0]], path[1] if len(path) > 2 else None)
        if len(path) > 1 and path[0] in SPLIT_NAMES
        else _Assignment(None, None)
        for path in paths
    ]


def class_labels(names: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """Labels and classes of files by the rules at the top of this file.

    Returns:
        The class index of each name, -1 in a split with files outside class folders; and the names of the classes.
    """
    _, assignments = assign_splits(names)
    numbers = _class_numbers(assignments)
    mixed = {assignment.split for assignment in assignments if assignment.folder is None}
    labels = [-1 if assignment.split in mixed else numbers[assignment.folder or ""] for assignment in assignments]
    return labels, tuple(numbers)


def _single_top_folder(paths: list[list[str]]) -> bool:
    return all(len(path) > 1 for path in paths) and len({path[0] for path in paths}) == 1


def _splits(paths: list[list[str]]) -> tuple[str, ...]:
    tops = {path[0] if len(path) > 1 else "" for path in paths}  # "" stands for files outside any folder
    found = {SPLIT_NAMES[top] for top in tops & SPLIT_NAMES.keys()}
    # Folders bus, car and train are classes; train and test are splits, even with a folder of results beside them.
    if tops <= SPLIT_NAMES.keys() or ("train" in found and len(found) > 1):
        return tuple(split for split in SPLIT_ORDER if split in found)
    return ()


class TreeSource(Source):
    """Image files in a folder, a zip or a tar."""

    def __init__(self, tree: Tree, location: str) -> None:
        self.kind = tree.kind
        self.location = location
        self.tree = tree
        self._rows: dict[int, tuple[int, str]] = {}
        self._unreadable: list[Encoded] = []

    def signature(self) -> str:
        return self.tree.signature()

    def listing(self, split: str | None, *, look: bool) -> Listing:
        found = self._scan(look)
        if not found.entries:
            raise DataError(
                f"{self.location} holds no images ({found.ignored} other files); expected JPEG, PNG, WebP or the like"
            )
        splits, assignments = assign_splits(list(found.entries))
        chosen = choose_split(split, splits, self.location)
        numbers = _class_numbers(assignments)
        picked = [
            (entry, assignment)
            for entry, assignment in zip(found.entries.values(), assignments, strict=True)
            if assignment.split == chosen
        ]
        picked.sort(key=lambda pair: natural_key(pair[0].name))
        entries = [entry for entry, _ in picked]
        labelled = all(assignment.folder is not None for _, assignment in picked)
        self._rows = {entry.index: (row, entry.name) for row, entry in enumerate(entries)}
        self._unreadable = [
            Encoded(row, entry.name, DataError(entry.problem)) for row, entry in enumerate(entries) if entry.problem
        ]
        counts = Counter(assignment.split for assignment in assignments)
        probes = self._good_probes(found, entries) if look else []
        return Listing(
            split=chosen,
            splits=splits,
            names=[entry.name for entry in entries],
            labels=[numbers[assignment.folder or ""] for _, assignment in picked] if labelled else None,
            classes=tuple(numbers) if labelled else (),
            captions=found.captions(entries),
            sizes=Counter((header.height, header.width) for header in probes) if look else None,
            channels=_channels(probes) if look else None,
            counts={name: counts[name] for name in splits},
            modes=Counter(header.mode for header in probes),
            ignored=found.ignored + (counts[None] if splits else 0),
        )

    def stream(self, listing: Listing) -> Iterator[Encoded | Block]:
        yield from self._unreadable
        for entry, contents in self.tree.walk(lambda entry: entry.index in self._rows):
            if contents is not None:
                row, name = self._rows[entry.index]
                yield Encoded(row, name, contents)

    def _scan(self, look: bool) -> _Scan:
        """Walk the tree once: collect image files, captions and, with `look`, the headers of the images."""
        found = _Scan()
        for entry, contents in self.tree.walk(
            lambda entry: _is_caption_file(entry) or (look and is_candidate(entry.name))
        ):
            if not is_candidate(entry.name):
                found.ignored += 1
                if contents is not None:
                    found.add_captions(entry, contents, self.location)
                continue
            found.entries[entry.name] = entry  # the later of two members with one name wins, as in unpacking
            if contents is not None:
                found.probes[entry.index] = _probe(contents)
        return found

    def _good_probes(self, found: _Scan, entries: list[Entry]) -> list[Probe]:
        probes = [found.probes[entry.index] for entry in entries if entry.index in found.probes]
        good = [header for header in probes if isinstance(header, Probe)]
        if not good:
            reasons = [(entry.name, entry.problem or str(found.probes[entry.index])) for entry in entries]
            raise DataError(f"none of the {len(entries)} files in {self.location} is an image: {first_of(reasons)}")
        return good


@dataclass
class _Scan:
    """Everything that one walk over a tree collects.

    Attributes:
        entries: files that may be images, by name.
        probes: their headers or errors, by index in the walk; empty unless headers were requested.
        beside: captions from .txt files, by path without extension.
        listed: captions from .jsonl files, by path.
        ignored: number of other files.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    probes: dict[int, Probe | DataError] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    ignored: int = 0

    def add_captions(self, entry: Entry, contents: bytes | Path | DataError, location: str) -> None:
        """Add the captions of a .txt or .jsonl file."""
        if isinstance(contents, DataError):
            raise DataError(f"{location}: {entry.name} is {contents}")
        try:
            text = bytes_of(contents).decode("utf-8-sig", "replace")
        except DataError as error:
            raise DataError(f"{location}: {entry.name} {error}") from error
        path = PurePosixPath(entry.name)
        if path.name not in _CAPTION_FILES:
            self.beside[str(path.with_suffix(""))] = text.strip()
            return
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{location}: line {number} of {entry.name} is not JSON ({error})") from error
            file, caption = (record.get("file_name"), record.get("text")) if isinstance(record, dict) else (None, None)
            if isinstance(file, str) and isinstance(caption, str):
                self.listed[str(path.parent / file)] = caption

    def captions(self, entries: list[Entry]) -> list[str] | None:
        """The caption of each entry, "" if it has none; None if no entry has one."""
        if not self.beside and not self.listed:
            return None
        texts = []
        for entry in entries:
            stem = str(PurePosixPath(entry.name).with_suffix(""))
            texts.append(self.listed.get(entry.name, self.beside.get(stem, "")))
        return texts if any(texts) else None


def _class_numbers(assignments: list[_Assignment]) -> dict[str, int]:
    """Class index of each class folder, over the splits in which every image lies in a folder."""
    mixed = {assignment.split for assignment in assignments if assignment.folder is None}
    folders = {
        assignment.folder
        for assignment in assignments
        if assignment.folder is not None and assignment.split not in mixed
    }
    return {folder: number for number, folder in enumerate(sorted(folders))}


def _channels(probes: list[Probe]) -> int:
    """4 if any image has a transparent pixel, else 1 if all are grey, else 3."""
    if any(header.transparent for header in probes):
        return 4
    return 1 if all(header.grey for header in probes) else 3


def _is_caption_file(entry: Entry) -> bool:
    path = PurePosixPath(entry.name)
    return path.name in _CAPTION_FILES or (path.suffix.lower() == ".txt" and entry.size <= _CAPTION_BYTES)


def _probe(contents: bytes | Path | DataError) -> Probe | DataError:
    if isinstance(contents, DataError):
        return contents
    try:
        return probe(contents, look_at_alpha=True)
    except DataError as error:
        return error
