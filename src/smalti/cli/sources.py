"""Commands on sources of images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from smalti.cli.apps import data_app, examples
from smalti.cli.options import Resize


@data_app.command(
    help_epilogue=examples(
        "smalti data inspect photos.zip",
    )
)
def inspect(
    source: str,
    /,
    *,
    split: str | None = None,
    cache: Path | None = None,
) -> int:
    """Look at a source without packing it: images, sizes, splits, classes, broken files.

    Parameters
    ----------
    source:
        A folder, archive, data set file, or the words cifar10, emoji.
    split:
        Look at one split alone.
    cache:
        Folder where downloads are looked for.
    """
    from smalti.cli.listing import run_inspect

    return run_inspect(source, split, cache)


@data_app.command(
    help_epilogue=examples(
        "smalti data pack photos/ --size 64",
    )
)
def pack(
    source: str,
    /,
    *,
    split: str | None = None,
    size: str | None = None,
    resize: Resize = "cover",
    channels: Literal[1, 3, 4] | None = None,
    cache: Path | None = None,
) -> int:
    """Decode a source once into the cache that training reads from; train does this by itself when it must.

    Parameters
    ----------
    source:
        A folder, archive, data set file, or the words cifar10, emoji.
    split:
        Split to pack. Default: train, or everything.
    size:
        64, or 48x64 (height x width).
    resize:
        cover fills and crops the middle, contain fits and pads, stretch distorts.
    channels:
        1 grey, 3 RGB, 4 RGBA. Default: what the images have.
    cache:
        Folder for packed images. Default: the user's cache folder.
    """
    from smalti.cli.listing import run_pack

    return run_pack(source, split, size, resize, channels, cache)
