"""`smalti info`: what a checkpoint says about itself."""

from __future__ import annotations

from typing import Any

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.options import Flag, ModelPath
from smalti.errors import CheckpointError

LISTED = 20  # classes that are named


@app.command(
    help_epilogue=examples(
        "smalti info runs/photos",
        "smalti info model.safetensors --json",
        "smalti info zoo:thumb",
    )
)
def info(model: ModelPath, /, *, json: Flag = False) -> int:
    """Print everything a checkpoint says about itself.

    Parameters
    ----------
    json:
        Print JSON instead of a table.
    """
    from smalti.checkpoint.file import read_card
    from smalti.checkpoint.run_dir import RunFolder
    from smalti.checkpoint.summary import summarize
    from smalti.config.parse import paths
    from smalti.pipelines.base import find_checkpoint

    file = find_checkpoint(model)
    about = summarize(file)
    try:
        if json:
            print(_json(about, indent=2))
            return 0
        console.facts({name: _plain(value) for name, value in about.items() if name != "config"})
    except RecursionError:
        raise CheckpointError(f"{file}: its card is nested too deeply to print; it was changed or damaged") from None
    console.say()
    console.facts(paths(read_card(file).config))
    if file.parent == model:  # a run folder, and neither a checkpoint file nor zoo:NAME
        events = [record for record in RunFolder(model).records() if "event" in record]
        console.say()
        console.say(f"log: {len(events)} events, the last one {_json(events[-1])}" if events else "log: empty")
    return 0


def _json(value: Any, *, indent: int | None = None) -> str:
    """JSON for any reader: NaN and infinity, which JSON has no words for, become null."""
    import json as encoding

    finite = encoding.loads(encoding.dumps(value), parse_constant=lambda _: None)
    return encoding.dumps(finite, indent=indent, allow_nan=False)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        more = f" and {len(value) - LISTED} more, which --json lists" if len(value) > LISTED else ""
        return ", ".join(map(str, value[:LISTED])) + more or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
