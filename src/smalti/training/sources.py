"""Opens the training set and the held-out set that a configuration names."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smalti import data
from smalti.config.data import DataConfig
from smalti.config.kinds import KINDS
from smalti.config.run import RunConfig
from smalti.data import PackedImages, PairedImages
from smalti.data.codes import CodeSet, is_code_set, open_codes
from smalti.data.crops import CroppedImages
from smalti.data.dataset import Dataset
from smalti.errors import ConfigError, DataError, arg, command
from smalti.runtime.distributed import raise_together, rank

Progress = Callable[[int, int | None], None]

HELD_OUT_SPLITS = ("val", "test")  # in this order, so that the test split stays unseen if there are both


@dataclass(frozen=True)
class HeldOut:
    """Sources of the held-out set, and for pairs of its targets; None: a split of the training source."""

    source: str | None = None
    targets: str | None = None


def open_training_data(
    config: RunConfig,
    held_out: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    *,
    held_out_targets: str | None = None,
) -> tuple[Dataset, Dataset | None]:
    """The training set and the held-out set, or None. A collective call: all ranks must make it.

    Args:
        config: its recipe determines whether images or codes are opened; `config.data` names the source.
        held_out: source of the held-out set; None: the val or test split of the training source, if it has one.
        cache: folder for packed images.
        progress: called on rank 0 with (images packed, images in total or None).
        held_out_targets: with pairs, the targets of `held_out`.

    Raises:
        ConfigError: codes for a recipe that trains on images or vice versa, or settings that do not apply to codes.
        DataError: a source is missing, damaged or empty.
    """
    places = HeldOut(held_out, held_out_targets)
    with raise_together():
        if rank() == 0:
            found = _open(config, places, cache, progress)
    with raise_together():
        if rank() != 0:  # rank 0 has packed the images by now, so this only opens them
            found = _open(config, places, cache, None)
    return found


def _open(
    config: RunConfig, held_out: HeldOut, cache: str | os.PathLike[str] | None, progress: Progress | None
) -> tuple[Dataset, Dataset | None]:
    source, recipe, expected = config.data.source, config.recipe, config.kind.data
    targets = config.data.targets
    if targets is not None and expected != "pairs" and not config.kind.pairs:
        learners = " and ".join(name for name, kind in KINDS.items() if kind.pairs or kind.data == "pairs")
        raise ConfigError(
            f"{arg('targets', targets)} is for the recipes {learners}, but {recipe} does not learn from pairs; leave "
            f"{arg('targets')} out"
        )
    if expected == "pairs" and targets is None:
        raise ConfigError(
            f"the recipe {recipe} learns from two sources; give {arg('targets', 'SOURCE')}, what should become of "
            f"the images of {source}"
        )
    if expected not in _OPENERS:
        raise ConfigError(
            f"the recipe {recipe} learns {expected}, which no source holds; "
            "open the data in Python and give them to smalti.train"
        )
    found = "codes" if is_code_set(Path(source)) else "images" if targets is None else "pairs"
    expected = found if found == "pairs" else expected
    if found == expected:
        if held_out.targets is not None and (found != "pairs" or held_out.source is None):
            reason = "there are no pairs" if found != "pairs" else f"{arg('held_out')} is missing"
            raise ConfigError(f"{arg('held_out_targets', held_out.targets)} was given, but {reason}")
        return _OPENERS[expected](config, held_out, cache, progress)
    if expected == "codes":
        raise ConfigError(
            f"the recipe {recipe} learns codes, and {source} holds images; "
            f"write codes with {command('encode', 'RUN', 'SOURCE', out='CODES')}, then give {arg('data', 'CODES')}"
        )
    learners = " or ".join(name for name, kind in KINDS.items() if kind.data == "codes")
    raise ConfigError(f"{source} holds codes, which the recipe {learners} learns; {recipe} learns images, so give some")


def _open_codes(
    config: RunConfig, held_out: HeldOut, cache: str | os.PathLike[str] | None, progress: Progress | None
) -> tuple[CodeSet, CodeSet | None]:
    choice = config.data
    if choice.size is not None or choice.channels is not None or choice.shift:
        raise ConfigError(
            f"codes have the size that their images were encoded at; give {arg('size')} to {command('encode')}"
        )
    if choice.flip or choice.resize != DataConfig().resize:
        raise ConfigError(
            f"codes can be neither mirrored nor resized; give {arg('flip')} and {arg('resize')} to {command('encode')}"
        )
    codes = open_codes(choice.source, choice.split)
    location = Path(held_out.source or choice.source)
    if held_out.source is not None and not is_code_set(location):
        raise DataError(f"{arg('held_out', held_out.source)} holds no codes, which {arg('data', choice.source)} does")
    present = (
        split for split in HELD_OUT_SPLITS if (location / split).is_dir() and (held_out.source or split != codes.split)
    )
    split = next(present, None)
    return codes, open_codes(location, split) if held_out.source or split else None


def _open_images(
    config: RunConfig, held_out: HeldOut, cache: str | os.PathLike[str] | None, progress: Progress | None
) -> tuple[Dataset, Dataset | None]:
    images, others = _open_packed(config, held_out, cache, progress)
    side = config.data.crop
    if side is None:
        return images, others
    return CroppedImages(images, side), None if others is None else CroppedImages(others, side)


def _open_pairs(
    config: RunConfig, held_out: HeldOut, cache: str | os.PathLike[str] | None, progress: Progress | None
) -> tuple[PairedImages, PairedImages | None]:
    choice = config.data
    assert choice.targets is not None
    load = functools.partial(
        data.load_pairs, resize=choice.resize, cache=cache, progress=progress,
        scale=getattr(config.model, "scale", 1), matched=getattr(config.model, "matched", True),
    )  # fmt: skip
    pairs = load(choice.source, choice.targets, split=choice.split, size=choice.size, channels=choice.channels)
    channels, height, width = pairs.spec.shape
    load = functools.partial(load, size=(height, width), channels=channels)
    others: PairedImages | None = None
    if held_out.source is None:
        split = _held_out_split(pairs)
        others = None if split is None else load(choice.source, choice.targets, split=split)
    elif held_out.targets is None:
        raise ConfigError(
            f"{arg('held_out', held_out.source)} needs its targets; give {arg('held_out_targets', 'SOURCE')}"
        )
    else:
        others = load(held_out.source, held_out.targets)
        split = _held_out_split(others)
        others = others if split is None else load(held_out.source, held_out.targets, split=split)
    if choice.crop is None:
        return pairs, others
    return pairs.cropped(choice.crop), None if others is None else others.cropped(choice.crop)


def _open_packed(
    config: RunConfig, held_out: HeldOut, cache: str | os.PathLike[str] | None, progress: Progress | None
) -> tuple[PackedImages, PackedImages | None]:
    choice = config.data
    load = functools.partial(data.load, resize=choice.resize, cache=cache, progress=progress)
    images = load(choice.source, split=choice.split, size=choice.size, channels=choice.channels)
    channels, height, width = images.shape
    load = functools.partial(load, size=(height, width), channels=channels)
    if held_out.source is None:
        split = _held_out_split(images)
        return images, None if split is None else load(choice.source, split=split)
    others = load(held_out.source)
    split = _held_out_split(others)
    return images, others if split is None else load(held_out.source, split=split)


def _held_out_split(images: PackedImages | PairedImages) -> str | None:
    return next((split for split in HELD_OUT_SPLITS if split in images.splits and split != images.split), None)


# Keys are the values of `ModelKind.data`.
_OPENERS: dict[str, Callable[..., tuple[Dataset, Dataset | None]]] = {
    "images": _open_images,
    "pairs": _open_pairs,
    "codes": _open_codes,
}


def refuse_writing_into_the_data(config: RunConfig, out: Path, cache: Path | None = None) -> None:
    """Check that the run folder and the cache are outside the training source.

    Previews written into the source would be read as training images the next time it is opened.

    Raises:
        ConfigError: one of them is inside.
    """
    for word, given in (("data", config.data.source), ("targets", config.data.targets)):
        source = Path(given or "")
        if given is None or not source.is_dir():
            continue
        for name, path in (("out", out), ("cache", cache)):
            if path is not None and path.resolve().is_relative_to(source.resolve()):
                raise ConfigError(
                    f"{arg(name, path)} lies inside the images of {arg(word, source)}; give a path outside"
                )
