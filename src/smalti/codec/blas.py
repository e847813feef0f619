"""One thread for numpy's matrix products where several would only wait for each other.

The products of the context nets are small, or run in threads of ours already. OpenBLAS shares even small ones among all
cores, and its threads wait actively: on a busy machine that took ten times as long. Imports no torch.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import Any, cast


def one_blas_thread() -> AbstractContextManager[Any]:
    """Context with one thread for matrix products of numpy.

    The setting is one of the whole process. Of contexts in several threads the first one's counts; when it ends, the
    others go on with as many threads as before.
    """
    return cast(AbstractContextManager[Any], _controller().limit(limits=1, user_api="blas"))


@functools.cache
def _controller() -> Any:
    """Finding the libraries takes milliseconds, so it is done once."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()
