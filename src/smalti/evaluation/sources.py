"""Opens the images that an evaluation is taken on: which split of a source, and of which size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smalti import data
from smalti.data import PackedImages
from smalti.errors import SplitError

HELD_OUT = ("test", "val")  # splits that figures are taken on, in this order
EVERYTHING = (None, None, None)

Shape = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Reader:
    """Opens images for an evaluation, all by the same rules.

    Attributes:
        split: the split that figures are taken on; None: test or val if the source has one, else everything.
        size: (height, width) to bring every image to; None: what the model needs, else what the images have.
        resize: "cover", "contain" or "stretch".
        channels: 1, 3 or 4; None: what the model needs, else what the images have.
        cache: folder for packed images; None: the user's.
        progress: called with (what is done, images so far, images in all or None).
    """

    split: str | None = None
    size: tuple[int, int] | None = None
    resize: str = "cover"
    channels: int | None = None
    cache: Path | None = None
    progress: Callable[[str, int, int | None], None] | None = None

    def held_out(self, source: str, shape: Shape = EVERYTHING) -> PackedImages:
        """The images that figures are taken on.

        Args:
            source: as `smalti.datasets.load` takes it. Raises as that does.
            shape: (channels, height, width) that a model needs, for what this reader leaves open.
        """
        if self.split is not None:
            return self.load(source, self.split, shape)
        for name in HELD_OUT:
            with contextlib.suppress(SplitError):
                return self.load(source, name, shape)
        return self.load(source, None, shape)

    def judged(self, source: str, split: str | None = None) -> PackedImages:
        """Images to be scored against others; `split` or the reader's own, if the source has splits.

        Raises:
            SplitError: it has splits, but not this one.
        """
        if split is None and self.split is None:
            return self.held_out(source)
        try:
            return self.load(source, split or self.split)
        except SplitError:
            if split is not None:
                raise
            images = self.load(source, None)
            if images.splits:
                raise
            return images

    def training(self, source: str, reference: PackedImages) -> PackedImages:
        """The images of a source that a model may have been trained on: its training split, else everything.

        Args:
            reference: images whose shape they are brought to.
        """
        return self.load(source, None, reference.shape)

    def load(self, source: str, split: str | None, shape: Shape = EVERYTHING) -> PackedImages:
        """The images of one split; None: the training split if the source has one, else everything."""
        channels, height, width = shape
        size = self.size
        if size is None and height is not None and width is not None:
            size = (height, width)
        tell = self.progress
        return data.load(
            source,
            split=split,
            size=size,
            resize=self.resize,
            channels=self.channels or channels,
            cache=self.cache,
            progress=None if tell is None else lambda done, total: tell(f"packing {source}", done, total),
        )
