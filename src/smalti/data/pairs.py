"""Pairs of images from two sources: an image of one, and what should become of it from the other.

    matched      partners have the same name, and a target is exactly `scale` times as large as its input (matching.py)
    not matched  any image of one source beside any image of the other, for learning a style without examples of it

A batch shows the same window, mirrored and moved alike, of an input and its target: both come from the same position of
the same stream (packed.py), and windows of targets begin at `scale` times the positions of those of their inputs.
Without matching, the targets come from a stream of their own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smalti.data.crops import CroppedImages
from smalti.data.loading import Progress, cache_folder, load_source
from smalti.data.matching import Match, Side, partner_keys
from smalti.data.opening import find_source
from smalti.data.packed import AugmentedImages, Batch, PackedImages
from smalti.data.sources import Source
from smalti.errors import ConfigError, DataError, arg
from smalti.runtime.hashing import hash_integer

_TARGET_STREAM = 7  # odd like the streams of flips, shifts and windows, but another number


@dataclass(frozen=True)
class PairBatch(Batch):
    """The pairs of one training step: `images` are the inputs, `indices` their rows; there are no labels.

    Attributes:
        targets: (count, scale H, scale W, C) uint8.
    """

    targets: np.ndarray


class PairedImages:
    """Pairs of images; a `Dataset`.

    Attributes:
        inputs, targets: two data sets of images. Matched ones have the same number and order.
        scale: sides of a target in sides of its input.
        matched: whether a target belongs to its input.
        spec: of a target.
        skipped: (name, reason) of the images of either source that were left out.

    Raises:
        DataError: the two do not belong together.
    """

    def __init__(
        self,
        inputs: PackedImages | CroppedImages | AugmentedImages,
        targets: PackedImages | CroppedImages | AugmentedImages,
        *,
        scale: int = 1,
        matched: bool = True,
        skipped: tuple[tuple[str, str], ...] = (),
    ) -> None:
        given, wanted = inputs.spec, targets.spec
        if (given.channels, scale * given.height, scale * given.width) != wanted.shape:
            raise DataError(
                f"the images of {inputs.source} have {_shape(given.shape)}, the targets of {targets.source} "
                f"{_shape(wanted.shape)}; expected {scale} times the sides and as many channels"
            )
        if matched and len(inputs) != len(targets):
            raise DataError(f"{len(inputs)} images and {len(targets)} targets are no pairs")
        self.inputs, self.targets, self.scale, self.matched, self.skipped = inputs, targets, scale, matched, skipped
        self.spec, self.source, self.split = wanted, inputs.source, inputs.split
        self.classes: tuple[str, ...] = ()
        self.splits: tuple[str, ...] = getattr(inputs, "splits", ())
        parts = ["pairs" if matched else "two styles", str(scale), inputs.fingerprint, targets.fingerprint]
        self.fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        self.provenance = {"targets": Path(targets.source).name, "targets_fingerprint": targets.fingerprint}

    def __len__(self) -> int:
        return len(self.inputs)

    def cropped(self, side: int) -> PairedImages:
        """The same with random windows; `side` is that of a target's window.

        Raises:
            ConfigError: the images are smaller, or `side` is no multiple of the scale.
        """
        assert isinstance(self.inputs, PackedImages)
        assert isinstance(self.targets, PackedImages)
        if side % self.scale:
            raise ConfigError(f"{arg('data.crop')} is {side}, but must be a multiple of {self.scale} for these pairs")
        targets = CroppedImages(self.targets, side, unit=self.scale)
        return self._with(CroppedImages(self.inputs, side // self.scale), targets)

    def augmented(self, *, flip: bool = False, shift: int = 0) -> PairedImages:
        """The same with random flips and translations.

        Raises:
            ConfigError: a translation of pairs of unlike size, which has no counterpart at the reflected borders.
        """
        if shift and self.scale != 1:
            raise ConfigError(f"data.shift is {shift}, but must be 0 for targets that are {self.scale} times as large")
        assert not isinstance(self.inputs, AugmentedImages)
        assert not isinstance(self.targets, AugmentedImages)
        options = {"flip": flip, "shift": shift}
        return self._with(self.inputs.augmented(**options), self.targets.augmented(**options))  # type: ignore[arg-type]

    def batch(self, seed: int, images_seen: int, count: int) -> PairBatch:
        """The pairs at positions images_seen .. images_seen + count - 1 of this seed's shuffled stream.

        Raises:
            ValueError: `images_seen` or `count` is negative.
            DataError: a packed file was truncated.
        """
        given = self.inputs.batch(seed, images_seen, count)
        own = seed if self.matched else int(hash_integer(hash_integer(seed) ^ hash_integer(_TARGET_STREAM)))
        return PairBatch(given.images, None, given.indices, self.targets.batch(own, images_seen, count).images)

    def take(self, indices: np.ndarray) -> PairBatch:
        """The inputs with these indices and their targets; without matching, targets spread over all of them."""
        given = self.inputs.take(indices)
        rows = indices if self.matched else np.asarray(indices) * len(self.targets) // len(self.inputs)
        return PairBatch(given.images, None, given.indices, self.targets.take(rows).images)

    def _with(self, inputs: CroppedImages | AugmentedImages, targets: CroppedImages | AugmentedImages) -> PairedImages:
        return PairedImages(inputs, targets, scale=self.scale, matched=self.matched, skipped=self.skipped)


def load_pairs(
    source: str | os.PathLike[str],
    targets: str | os.PathLike[str],
    *,
    size: tuple[int, int] | int | None = None,
    resize: str = "cover",
    channels: int | None = None,
    split: str | None = None,
    scale: int = 1,
    matched: bool = True,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> PairedImages:
    """Load two sources as pairs. Both are packed on disk the first time and opened immediately after that.

    Args:
        source: the inputs, as `load` takes them.
        targets: what should become of them.
        size: (height, width) of the targets in pixels, or one number for both; None keeps the size.
        resize, channels, split, cache, progress: as in `load`, for both alike.
        scale: how many times as large a target is as its input, along each side.
        matched: partners have the same name; False: the two sources are unrelated.

    Raises:
        DataError: a source is missing, empty or damaged; no two names are the same; most of the images have no
            partner, or one of an unlike size; or images differ in size and no size is given.
        ConfigError: an invalid resize rule, number of channels, size or scale.
        OutputError: the cache cannot be written.
    """
    if not 1 <= scale <= 8:
        raise ConfigError(f"{arg('scale')} is {scale}, but must be from 1 to 8")
    wanted = (size, size) if isinstance(size, int) else size
    if wanted is not None and any(side % scale for side in wanted):
        raise ConfigError(
            f"{arg('size')} is {wanted[0]}x{wanted[1]}, but must be a multiple of {scale}: that of the targets, which "
            f"are {scale} times as large as the images"
        )
    if scale != 1 and resize == "contain":
        raise ConfigError(f"{arg('resize')} is 'contain', whose padding may differ by a pixel; take cover or crop")
    place = cache_folder(cache)
    found = [find_source(name, cache=place, progress=progress) for name in (source, targets)]
    sides: Sequence[Source] = found
    if matched:
        match = Match(found[0], found[1], scale)
        sides = [Side(match, 0), Side(match, 1)]
    packs: list[PackedImages] = []
    for side, unit in zip(sides, (1, scale), strict=True):
        own = wanted if wanted is None or unit == scale else (wanted[0] // scale, wanted[1] // scale)
        name = os.fspath(source if len(packs) == 0 else targets)
        packs.append(
            load_source(
                side, name, size=own, resize=resize, channels=channels, split=split, unit=unit, cache=place,
                progress=progress,
            )
        )  # fmt: skip
        if not matched and len(packs) == 1:  # the second style in the shape of the first
            channels, height, width = packs[0].shape
            wanted = (height, width)
    inputs, others = packs
    skipped = tuple(dict.fromkeys([*inputs.skipped, *others.skipped]))
    if matched:
        inputs, others = _same_rows(inputs, others)
    return PairedImages(inputs, others, scale=scale, matched=matched, skipped=skipped)


def _same_rows(inputs: PackedImages, targets: PackedImages) -> tuple[PackedImages, PackedImages]:
    """Both without the images whose partner could not be decoded, in the order of the inputs."""
    keys = partner_keys(inputs.names, targets.names)
    if keys[0] == keys[1]:
        return inputs, targets
    rows = {key: row for row, key in enumerate(keys[1])}
    kept = [(row, rows[key]) for row, key in enumerate(keys[0]) if key in rows]
    if not kept:
        raise DataError(f"{inputs.source} and {targets.source} share no image that can be read")
    chosen = np.array(kept, np.int64)
    return inputs.subset(chosen[:, 0]), targets.subset(chosen[:, 1])


def _shape(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]}x{shape[2]} pixels in {shape[0]} channels"
