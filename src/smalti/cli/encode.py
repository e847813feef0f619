"""`smalti encode` and `decode`: a source of images to a set of codes, and back."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smalti import data
from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.tokenizer import check_tokenizer
from smalti.cli import console
from smalti.cli.generate import COUNT, GRID_LIMIT, check_pixels, refuse_numbered, together
from smalti.cli.progress import counting
from smalti.cli.train import say_what_was_skipped
from smalti.config.units import parse_size
from smalti.data import PackedImages
from smalti.data.codes import TOKENIZER, CodesAbout, CodeWriter, has_these_codes, open_codes
from smalti.errors import ConfigError, OutputError
from smalti.features.clustering import check_groups, group
from smalti.files import input_errors, write_atomically
from smalti.pipelines import base as api
from smalti.pipelines.base import Model
from smalti.report.pictures import write_png

MIRRORED = " (mirrored)"  # after the name of an image that is encoded a second time


def run_encode(
    path: Path,
    source: str,
    out: Path,
    split: str | None,
    size: str | None,
    resize: str,
    flip: bool,
    effort: int,
    groups: int | None,
    device: str,
    cache: Path | None,
) -> int:
    """Encode one split, or all there are; goes on where an earlier encoding was stopped."""
    api.check_effort(effort)
    if groups is not None:
        check_groups(groups)
    model = api.load(path, device=device)
    codebook_sizes = model.codebook_sizes  # says so if the model has no codes
    wanted = None if size is None else parse_size(size)
    channels = model.card.image[0]
    with counting("packing") as packing:
        load = functools.partial(
            data.load, source, size=wanted, resize=resize, channels=channels, cache=cache, progress=packing
        )
        first = load(split=split)
        others = [] if split is not None else [name for name in first.splits if name != first.split]
        sets = [first, *(load(split=name, size=first.shape[1:]) for name in others)]
    found: list[np.ndarray] = []
    if groups is not None:
        if first.split not in (None, "train"):
            raise ConfigError("--groups are learned from the images to train on; leave --split out, or give train")
        with counting("grouping") as tell:
            found = group(sets, groups, device=device, cache=cache, progress=tell)
    _place_tokenizer(model, out)
    for number, images in enumerate(sets):
        say_what_was_skipped(images)
        mirrored = flip and images.split in (None, "train")
        about = _about(model, images, codebook_sizes, source, mirrored, effort)
        labels = images.labels
        if groups is not None:
            labels, names = found[number], tuple(f"group {index}" for index in range(groups))
            about = dataclasses.replace(about, classes=names, groups=groups)
        labels = None if labels is None else np.tile(labels, 2 if mirrored else 1)
        where = out / (images.split or "all")
        if has_these_codes(out, about):
            console.note(f"{where} holds these codes already")
            continue
        _encode(model, images, CodeWriter(out, about, labels, together=together(images.shape)), effort)
        bits = sum(np.log2(codebook_sizes)) * about.grid[0] * about.grid[1]
        console.note(f"{len(about.names):,} images, {bits:g} bits each: {where}")
    guided = () if groups is None else ("--set", "model.condition=class")
    console.suggest("train", "prior-nano", "--data", str(out), *guided, "--out", "FOLDER")
    return 0


def _place_tokenizer(model: Model, out: Path) -> None:
    """Lay a copy of the tokenizer beside the codes, where there is none."""
    place = out / TOKENIZER
    if place.exists():
        found = checkpoint.read_card(place).digest
        if found != model.card.digest:
            raise OutputError(
                f"{out} holds codes of the tokenizer {found[:16]}, not of {model.card.digest[:16]}; give another --out"
            )
        return
    # What a killed encoding may have left of the copy begins with a dot.
    if out.is_file() or (out.is_dir() and any(not item.name.startswith(".") for item in out.iterdir())):
        raise OutputError(f"{out} holds other things than codes; give --out a new folder")
    with input_errors(model.path, OutputError):
        content = model.path.read_bytes()
        out.mkdir(parents=True, exist_ok=True)
    write_atomically(place, lambda file: file.write(content))
    if checkpoint.read_card(place).digest != model.card.digest:
        place.unlink()
        raise OutputError(f"{model.path} was replaced in the meantime, by its training perhaps; give the command again")


def _about(
    model: Model, images: PackedImages, codebook_sizes: tuple[int, ...], source: str, mirrored: bool, effort: int
) -> CodesAbout:
    _, height, width = images.shape
    stride = model.stride
    names: Sequence[str] = images.names
    captions = images.captions
    if mirrored:
        names = [*names, *(f"{name}{MIRRORED}" for name in names)]
        captions = None if captions is None else [*captions, *captions]
    return CodesAbout(
        codebook_sizes, (-(-height // stride), -(-width // stride)), images.shape, model.card.digest, Path(source).name,
        images.fingerprint, images.split, images.splits, images.classes, names, captions, effort,
    )  # fmt: skip


def _encode(model: Model, images: PackedImages, writer: CodeWriter, effort: int) -> None:
    total, chunk = len(writer.about.names), together(images.shape)
    with counting("encoding") as tell:
        try:
            while writer.done < total:
                rows = np.arange(writer.done, min(writer.done + chunk, total))
                pixels = images.pixels(rows % len(images))
                turned = rows >= len(images)
                pixels[turned] = pixels[turned][:, :, ::-1]
                writer.append(model.encode(pixels, effort=effort))
                writer.flush()
                tell(writer.done, total)
            writer.finish()
        except KeyboardInterrupt:
            console.note(f"stopped after {writer.done:,} of {total:,} images. Give the same command again to go on.")
            raise
        finally:
            writer.close()


def run_decode(
    path: Path, out: Path, split: str | None, first: int, count: int | None, device: str, overwrite: bool
) -> int:
    """Images of codes, into one grid or a file each."""
    codes = open_codes(path, split)
    if not 0 <= first < len(codes):
        raise ConfigError(f"--first is {first}, but {path} has images 0 to {len(codes) - 1}")
    gridded = out.suffix.lower() == ".png"
    left = len(codes) - first
    if count is None:
        count = min(COUNT, left) if gridded else left
    if not 1 <= count <= (min(GRID_LIMIT, left) if gridded else left):
        limit = f", and in one grid at most {GRID_LIMIT}" if gridded else ""
        raise ConfigError(f"--count is {count}, but must be from 1 to {left}{limit}")
    model = api.load(path / TOKENIZER, device=device)
    check_tokenizer(codes, model.module, model.card)
    _, height, width = codes.shape

    def pictures(start: int, end: int) -> np.ndarray:
        return model.decode(codes.take(np.arange(start, end)).codes)[:, :height, :width]

    if gridded:
        check_pixels(codes.shape, count)
        console.free_to_write(out, overwrite)
        api.save_grid(pictures(first, first + count), out, text=model.provenance(source=codes.source))
        console.note(f"{count} images: {out}")
        return 0
    if not overwrite:
        refuse_numbered(out)
    chunk = together(codes.shape)
    for start in range(first, first + count, chunk):
        end = min(start + chunk, first + count)
        for number, picture in enumerate(pictures(start, end), start):
            write_png(out / f"{number:06d}.png", picture, model.provenance(source=codes.about.names[number]))
    console.note(f"{count} images: {out}/")
    return 0
