"""The index of a code set: metadata of one split of codes, and its JSON file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT_VERSION = 1
INDEX_LIMIT = 2**28  # bytes; the names and captions of a million images take less in most languages


@dataclass(frozen=True)
class CodesAbout:
    """Metadata of the codes of one split: everything except the codes and labels.

    Attributes:
        codebook_sizes: number of codes in each plane.
        grid: (height, width) in codes.
        image: (channels, height, width) of the images.
        tokenizer: digest of the VQ-VAE that wrote the codes.
        source: where the images came from.
        images: fingerprint of the images.
        split, splits: this split, and all splits of the source.
        classes, names, captions: those of the images; captions is None if there are none.
        effort: rounds of code refinement.
        groups: number of clusters whose indices serve as labels; 0: the labels come from the source.
        fingerprint: SHA-256 over codebook sizes, grid, image, tokenizer, classes, codes, labels and captions.
    """

    codebook_sizes: tuple[int, ...]
    grid: tuple[int, int]
    image: tuple[int, int, int]
    tokenizer: str
    source: str
    images: str
    split: str | None
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    names: Sequence[str]
    captions: Sequence[str] | None
    effort: int = 0
    groups: int = 0
    fingerprint: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("<i2" if max(self.codebook_sizes) <= 2**15 else "<i4")

    @property
    def row(self) -> tuple[int, int, int]:
        """(planes, height, width) of one image's codes."""
        return len(self.codebook_sizes), *self.grid


def index_json(about: CodesAbout, *, labelled: bool) -> bytes:
    """The contents of index.json, which `read_index` reads."""
    plain = {field.name: getattr(about, field.name) for field in dataclasses.fields(about)}
    plain["names"] = list(about.names)
    plain["captions"] = None if about.captions is None else list(about.captions)
    return json.dumps({"format": FORMAT_VERSION, "labelled": labelled, **plain}).encode()


def read_index(path: Path) -> tuple[CodesAbout, bool]:
    """Read and check the index of a split.

    Returns:
        The metadata, and whether the split has labels.

    Raises:
        Exception: of any of the types that json and the constructor raise; the index is damaged.
    """
    if path.stat().st_size > INDEX_LIMIT:
        raise ValueError("its index is too large")
    plain = json.loads(path.read_text("utf-8"))
    version = plain.pop("format")
    if version != FORMAT_VERSION:
        raise ValueError(f"it has the format {version!r}, this version reads {FORMAT_VERSION}")
    labelled = bool(plain.pop("labelled"))
    for name in ("codebook_sizes", "grid", "image", "splits", "classes"):
        plain[name] = tuple(plain[name])
    about = CodesAbout(**plain)
    whole = (*about.codebook_sizes, *about.grid, *about.image)
    counts = (len(about.grid), len(about.image))
    if not all(type(number) is int and 1 <= number <= 2**31 for number in whole) or counts != (2, 3):
        raise ValueError("its sizes are out of range")
    if not about.codebook_sizes:
        raise ValueError("its alphabet is empty")
    texts = (about.tokenizer, about.source, about.images, about.fingerprint, about.split or "", *about.classes)
    lists = (about.names, [] if about.captions is None else about.captions)
    if not all(isinstance(text, str) for text in (*texts, *about.splits)) or not all(
        isinstance(entries, list) and all(isinstance(entry, str) for entry in entries) for entries in lists
    ):
        raise ValueError("an entry that should be text is not")
    if about.captions is not None and len(about.captions) != len(about.names):
        raise ValueError(f"{len(about.captions)} captions for {len(about.names)} images")
    return about, labelled
