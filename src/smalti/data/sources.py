"""What a source of images offers, and the source that is a tree of image files.

How files are read as a data set:

    splits    the top folders, where all of them are named train, test, val, valid or validation (the last three
              are one split, "val"); where train and another of these are among them, whatever else is beside them
              is ignored; so is one folder around everything
    classes   the first folder level inside a split, sorted by name; a split with images outside of such folders
              has no labels
    order     natural order of the names: 2.png before 10.png
    captions  a .txt beside an image with the same stem, or captions.jsonl or metadata.jsonl with lines
              {"file_name": ..., "text": ...}, names relative to that file; "" where an image has none
    images    files with the extension of an image format, and files with an extension that is none of the well-known
              other ones: those are tried, and listed as skipped when they are not images
    ignored   names that begin with a dot, __MACOSX, Thumbs.db, desktop.ini, and the well-known other extensions
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np

from smalti.data.archives import Entry, Tree, bytes_of
from smalti.data.images import Probe, probe
from smalti.errors import DataError, SplitError

SPLIT_NAMES = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
SPLIT_ORDER = ("train", "val", "test")

IMAGE_EXTENSIONS = frozenset(
    """
    jpg jpeg jpe jfif png apng gif bmp dib webp tif tiff ppm pgm pbm pnm pfm avif avifs jp2 j2k jpx tga ico qoi pcx sgi
    """.split()  # noqa: SIM905
)
OTHER_EXTENSIONS = frozenset(
    """
    txt json jsonl csv tsv md rst html htm xml yaml yml toml ini cfg log py ipynb m mat npy npz h5 hdf5 pkl pickle pt
    pth safetensors onnx parquet arrow tfrecord lmdb mdb db sqlite sql zip tar gz tgz xz bz2 7z rar pdf doc docx xls
    xlsx svg mp3 wav flac ogg mp4 avi mov mkv webm sh bat exe so dll lnk url md5 sha1 sha256 bin idx
    """.split()  # noqa: SIM905
)
_OTHER_NAMES = frozenset({"readme", "license", "licence", "notice", "copying", "changelog", "makefile", "sha256sums"})
_CAPTION_FILES = ("captions.jsonl", "metadata.jsonl")
_CAPTION_BYTES = 2**16  # a .txt beside an image above this is no caption


@dataclass(frozen=True)
class Encoded:
    """One image file on its way into the pack: row, name, and its bytes, its path or why it cannot be had."""

    row: int
    name: str
    contents: bytes | Path | DataError


@dataclass(frozen=True)
class Block:
    """Images that are pixels already: the first row and (n, H, W, C) uint8."""

    row: int
    pixels: np.ndarray


class Numbered(Sequence[str]):
    """The names of images that have none: "train/00000", "train/00001", ... made when asked for."""

    def __init__(self, prefix: str, length: int) -> None:
        self.prefix = prefix
        self.length = length
        self._digits = max(5, len(str(max(0, length - 1))))

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        return f"{self.prefix}{range(self.length)[index]:0{self._digits}d}"


@dataclass(frozen=True)
class Listing:
    """The images of one split, in order, before any is decoded.

    Attributes:
        split: the split, None where the source has none.
        splits: what the source offers.
        names: N names.
        labels: N class numbers, or None.
        classes: names of the classes over all splits, () without labels.
        captions: N texts, or None.
        sizes: how many images have each (height, width), and
        channels: 1, 3 or 4; both None unless they were asked for.
        counts: images in each split.
        modes: how many images have each Pillow mode; empty unless asked for.
        ignored: files that are not images and were passed over.
    """

    split: str | None
    splits: tuple[str, ...]
    names: Sequence[str]
    labels: Sequence[int] | None = None
    classes: tuple[str, ...] = ()
    captions: Sequence[str] | None = None
    sizes: Counter[tuple[int, int]] | None = None
    channels: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    modes: Counter[str] = field(default_factory=Counter)
    ignored: int = 0

    @classmethod
    def uniform(
        cls,
        split: str | None,
        splits: tuple[str, ...],
        names: Sequence[str],
        shape: tuple[int, int, int],
        *,
        labels: Sequence[int] | None = None,
        classes: tuple[str, ...] = (),
        captions: Sequence[str] | None = None,
        counts: dict[str, int] | None = None,
    ) -> Listing:
        """A listing of images that all are (height, width, channels)."""
        height, width, channels = shape
        return cls(
            split=split,
            splits=splits,
            names=names,
            labels=labels,
            classes=classes,
            captions=captions,
            sizes=Counter({(height, width): len(names)}),
            channels=channels,
            counts=counts or {},
            modes=Counter({{1: "L", 3: "RGB", 4: "RGBA"}[channels]: len(names)}),
        )


class Source(ABC):
    """Something that images are packed from."""

    kind: str
    location: str

    @abstractmethod
    def signature(self) -> str:
        """Changes whenever the source may have changed; cheap."""

    @abstractmethod
    def listing(self, split: str | None, *, look: bool) -> Listing:
        """The images of a split; `look` asks for their sizes and channels.

        Raises:
            DataError: the source is damaged or empty, or has no such split.
        """

    @abstractmethod
    def stream(self, listing: Listing) -> Iterator[Encoded | Block]:
        """The images of a listing in any order; rows are positions in it, each row comes once."""


def choose_split(split: str | None, splits: tuple[str, ...], location: str) -> str | None:
    """The split that is meant: without splits None, by default "train" or the only one.

    Raises:
        SplitError: the source has no such split.
    """
    if split is not None:
        split = SPLIT_NAMES.get(split, split)
        if split in splits:
            return split
        if not splits:
            raise SplitError(f"{location} has no splits, but split {split!r} was asked for; leave the split out")
        raise SplitError(f"{location} has no split {split!r}; it has {', '.join(splits)}")
    if not splits or "train" in splits:
        return "train" if splits else None
    if len(splits) == 1:
        return splits[0]
    raise SplitError(f"{location} has no split 'train'; choose one of {', '.join(splits)}")


def natural_key(name: str) -> tuple[tuple[tuple[int, str], ...], ...]:
    """Sorts digits by their value and folders before what follows: a2 < a10, a/9 < a/10 < b/1."""
    key = []
    for folder in name.split("/"):
        parts = re.split(r"([0-9]+)", folder)  # text, digits, text, ...
        stripped = (part.lstrip("0") if i % 2 else part for i, part in enumerate(parts))
        key.append(tuple((len(part) if i % 2 else 0, part) for i, part in enumerate(stripped)))
    return (*key, ((0, name),))  # 01 and 1 are two names


def is_candidate(name: str) -> bool:
    """Whether a file is tried as an image, by its extension."""
    file = PurePosixPath(name)
    extension = file.suffix[1:].lower()
    if extension in IMAGE_EXTENSIONS:
        return True
    return extension not in OTHER_EXTENSIONS and file.stem.lower() not in _OTHER_NAMES


@dataclass(frozen=True)
class _Place:
    """Where a name belongs: its split and its class folder."""

    split: str | None
    folder: str | None


def arrange(names: Sequence[str]) -> tuple[tuple[str, ...], list[_Place]]:
    """Splits, and the place of each name, by the rules at the head of this file."""
    paths = [name.split("/") for name in names]
    if _one_top(paths) and not _splits(paths):
        paths = [path[1:] for path in paths]
    splits = _splits(paths)
    if not splits:
        return (), [_Place(None, path[0] if len(path) > 1 else None) for path in paths]
    return splits, [
        _Place(SPLIT_NAMES[path[0]], path[1] if len(path) > 2 else None)
        if len(path) > 1 and path[0] in SPLIT_NAMES
        else _Place(None, None)
        for path in paths
    ]


def _one_top(paths: list[list[str]]) -> bool:
    return all(len(path) > 1 for path in paths) and len({path[0] for path in paths}) == 1


def _splits(paths: list[list[str]]) -> tuple[str, ...]:
    tops = {path[0] if len(path) > 1 else "" for path in paths}  # "" for a file that is in no folder
    found = {SPLIT_NAMES[top] for top in tops & SPLIT_NAMES.keys()}
    # Cars, buses and trains are classes; train and test are not, even with a folder of results beside them.
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
        splits, places = arrange(list(found.entries))
        chosen = choose_split(split, splits, self.location)
        numbers = _class_numbers(places)
        picked = [
            (entry, place) for entry, place in zip(found.entries.values(), places, strict=True) if place.split == chosen
        ]
        picked.sort(key=lambda pair: natural_key(pair[0].name))
        entries = [entry for entry, _ in picked]
        labelled = all(place.folder is not None for _, place in picked)
        self._rows = {entry.index: (row, entry.name) for row, entry in enumerate(entries)}
        self._unreadable = [
            Encoded(row, entry.name, DataError(entry.problem)) for row, entry in enumerate(entries) if entry.problem
        ]
        counts = Counter(place.split for place in places)
        probes = self._good_probes(found, entries) if look else []
        return Listing(
            split=chosen,
            splits=splits,
            names=[entry.name for entry in entries],
            labels=[numbers[place.folder or ""] for _, place in picked] if labelled else None,
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

    def _scan(self, look: bool) -> _Found:
        """One walk: which files may be images, the texts beside them, and their headers when asked to look."""
        found = _Found()
        for entry, contents in self.tree.walk(lambda entry: _is_text(entry) or (look and is_candidate(entry.name))):
            if not is_candidate(entry.name):
                found.ignored += 1
                if contents is not None:
                    found.read_text(entry, contents, self.location)
                continue
            found.entries[entry.name] = entry  # of two members with one name the later counts, as when unpacking
            if contents is not None:
                found.probes[entry.index] = _probe(contents)
        return found

    def _good_probes(self, found: _Found, entries: list[Entry]) -> list[Probe]:
        probes = [found.probes[entry.index] for entry in entries if entry.index in found.probes]
        good = [header for header in probes if isinstance(header, Probe)]
        if not good:
            reasons = [(entry.name, entry.problem or str(found.probes[entry.index])) for entry in entries]
            raise DataError(f"none of the {len(entries)} files in {self.location} is an image: {first_of(reasons)}")
        return good


@dataclass
class _Found:
    """What one walk over a tree brought together."""

    entries: dict[str, Entry] = field(default_factory=dict)
    probes: dict[int, Probe | DataError] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)  # path without extension -> text
    listed: dict[str, str] = field(default_factory=dict)  # path -> text
    ignored: int = 0

    def read_text(self, entry: Entry, contents: bytes | Path | DataError, location: str) -> None:
        """Remember the captions of a .txt or a .jsonl file."""
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
        """A text for each entry, or None when not one has any."""
        if not self.beside and not self.listed:
            return None
        texts = []
        for entry in entries:
            stem = str(PurePosixPath(entry.name).with_suffix(""))
            texts.append(self.listed.get(entry.name, self.beside.get(stem, "")))
        return texts if any(texts) else None


def first_of(problems: Sequence[tuple[str, str]], count: int = 3) -> str:
    """The first few problems in one line."""
    shown = "; ".join(f"{name}: {reason}" for name, reason in problems[:count])
    return shown + (f"; and {len(problems) - count} more" if len(problems) > count else "")


def _class_numbers(places: list[_Place]) -> dict[str, int]:
    """Class folder -> number, over the splits in which every image lies in a folder."""
    mixed = {place.split for place in places if place.folder is None}
    folders = {place.folder for place in places if place.folder is not None and place.split not in mixed}
    return {folder: number for number, folder in enumerate(sorted(folders))}


def _channels(probes: list[Probe]) -> int:
    """4 when a pixel of any image is transparent, else 1 when all are grey, else 3."""
    if any(header.transparent for header in probes):
        return 4
    return 1 if all(header.grey for header in probes) else 3


def _is_text(entry: Entry) -> bool:
    path = PurePosixPath(entry.name)
    return path.name in _CAPTION_FILES or (path.suffix.lower() == ".txt" and entry.size <= _CAPTION_BYTES)


def _probe(contents: bytes | Path | DataError) -> Probe | DataError:
    if isinstance(contents, DataError):
        return contents
    try:
        return probe(contents, look_at_alpha=True)
    except DataError as error:
        return error
