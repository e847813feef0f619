"""The command line: one file for each command, with its options, its help and what it prints.

The work is done by `smalti.training`, `smalti.pipelines`, `smalti.evaluation` and `smalti.data`. These and torch are
imported inside of the commands, so that help and mistakes answer at once.
A mistake of the user's is one line on stderr and an exit code that is not 0: 1 for what was found (files, models,
data), 2 for what was typed, 128 + n when signal n ended it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

# Each of these adds its command to the tree.
from smalti.cli import (  # noqa: F401
    compare_codecs,
    compress,
    console,
    decode,
    decompress,
    degrade,
    demo,
    encode,
    fill,
    generate,
    info,
    invert,
    presets,
    reconstruct,
    restore,
    restyle,
    train,
    vary,
    zoo,
)
from smalti.cli.apps import app
from smalti.errors import SmaltiError

__all__ = ["app", "load_subcommands", "main", "run"]

# Files of the commands one level down. They are imported when their tree is typed: `smalti --help` does not list them.
SUBCOMMANDS = {
    "data": ("inspect", "pack"),
    "evaluate": (
        "evaluate_autoencoder",
        "evaluate_compare",
        "evaluate_doctor",
        "evaluate_encoder",
        "evaluate_folder",
        "evaluate_generator",
        "evaluate_prior",
    ),
}


def load_subcommands(name: str) -> None:
    """Add the commands below `smalti data` or `smalti evaluate` to the tree; nothing for other names."""
    for file in SUBCOMMANDS.get(name, ()):
        importlib.import_module(f"smalti.cli.{file}")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code and raises nothing for a user's mistake."""
    try:
        tokens = list(sys.argv[1:] if arguments is None else arguments)
        if tokens:
            load_subcommands(tokens[0])
        result = app(tokens, exit_on_error=False, print_error=False)
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        console.complain(" ".join(str(error).split()) + " See: smalti --help")
        return 2
    except SmaltiError as error:
        console.complain(error)
        return 1
    except KeyboardInterrupt:
        console.complain("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as `smalti presets | head -1` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # The last resort: where a file is opened, the line says more than this one.
        console.complain(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
        return 1
    except (MemoryError, RuntimeError) as error:
        if not console.too_little_memory(error):
            raise
        console.complain("there is too little memory for this; take a smaller --batch, --size or --count")
        return 1


def main() -> None:
    sys.exit(run())
