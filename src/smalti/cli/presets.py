"""`smalti presets`: the presets and their settings."""

from __future__ import annotations

from smalti.cli import console
from smalti.cli.apps import app, examples


@app.command(
    help_epilogue=examples(
        "smalti presets",
        "smalti presets vqvae",
    )
)
def presets(name: str | None = None, /) -> int:
    """List the presets, or print every setting of one.

    Parameters
    ----------
    name:
        Preset whose settings to print, each in the form that --set takes.
    """
    if name is None:
        list_presets()
    else:
        print_settings(name)
    return 0


def list_presets() -> None:
    """A table of all presets."""
    from smalti.config.presets import PRESETS

    console.table(
        ("preset", "recipe", "what it is", "measured"),
        [(key, entry.config.recipe, entry.about, entry.measured) for key, entry in PRESETS.items()],
    )


def print_settings(name: str) -> None:
    """Every setting of a preset, one on a line."""
    from smalti.config.parse import paths
    from smalti.config.presets import PRESETS, preset

    config = preset(name)
    console.say(f"# {PRESETS[name].about}")
    if PRESETS[name].measured:
        console.say(f"# {PRESETS[name].measured}")
    for path, value in paths(config).items():
        if path not in ("recipe", "preset"):
            console.say(f"{path}={_typed(value)}")


def _typed(value: object) -> str:
    """A value in the form that --set reads."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{value[0]}, {value[1]}]" if isinstance(value, tuple) else str(value)
