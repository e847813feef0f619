"""Run folders: the files of one training, and exclusive access to them.

config.json          the settings; a training with other settings is refused
log.jsonl            one record per line: losses, scores, events
last.safetensors     checkpoint of the EMA weights at the last save
best.safetensors     checkpoint of the EMA weights with the best score
resume.pt            resume state
previews/            preview images, named by the number of images seen
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from smalti.checkpoint.zoo import refuse_output
from smalti.config.parse import from_plain, paths, to_plain
from smalti.config.run import RunConfig
from smalti.errors import CheckpointError, ConfigError, OutputError, arg
from smalti.files import lock, output_errors, write_atomically

# Settings that may differ when a run is resumed. The data source may move, because its fingerprint is compared.
FREE = {"data.source", "train.images", "train.log_every", "train.preview_every", "train.save_every", "preset"}


class RunFolder:
    """Paths and files of a run folder.

    Attributes:
        path: the folder.
        last, best, state, config, log: the files listed above.
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
        """Create the folder for a training, or check that it belongs to it, and lock it.

        Raises:
            OutputError: it holds another run or other files, is not writable, is `zoo:NAME`, or another training is
                running in it.
        """
        refuse_output(self.path)
        with output_errors(self.path):
            self._check_content(config)
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._check_content(config)  # again, since another training may have written before the lock was taken
            self.clean()
        text = json.dumps(to_plain(config), indent=2) + "\n"
        write_atomically(self.config, lambda file: file.write(text.encode()))

    def _check_content(self, config: RunConfig) -> None:
        """Raise OutputError if the folder holds another run or other files."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; give {arg('out')} a folder")
        if self.config.exists():
            self._check_same_settings(config)
        elif self.path.is_dir() and any(not _ours(item.name) for item in self.path.iterdir()):
            raise OutputError(
                f"the folder {self.path} holds other files and no training; give {arg('out')} a new or an empty folder"
            )

    def _check_same_settings(self, config: RunConfig) -> None:
        """Raise OutputError if the run in the folder has other settings."""
        found, given = paths(self.read_config()), paths(config)
        if not any(file.exists() for file in (self.log, self.last, self.best, self.state)):
            return  # that training failed before its first step, so its settings do not matter
        keys = sorted((found.keys() | given.keys()) - FREE)
        missing = object()
        different = [key for key in keys if found.get(key, missing) != given.get(key, missing)]
        if different:
            key = different[0]
            more = f" and {len(different) - 1} more settings" if len(different) > 1 else ""
            raise OutputError(
                f"{self.path} holds another training: its {key} is {found.get(key)!r}, "
                f"yours is {given.get(key)!r}{more}; "
                f"give {arg('out')} another folder, or the same settings to go on with it"
            )

    def read_config(self) -> RunConfig:
        """Read the settings of the run.

        Raises:
            CheckpointError: they cannot be read.
        """
        try:
            return from_plain(RunConfig, json.loads(self.config.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            raise CheckpointError(f"{self.config} cannot be read ({error}); give {arg('out')} another folder") from None

    def _take_lock(self) -> None:
        self._lock = (self.path / ".lock").open("wb")
        lock(self._lock, f"another training is at work in {self.path}; wait for it or give another {arg('out')}")

    def release(self) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record to the log."""
        with output_errors(self.log), self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The records of the log; lines that are not valid records, such as a truncated last one, are skipped."""
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
        """Remove the records after the resume point: those steps are repeated."""
        earlier = [record for record in self.records() if record["images_seen"] <= images_seen]
        text = "".join(json.dumps(record) + "\n" for record in earlier)
        write_atomically(self.log, lambda file: file.write(text.encode()))

    def clean(self) -> None:
        """Remove temporary files that a killed process left behind."""
        for leftover in self.path.glob(".*.tmp"):
            with output_errors(leftover):
                os.unlink(leftover)


def _ours(name: str) -> bool:
    """Whether the name is of a file that a training killed before writing its settings may leave behind."""
    return name == ".lock" or (name.startswith(".") and name.endswith(".tmp"))
