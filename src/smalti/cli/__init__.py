"""The command line: a thin shell over `smalti.pipelines.base`, `smalti.training.loop` and `smalti.data`.

torch is imported inside the commands that need it, so that help and mistakes answer at once.
A mistake of the user's is one line on stderr and an exit code that is not 0: 1 for what was found (files, models,
data), 2 for what was typed, 128 + n when signal n ended it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from smalti.cli import console, evaluation, models, sources  # noqa: F401 - they add their commands
from smalti.cli.apps import app
from smalti.errors import SmaltiError

__all__ = ["app", "main", "run"]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code and raises nothing for a user's mistake."""
    console.print_log()
    try:
        tokens = list(sys.argv[1:] if arguments is None else arguments)
        result = app(tokens, exit_on_error=False, print_error=False)
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        console.complain(" ".join(str(error).split()) + " See: smalti --help")
        return 2
    except SmaltiError as error:
        console.complain(str(error))
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
