"""One thread for torch's operations where several would only wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_inside = 0
_before = 1


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Context in which this thread's operations of torch run on one thread of the processor.

    torch keeps one part of the number for each thread and another, that of MKL, for the whole process. Of contexts that
    overlap in several threads, all go back to the number from before the first.
    """
    global _inside, _before
    with _lock:
        if not _inside:
            _before = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            torch.set_num_threads(_before)
