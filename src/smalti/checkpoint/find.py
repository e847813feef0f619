"""The file of a trained model, for whatever names it. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from smalti.checkpoint import zoo
from smalti.checkpoint.run_dir import RunFolder
from smalti.errors import CheckpointError, command
from smalti.files import input_errors


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The file to load for a run folder (its last save), for a file (itself) or for `zoo:NAME`.

    Raises:
        CheckpointError: the path does not exist or is not accessible, the folder has no checkpoint, or the zoo has no
            model of that name.
    """
    location = zoo.resolve(path)
    with input_errors(location, CheckpointError):
        if location.is_dir():
            last = RunFolder(location).last
            pretrained = location / "model.safetensors"
            if not last.exists() and pretrained.exists():
                return pretrained
            if not last.exists():
                raise CheckpointError(
                    f"the folder {location} holds no checkpoint; expected {last.name} from {command('train')}"
                )
            return last
        if not location.exists():
            raise CheckpointError(f"there is no {location}; {zoo.not_there(location)}")
        return location
