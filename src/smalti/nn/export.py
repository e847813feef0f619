"""Whether `torch.export` is recording a network, which must then not depend on the size of the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch


def is_exporting() -> bool:
    """Whether `torch.export` is recording; with torch 2.6 also whether `torch.compile` is."""
    ask: Callable[[], bool] = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return ask()
