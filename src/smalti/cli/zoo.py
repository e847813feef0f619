"""`smalti zoo`: the trained models that come with smalti."""

from __future__ import annotations

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.errors import CheckpointError


@app.command(
    help_epilogue=examples(
        "smalti zoo",
        "smalti zoo thumb",
    )
)
def zoo(name: str | None = None, /) -> int:
    """List the trained models that come with smalti, or print the card of one.

    Parameters
    ----------
    name:
        Model whose card to print. Every command that takes a trained model takes it as zoo:NAME.
    """
    from smalti.checkpoint.zoo import PREFIX, zoo_card_text

    if name is None:
        list_models()
        return 0
    for line in zoo_card_text(name.removeprefix(PREFIX)).splitlines():
        console.say(line)
    return 0


def list_models() -> None:
    """A table of all models in the zoo."""
    from smalti.checkpoint.zoo import PREFIX, zoo_names

    names = zoo_names()
    if not names:
        console.note("no trained models come with this version of smalti")
        return
    console.table(("name", "kind", "MB", "what it is for", "score", "data", "licence"), map(_row, names))
    console.note(f"in any command in the place of a run: {PREFIX}{names[0]}; its card: smalti zoo {names[0]}")


def _row(name: str) -> tuple[str, ...]:
    """One model; a card that is missing leaves its cells empty, so that the others are still listed."""
    from smalti.checkpoint.zoo import read_zoo_card, zoo_file

    megabytes = f"{zoo_file(name).stat().st_size / 1e6:.1f}"
    try:
        card = read_zoo_card(name)
    except CheckpointError as error:
        console.note(f"warning: {error}")
        return name, "", megabytes, "", "", "", ""
    kind, score, data, licence = (_first(card.facts.get(row, "")) for row in ("kind", "score", "data", "licence"))
    return name, kind, megabytes, card.about, score, data, licence


def _first(text: str) -> str:
    """What stands before the first semicolon."""
    return text.partition("; ")[0]
