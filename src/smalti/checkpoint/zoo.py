"""The zoo: trained models that come with smalti, opened as `zoo:NAME` wherever a run or a checkpoint is taken.

    src/smalti/zoo/NAME.safetensors      the checkpoint
    src/smalti/zoo/NAME.md               its model card: a heading, what the model is for, and a table of facts

The table has a row for each of `ROWS`; `src/smalti/zoo/README.md` says what stands in them. Imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smalti.errors import CheckpointError, OutputError, arg, command, did_you_mean
from smalti.files import input_errors

PREFIX = "zoo:"
FOLDER = Path(__file__).parents[1] / "zoo"
ROWS = ("kind", "data", "trained by", "steps", "score", "licence")
_ROW = re.compile(r"\|\s*([^|]*?)\s*\|\s*(.*?)\s*\|")


@dataclass(frozen=True)
class ZooCard:
    """What the model card of one model says.

    Attributes:
        about: the first paragraph: what the model is for.
        facts: the rows of its tables, by their first cell.
        text: the whole card, Markdown.
    """

    about: str
    facts: Mapping[str, str]
    text: str


def zoo_names() -> tuple[str, ...]:
    """Names of the models in the zoo, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def zoo_file(name: str) -> Path:
    """The checkpoint of a model of the zoo.

    Raises:
        CheckpointError: the zoo has no model of that name; the message names the closest one.
    """
    names = zoo_names()
    if name not in names:
        raise CheckpointError(f"the zoo has no model {name!r}; {did_you_mean(name, names)}")
    return FOLDER / f"{name}.safetensors"


def resolve(path: str | os.PathLike[str]) -> Path:
    """The path itself, or the file that it stands for if it is `zoo:NAME`.

    A file in the current folder that is itself called `zoo:NAME` is never meant; its absolute path opens it.

    Raises:
        CheckpointError: the zoo has no model of that name.
    """
    text = os.fspath(path)
    return zoo_file(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else Path(path)


def refuse_output(path: str | os.PathLike[str], name: str = "out") -> None:
    """Refuse `zoo:NAME` as a place to write to.

    Args:
        name: of the argument, for the message.

    Raises:
        OutputError: the path begins so.
    """
    if os.fspath(path).startswith(PREFIX):
        raise OutputError(
            f"{arg(name, os.fspath(path))} names a model that comes with smalti, and nothing can be written there; "
            "give a file or folder of your own"
        )


def zoo_card_text(name: str) -> str:
    """The model card of a model of the zoo, Markdown.

    Raises:
        CheckpointError: the zoo has no model of that name, or its card is missing or cannot be read.
    """
    file = zoo_file(name).with_suffix(".md")
    if not file.exists():
        raise CheckpointError(f"the zoo's model {name!r} has no card, expected {file}; install smalti again")
    with input_errors(file, CheckpointError):
        return file.read_text(encoding="utf-8", errors="replace")


def read_zoo_card(name: str) -> ZooCard:
    """The model card of a model of the zoo, taken apart.

    Raises:
        CheckpointError: as `zoo_card_text`.
    """
    text = zoo_card_text(name)
    facts: dict[str, str] = {}
    for line in text.splitlines():
        row = _ROW.fullmatch(line.strip())
        if row and row[1].strip("-: "):  # neither the empty head of a table nor the line under it
            facts.setdefault(row[1], row[2])
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*$", "\n", text)))
    about = next((part for part in paragraphs if part and not part.startswith("|")), "")
    return ZooCard(about, facts, text)


def not_there(path: str | os.PathLike[str]) -> str:
    """What to do about a model path that leads nowhere, as the end of an error message."""
    if os.fspath(path) in zoo_names():
        return f"did you mean {PREFIX}{os.fspath(path)}?"
    return f"give a run folder or a .safetensors file from {command('train')}"
