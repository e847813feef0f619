"""`smalti data pack`: a source of images decoded once, for training."""

from __future__ import annotations

from smalti.cli import console
from smalti.cli.apps import data_app, examples
from smalti.cli.options import Cache, Channels, ResizeRule, SourcePath
from smalti.cli.progress import counting


@data_app.command(
    help_epilogue=examples(
        "smalti data pack photos/ --size 64",
    )
)
def pack(
    source: SourcePath,
    /,
    *,
    split: str | None = None,
    size: str | None = None,
    resize: ResizeRule = "cover",
    channels: Channels | None = None,
    cache: Cache = None,
) -> int:
    """Decode a source once into the cache that training reads from; smalti train does this by itself when necessary.

    Parameters
    ----------
    split:
        Split to pack. Default: train, or everything.
    size:
        64, or 48x64 (height x width).
    channels:
        1 grey, 3 RGB, 4 RGBA. Default: what the images have.
    """
    from smalti import data
    from smalti.config.units import parse_size

    wanted = parse_size(size) if size is not None else None
    with counting("packing") as progress:
        packed = data.load(
            source, split=split, size=wanted, resize=resize, channels=channels, cache=cache, progress=progress
        )
    depth, height, width = packed.shape
    console.facts(
        {
            "images": f"{len(packed):,} of {height}x{width}x{depth}",
            "split": packed.split or "none",
            "classes": ", ".join(packed.classes) or "none",
            "fingerprint": packed.fingerprint,
            "skipped": f"{len(packed.skipped):,}",
            "cache": cache or data.default_cache_folder(),
        }
    )
    for name, reason in packed.skipped:
        console.say(f"  {name}: {reason}")
    return 0
