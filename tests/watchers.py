"""A reporter that remembers what a training said."""

from __future__ import annotations

from typing import Any

from smalti.training.reporter import SilentReporter


class Watcher(SilentReporter):
    """Remembers the loop's records and calls something at each of them."""

    def __init__(self, then: Any = None) -> None:
        self.records: list[dict[str, Any]] = []
        self.messages: list[str] = []
        self.then = then

    def progress(self, images_seen: int, record: dict[str, Any]) -> None:
        self.records.append(record)
        if self.then is not None:
            self.then(images_seen)

    def message(self, text: str) -> None:
        self.messages.append(text)
