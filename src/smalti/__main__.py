"""`python -m smalti`, and `torchrun -m smalti`."""

import os
import sys

from smalti.cli import main

if __name__ == "__main__":
    try:
        main()
    except SystemExit as ending:
        if os.environ.get("WORLD_SIZE", "1") == "1" or not isinstance(ending.code, int | None):
            raise
        # One of several ranks has written all it has to. Threads of torch's communication that still run when Python
        # takes itself down can abort it ("terminate called without an active exception"), and torchrun then reports a
        # failure where there was none.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ending.code or 0)
