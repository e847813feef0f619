"""When a training stops: signals, the time budget, and agreement between ranks."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

from smalti.runtime.distributed import all_reduce_max, world
from smalti.training.writer import Progress

AGREE_EVERY = 8  # steps between the collective calls in which ranks agree whether to stop
SAVE_SECONDS = 600.0  # longest time without a save


def agree(stopped_by: int, over: bool, *, step: int) -> tuple[int, bool]:
    """The stop signal and the expired time budget, agreed between ranks: each may notice them in another step."""
    if world() == 1:
        return stopped_by, over
    if step % AGREE_EVERY:
        return 0, False
    agreed = all_reduce_max(2 * stopped_by + over)
    return agreed // 2, bool(agreed % 2)


class Clock:
    """Wall-clock time in the loop: in total, including before a resume, and since the last lap."""

    def __init__(self, progress: Progress) -> None:
        self.start = time.monotonic() - progress.seconds
        self.lap_images, self.lap_time = progress.images_seen, time.monotonic()
        self.saved()

    def seconds(self) -> float:
        return time.monotonic() - self.start

    def lap(self, images_seen: int) -> float:
        """Images per second since the last lap."""
        now = time.monotonic()
        rate = (images_seen - self.lap_images) / max(now - self.lap_time, 1e-9)
        self.lap_images, self.lap_time = images_seen, now
        return round(rate, 1)

    def saved(self) -> None:
        self.save_time = time.monotonic()

    def save_is_old(self) -> bool:
        """Whether a save is due by time, so that a crash loses little work. Saving does not affect the results."""
        return time.monotonic() - self.save_time > SAVE_SECONDS


class StopSignals:
    """Handles Ctrl-C, SIGTERM and SIGHUP: the first ends the loop after its step, a second has its default effect."""

    received = 0  # number of the signal received, 0 if none

    def __enter__(self) -> StopSignals:
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # SIGHUP does not exist on Windows
                number = getattr(signal, name, None)
                # A signal that is ignored, as under nohup, stays ignored; None is a handler that Python cannot restore.
                if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._previous[number])

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
