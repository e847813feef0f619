"""Progress on a terminal: a bar for a training, with its rate, the time left and some losses; bars for other work."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from smalti.cli.console import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_SECONDS = 10.0  # between two lines when nobody watches a terminal


class TerminalReporter:
    """Shows a training's progress.

    Args:
        headline: names of the logged terms to show.
        budget_seconds: when a training ends by the clock, the bar shows time instead of images.
    """

    def __init__(self, headline: tuple[str, ...], *, budget_seconds: float | None = None, quiet: bool = False) -> None:
        self.headline, self.budget_seconds, self.quiet = headline, budget_seconds, quiet
        self.console = Console(stderr=True, highlight=False)
        self.bar: Progress | None = None
        self.total = 0
        self.last_line = 0.0

    def start(self, images_seen: int, total: int) -> None:
        self.total = total
        if self.quiet or not self.console.is_terminal:
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
        )
        end = self.budget_seconds if self.budget_seconds is not None else total
        done = 0 if self.budget_seconds is not None else images_seen
        self.task = self.bar.add_task("train", total=end, completed=done, text="")
        self.bar.start()

    def progress(self, images_seen: int, record: dict[str, Any]) -> None:
        text = self._text(images_seen, record)
        if self.bar is not None:
            done = record["seconds"] if self.budget_seconds is not None else images_seen
            self.bar.update(self.task, completed=done, text=text)
        elif not self.quiet and time.monotonic() - self.last_line >= QUIET_SECONDS:
            self.last_line = time.monotonic()
            left = (self.total - images_seen) / max(record["images_per_second"], 1e-9)
            if self.budget_seconds is not None:
                left = min(left, self.budget_seconds - record["seconds"])
            self.console.print(f"{text}, {_clock(left)} left", markup=False, soft_wrap=True)

    def message(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)

    def finish(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _text(self, images_seen: int, record: dict[str, Any]) -> str:
        terms = "  ".join(f"{name} {record[name]:.4g}" for name in self.headline if name in record)
        return f"{images_seen:,} images  {record['images_per_second']:.0f}/s  {terms}"


def _clock(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s"


@contextlib.contextmanager
def counting(verb: str, *, quiet: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for something that is counted, on a terminal; yields what to call with (done, in all or None)."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(verb), BarColumn(24), TextColumn("{task.completed:,.0f}"), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def counting_parts() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar for each part of some work, on a terminal; yields what to call with (part, done, in all or None)."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        TextColumn("{task.completed:,.0f}"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:

        def tell(part: str, done: int, total: int | None) -> None:
            if part not in tasks:
                tasks[part] = bar.add_task(visible(part), total=total)
            bar.update(tasks[part], completed=done, total=total)

        yield tell
