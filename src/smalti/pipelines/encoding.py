"""Encoding of whole datasets to code sets on disk, and decoding them.

    encode_dataset(model, "photos.zip", "codes", size=(64, 64), flip=True)
    codes = smalti.datasets.open_codes("codes")
    for first, images in decode_codes(open_tokenizer(codes), codes): ...

data/codes.py describes the files. An interrupted encoding is resumed by the same call.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smalti import data
from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.tokenizer import check_tokenizer
from smalti.data import PackedImages
from smalti.data.codes import TOKENIZER, WHOLE, CodesAbout, CodeSet, CodeWriter, has_these_codes
from smalti.errors import ConfigError, OutputError, arg
from smalti.features.clustering import check_groups, group
from smalti.files import input_errors, write_atomically
from smalti.pipelines.autoencoder import Autoencoder, check_effort
from smalti.pipelines.base import load_as
from smalti.pipelines.limits import together

Progress = Callable[[int, int | None], None]

MIRRORED = " (mirrored)"  # suffix of the names of mirrored images


@dataclass(frozen=True)
class EncodedSplit:
    """The result of encoding one split of a dataset.

    Attributes:
        folder: of its codes.
        count: number of encoded images, including mirrored ones.
        bits: size of the codes of one image, in bits.
        complete: whether the split was fully encoded before the call.
    """

    folder: Path
    count: int
    bits: float
    complete: bool


def open_splits(
    model: Autoencoder,
    source: str,
    *,
    split: str | None = None,
    size: tuple[int, int] | None = None,
    resize: str = "cover",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[PackedImages]:
    """Open every split of a source, the training split first, with the channels that a model takes.

    Args:
        split: open only this split.
        size: (height, width) to resize the images to; None: the size of the source.
        resize, cache, progress: as in `smalti.datasets.load`. Raises as it does.
    """

    def load(split: str | None, size: tuple[int, int] | None) -> PackedImages:
        channels = model.card.image.channels
        return data.load(
            source, split=split, size=size, resize=resize, channels=channels, cache=cache, progress=progress
        )

    first = load(split, size)
    others = [] if split is not None else [name for name in first.splits if name != first.split]
    return [first, *(load(name, first.shape[1:]) for name in others)]


def group_splits(
    sets: Sequence[PackedImages],
    groups: int,
    *,
    device: str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """Pseudo-labels from clustering the images by their features (features/clustering.py).

    Args:
        sets: from `open_splits`; the clusters are fitted to the first one.
        groups: number of clusters.

    Returns:
        Labels, (N,) int64, for each of the sets.

    Raises:
        ConfigError: the first set is not the training split, or there are more groups than images or too many.
    """
    check_groups(groups)
    if sets[0].split not in (None, "train"):
        raise ConfigError(
            f"{arg('groups')} are learned from the images to train on; leave {arg('split')} out, or give train"
        )
    return group(sets, groups, device=device, cache=cache, progress=progress)


def encode_split(
    model: Autoencoder,
    images: PackedImages,
    out: Path,
    *,
    source: str,
    flip: bool = False,
    effort: int = 0,
    labels: np.ndarray | None = None,
    groups: int = 0,
    progress: Progress | None = None,
) -> EncodedSplit:
    """Encode one split into a code set, or resume an interrupted encoding of it.

    Args:
        images: from `open_splits`.
        out: folder of the code set; the model is copied into it.
        source: origin of the images; the last component of the path is stored.
        flip: also encode the mirrored training images.
        effort: rounds of code refinement, as in `Autoencoder.encode`.
        labels: from `group_splits`, to replace the labels of the images; `groups` is the number of groups.
        progress: called with (images encoded, images in the split), first with 0.

    Raises:
        ConfigError: effort is out of range.
        OutputError: the folder holds other files or other codes, or is not writable.
    """
    check_effort(effort)
    place_tokenizer(model, out)
    mirrored = flip and images.split in (None, "train")
    about = _about(model, images, source, mirrored, effort)
    if labels is not None:
        about = dataclasses.replace(about, classes=tuple(f"group {index}" for index in range(groups)), groups=groups)
    complete = has_these_codes(out, about)
    if not complete:
        own = images.labels if labels is None else labels
        repeated = None if own is None else np.tile(own, 2 if mirrored else 1)
        _write_codes(model, images, CodeWriter(out, about, repeated, together=together(images.shape)), progress)
    bits = sum(np.log2(about.codebook_sizes)) * about.grid[0] * about.grid[1]
    return EncodedSplit(out / (images.split or WHOLE), len(about.names), float(bits), complete)


def encode_dataset(
    model: Autoencoder,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    split: str | None = None,
    size: tuple[int, int] | None = None,
    resize: str = "cover",
    flip: bool = False,
    effort: int = 0,
    groups: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[EncodedSplit]:
    """Encode every split of a source into a code set, or resume an interrupted encoding.

    Args:
        source, split, size, resize, cache: as in `open_splits`.
        out, flip, effort: as in `encode_split`.
        groups: replace the labels by this many clusters of similar images; None: keep the labels.
        progress: called with (images done, images in total or None), for each stage of the work in turn.

    Raises:
        ConfigError, DataError, OutputError: as `open_splits`, `group_splits` and `encode_split`.
    """
    check_effort(effort)
    name = os.fspath(source)
    sets = open_splits(model, name, split=split, size=size, resize=resize, cache=cache, progress=progress)
    found: list[np.ndarray] | list[None] = [None] * len(sets)
    if groups is not None:
        found = group_splits(sets, groups, device=str(model.device), cache=cache, progress=progress)
    return [
        encode_split(
            model, images, Path(out), source=name, flip=flip, effort=effort, labels=labels, groups=groups or 0,
            progress=progress,
        )
        for images, labels in zip(sets, found, strict=True)
    ]  # fmt: skip


def place_tokenizer(model: Autoencoder, out: Path) -> None:
    """Copy a model into the folder of its code set, unless it is already there.

    Raises:
        OutputError: the folder holds another model's codes or other files, or is not writable.
    """
    target = out / TOKENIZER
    if target.exists():
        found = checkpoint.read_card(target).digest
        if found != model.card.digest:
            raise OutputError(
                f"{out} holds codes of the tokenizer {found[:16]}, not of {model.card.digest[:16]}; "
                f"give another {arg('out')}"
            )
        return
    # Names with a dot are temporary files that a killed encoding may have left behind.
    if out.is_file() or (out.is_dir() and any(not item.name.startswith(".") for item in out.iterdir())):
        raise OutputError(f"{out} holds other things than codes; give {arg('out')} a new folder")
    with input_errors(model.path, OutputError):
        content = model.path.read_bytes()
        out.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda file: file.write(content))
    if checkpoint.read_card(target).digest != model.card.digest:
        target.unlink()
        raise OutputError(f"{model.path} was replaced in the meantime, perhaps by its training; run the command again")


def _about(model: Autoencoder, images: PackedImages, source: str, mirrored: bool, effort: int) -> CodesAbout:
    _, height, width = images.shape
    names: Sequence[str] = images.names
    captions = images.captions
    if mirrored:
        names = [*names, *(f"{name}{MIRRORED}" for name in names)]
        captions = None if captions is None else [*captions, *captions]
    return CodesAbout(
        codebook_sizes=model.codebook_sizes,
        grid=(-(-height // model.stride), -(-width // model.stride)),
        image=images.shape,
        tokenizer=model.card.digest,
        source=Path(source).name,
        images=images.fingerprint,
        split=images.split,
        splits=images.splits,
        classes=images.classes,
        names=names,
        captions=captions,
        effort=effort,
    )


def _write_codes(model: Autoencoder, images: PackedImages, writer: CodeWriter, progress: Progress | None) -> None:
    """Encode the images that the writer does not have yet; mirrored images follow the originals."""
    total, chunk = len(writer.about.names), together(images.shape)
    try:
        while writer.done < total:
            if progress is not None:
                progress(writer.done, total)
            rows = np.arange(writer.done, min(writer.done + chunk, total))
            pixels = images.pixels(rows % len(images))
            mirrored = rows >= len(images)
            pixels[mirrored] = pixels[mirrored][:, :, ::-1]
            writer.append(model.encode(pixels, effort=writer.about.effort))
            writer.flush()
        if progress is not None:
            progress(total, total)
        writer.finish()
    finally:
        writer.close()


def open_tokenizer(codes: CodeSet, *, device: str = "cpu") -> Autoencoder:
    """Load the model that encoded a set of codes.

    Raises:
        CheckpointError: it is missing, cannot be read, or is not an autoencoder.
        DataError: it did not encode these codes, or their index does not match it.
    """
    model = load_as(codes.folder / TOKENIZER, Autoencoder, device=device)
    check_tokenizer(codes, model.module, model.card)
    return model


def decode_codes(
    model: Autoencoder, codes: CodeSet, *, first: int = 0, count: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a set of codes, in chunks.

    Args:
        model: from `open_tokenizer`.
        first: number of the first image.
        count: number of images; None: all from `first` on.

    Returns:
        For each chunk, the number of its first image, and its images, (n, H, W, C) uint8.

    Raises:
        ConfigError: first or count is out of range.
        DataError: a code is not in the codebook.
    """
    end = len(codes) if count is None else first + count
    if not 0 <= first < end <= len(codes):
        raise ConfigError(
            f"{arg('first')} is {first} and {arg('count')} {count}, but there are images 0 to {len(codes) - 1}"
        )
    _, height, width = codes.shape
    chunk = together(codes.shape)
    for start in range(first, end, chunk):
        rows = np.arange(start, min(start + chunk, end))
        yield start, model.decode(codes.take(rows).codes)[:, :height, :width]
