"""smalti: train GANs and VQ-VAEs on your own images, then generate, reconstruct and measure.

    model = smalti.load("runs/faces")
    pictures = model.generate(16, seed=0)       # (16, H, W, C) uint8

Names are imported when they are first used, so that `import smalti` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from smalti._version import __version__

if TYPE_CHECKING:
    from smalti.config.presets import PRESETS, preset
    from smalti.errors import SmaltiError
    from smalti.pipelines.base import Model, load, save_grid

_HOMES = {
    "Model": "smalti.pipelines.base",
    "load": "smalti.pipelines.base",
    "save_grid": "smalti.pipelines.base",
    "SmaltiError": "smalti.errors",
    "PRESETS": "smalti.config.presets",
    "preset": "smalti.config.presets",
}

__all__ = ["PRESETS", "Model", "SmaltiError", "__version__", "load", "preset", "save_grid"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smalti' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
