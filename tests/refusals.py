"""Files that are refused with one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smalti.checkpoint.file import read
from smalti.errors import CheckpointError


def refused(path: Path, message: str = "", *, reading: Callable[[Path], Any] = read) -> str:
    """Reading is refused with one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        reading(path)
    line = str(caught.value)
    assert message in line
    assert str(path) in line
    assert "\n" not in line
    assert len(line) < 700
    return line
