"""`smalti presets`, `smalti data inspect` and `smalti data pack`."""

from __future__ import annotations

from pathlib import Path

from smalti import data
from smalti.cli import console
from smalti.config.parse import paths
from smalti.config.presets import PRESETS, preset
from smalti.config.units import parse_size

LISTED = 20  # broken files, classes or sizes shown


def run_presets(name: str | None) -> int:
    """List the presets, or one's settings."""
    if name is not None:
        config = preset(name)
        console.say(f"# {PRESETS[name].about}")
        if PRESETS[name].measured:
            console.say(f"# {PRESETS[name].measured}")
        for path, value in paths(config).items():
            if path not in ("recipe", "preset"):
                console.say(f"{path}={_typed(value)}")
        return 0
    console.table(
        ("preset", "recipe", "what it is", "measured"),
        [(key, entry.config.recipe, entry.about, entry.measured) for key, entry in PRESETS.items()],
    )
    return 0


def run_inspect(source: str, split: str | None, cache: Path | None) -> int:
    """Say what a source holds. Exit code 1 when some of its files are broken."""
    from smalti.cli.progress import counting

    with counting("looking") as progress:
        summary = data.inspect(source, split=split, cache=cache, progress=progress)
    console.facts(
        {
            "source": summary.source,
            "kind": summary.kind,
            "images": f"{summary.images:,}" + (f" in split {summary.split}" if summary.split else ""),
            "splits": _counts(summary.splits),
            "classes": _counts(summary.classes),
            "sizes": _counts({f"{height}x{width}": count for (height, width), count in summary.sizes.items()}),
            "modes": _counts(summary.modes),
            "captions": f"{summary.captions:,}",
            "other files": f"{summary.ignored:,}",
            "broken": f"{len(summary.broken):,}",
        }
    )
    for name, reason in summary.broken:
        console.say(f"  {name}: {reason}")
    console.say(f"try: {summary.suggestion}")
    return 1 if summary.broken else 0


def run_pack(
    source: str, split: str | None, size: str | None, resize: str, channels: int | None, cache: Path | None
) -> int:
    """Pack a source and say where."""
    from smalti.cli.progress import counting

    with counting("packing") as progress:
        packed = data.load(
            source,
            split=split,
            size=parse_size(size) if size is not None else None,
            resize=resize,
            channels=channels,
            cache=cache,
            progress=progress,
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


def _counts(numbers: dict[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(numbers.items())[:LISTED]]
    if len(numbers) > LISTED:
        shown.append(f"and {len(numbers) - LISTED} more")
    return ", ".join(shown) or "none"


def _typed(value: object) -> str:
    """A value as --set reads it back."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{value[0]}, {value[1]}]" if isinstance(value, tuple) else str(value)
