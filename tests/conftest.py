"""What every test shares: one thread, a cache folder of its own, and a small training to take apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("smalti", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("smalti")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors are slower on many threads, and pytest-xdist brings its own processes."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
