"""The folder of one training: what is in it, whose it is, and how a stopped run finds its place again.

config.json          the settings; a second training with others is refused
log.jsonl            one record a line: losses, scores, events
last.safetensors     averaged weights of the last save, with their card
best.safetensors     those with the best score so far
resume.pt            everything the next step depends on
previews/            pictures, named by the images seen
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from smalti.config.parse import from_plain, paths, to_plain
from smalti.config.run import RunConfig
from smalti.errors import CheckpointError, ConfigError, OutputError
from smalti.files import lock, output_errors, write_atomically

# A run may go on longer, write more often, or find its data elsewhere (their fingerprint is compared), and is the same.
FREE = {"data.source", "train.images", "train.log_every", "train.preview_every", "train.save_every", "preset"}


class RunFolder:
    """A folder that is, or becomes, a training's.

    Raises:
        OutputError: the folder holds another run or other files, cannot be written, or a training is at work in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.last = self.path / "last.safetensors"
        self.best = self.path / "best.safetensors"
        self.state = self.path / "resume.pt"
        self.config = self.path / "config.json"
        self.log = self.path / "log.jsonl"
        self._lock: IO[bytes] | None = None

    def claim(self, config: RunConfig) -> None:
        """Make the folder this training's, or see that it already is."""
        with output_errors(self.path):
            self._refuse_other_things(config)
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._refuse_other_things(config)  # once more, for what another training wrote before we had the lock
            self.clean()
        text = json.dumps(to_plain(config), indent=2) + "\n"
        write_atomically(self.config, lambda file: file.write(text.encode()))

    def _refuse_other_things(self, config: RunConfig) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; give --out a folder")
        if self.config.exists():
            self._compare(config)
        elif self.path.is_dir() and any(not _ours(item.name) for item in self.path.iterdir()):
            raise OutputError(
                f"the folder {self.path} holds other files and no training; give --out a new or an empty folder"
            )

    def _compare(self, config: RunConfig) -> None:
        there, mine = paths(self.read_config()), paths(config)
        if not any(file.exists() for file in (self.log, self.last, self.best, self.state)):
            return  # refused before its first step, for something that the next one may do otherwise
        keys = sorted((there.keys() | mine.keys()) - FREE)
        missing = object()
        different = [key for key in keys if there.get(key, missing) != mine.get(key, missing)]
        if different:
            key = different[0]
            more = f" and {len(different) - 1} more settings" if len(different) > 1 else ""
            raise OutputError(
                f"{self.path} holds another training: its {key} is {there.get(key)!r}, "
                f"yours is {mine.get(key)!r}{more}; "
                "give --out another folder, or the same settings to go on with it"
            )

    def read_config(self) -> RunConfig:
        """The settings of the training in this folder.

        Raises:
            CheckpointError: they cannot be read.
        """
        try:
            return from_plain(RunConfig, json.loads(self.config.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            raise CheckpointError(f"{self.config} cannot be read ({error}); give --out another folder") from None

    def _take_lock(self) -> None:
        self._lock = (self.path / ".lock").open("wb")
        lock(self._lock, f"another training is at work in {self.path}; wait for it or give another --out")

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line to the log."""
        with output_errors(self.log), self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The log; a last line that was cut short by a kill, or anything else that is no record, is left out."""
        found = []
        if self.log.exists():
            with output_errors(self.log):
                lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            for line in lines:
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(record, dict) and isinstance(record.get("images_seen"), int):
                    found.append(record)
        return found

    def rewind_log(self, images_seen: int) -> None:
        """Forget what was logged after the state that a run resumes from: it will be done again."""
        kept = [record for record in self.records() if record["images_seen"] <= images_seen]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomically(self.log, lambda file: file.write(text.encode()))

    def clean(self) -> None:
        """Remove what a killed process left half written."""
        for leftover in self.path.glob(".*.tmp"):
            with output_errors(leftover):
                os.unlink(leftover)


def _ours(name: str) -> bool:
    """Whether a training that was killed before it wrote its settings may have left this file."""
    return name == ".lock" or (name.startswith(".") and name.endswith(".tmp"))
